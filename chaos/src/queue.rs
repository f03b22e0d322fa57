use std::collections::BTreeMap;

/// Virtual time and what is to happen in it, ordered by time and then by the order of planning.
#[derive(Debug)]
pub struct Queue<Event> {
    now_ms: u64,
    next_number: u64,
    planned: BTreeMap<(u64, u64), Event>,
}

impl<Event> Default for Queue<Event> {
    fn default() -> Self {
        Self { now_ms: 0, next_number: 0, planned: BTreeMap::new() }
    }
}

impl<Event> Queue<Event> {
    /// Virtual milliseconds since the beginning.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Plans an event; a time that has passed means now.
    pub fn plan(&mut self, at_ms: u64, event: Event) {
        self.planned.insert((at_ms.max(self.now_ms), self.next_number), event);
        self.next_number += 1;
    }

    /// Plans an event so many milliseconds from now.
    pub fn plan_after(&mut self, wait_ms: u64, event: Event) {
        self.plan(self.now_ms.saturating_add(wait_ms), event);
    }

    /// Moves time to the next event and takes it, unless it is later than `until_ms`.
    pub fn next(&mut self, until_ms: u64) -> Option<Event> {
        let at = *self.planned.keys().next()?;
        if at.0 > until_ms {
            return None;
        }
        self.now_ms = at.0;
        self.planned.remove(&at)
    }

    /// Events planned.
    #[must_use]
    pub fn len(&self) -> usize {
        self.planned.len()
    }

    /// Nothing is planned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.planned.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_then_in_the_order_of_planning() {
        let mut queue = Queue::default();
        queue.plan(20, "c");
        queue.plan(10, "a");
        queue.plan(10, "b");
        assert_eq!(queue.next(15), Some("a"));
        assert_eq!(queue.now_ms(), 10);
        queue.plan(3, "late");
        assert_eq!((queue.next(15), queue.next(15), queue.next(15)), (Some("b"), Some("late"), None));
        assert_eq!(queue.now_ms(), 10);
        assert_eq!(queue.next(20), Some("c"));
        assert!(queue.is_empty());
    }
}
