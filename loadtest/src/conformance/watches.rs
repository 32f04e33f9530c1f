//! How a watch begins.
