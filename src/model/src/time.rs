/// Milliseconds since 1970 as the log tells them: advanced within a term by the leader's steady clock, the same on every
/// member at the same log index. Never compare it with a local clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogTime(pub i64);

impl LogTime {
    /// This time plus a span; saturates at the ends.
    #[must_use]
    pub fn plus_ms(self, span_ms: i64) -> Self {
        Self(self.0.saturating_add(span_ms))
    }
}
