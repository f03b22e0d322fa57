//! First process of a step.
