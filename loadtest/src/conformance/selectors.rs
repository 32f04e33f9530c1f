//! What a watch delivers, and to whom its selectors let it.
