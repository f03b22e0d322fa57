//! The engine as the gateway reads it.
