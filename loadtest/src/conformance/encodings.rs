//! Media types, encodings and headers.
