/// Invariant 3: exclusive steps never overlap. The engine knows no exclusive steps yet, so nothing is judged.
#[derive(Debug, Default)]
pub struct Exclusive;

impl Exclusive {
    /// Always 0: not exercised.
    #[must_use]
    pub fn exercised(&self) -> u64 {
        0
    }
}
