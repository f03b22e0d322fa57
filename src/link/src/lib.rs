//! Agent link.
