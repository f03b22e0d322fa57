//! A whole cell in one thread, from one seed: a network that drops, delays, repeats and parts, disks that lose what was not
//! synced or fail, and members that crash.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faults;
mod hostile;
mod membership;
mod rocks;
mod snapshots;
mod world;
