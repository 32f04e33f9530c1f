//! Bookmarks, and how streams end.
