//! Agent reconciler and runtimes.
