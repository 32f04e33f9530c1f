//! Reading one object.
