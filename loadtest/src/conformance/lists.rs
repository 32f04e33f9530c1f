//! Lists: at which resource version, in what order, in which pages.
