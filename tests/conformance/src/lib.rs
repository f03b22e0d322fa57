//! Recordings of the real Argo (`cases/`, facts that are never edited), and what of them is to come out the same here.
//!
//! `tests/scripted.rs` replays every case through the real engine in virtual time: no processes, no cluster.
//! `docs/argo-differences.md` names each case that deviates on purpose; every other difference is a failure.
