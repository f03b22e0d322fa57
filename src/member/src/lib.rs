//! One control-plane member.
