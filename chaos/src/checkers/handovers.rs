use std::collections::BTreeMap;

/// What of the invariants concerns steps that are run again for their artifacts: how often there was something to judge.
#[derive(Debug, Default)]
pub struct Handovers {
    known: BTreeMap<(u64, u32), usize>,
    begun: u64,
    /// Of those, whose cluster was there: a reader needed them elsewhere.
    apart: u64,
    /// Workflows that ended with something made again.
    ended: u64,
}

impl Handovers {
    /// Steps run again.
    #[must_use]
    pub fn exercised(&self) -> u64 {
        self.begun
    }

    /// Of those, steps whose cluster was not lost.
    #[must_use]
    pub fn apart(&self) -> u64 {
        self.apart
    }

    /// Workflows that ended and had steps run again.
    #[must_use]
    pub fn workflows(&self) -> u64 {
        self.ended
    }

    /// The node was run again more often than was known.
    pub fn is_news(&mut self, node: (u64, u32), times: usize) -> bool {
        times > 0 && self.known.insert(node, times).unwrap_or(0) < times
    }

    /// A step is run again; its cluster is gone, or it is needed elsewhere.
    pub fn begun(&mut self, gone: bool) {
        self.begun += 1;
        self.apart += u64::from(!gone);
    }

    /// A workflow ended, with so many steps run again.
    pub fn ended(&mut self, again: u32) {
        self.ended += u64::from(again > 0);
    }
}
