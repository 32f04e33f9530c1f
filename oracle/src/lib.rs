//! The parsers of the workspace against Go's answers and against second opinions.
//!
//! Owns the tables in `tables/`, which `tests/tables` compares row by row.
