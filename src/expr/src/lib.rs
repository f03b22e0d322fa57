//! Expressions and tags.
