//! Arithmetic on resources: what runs is deducted, what ended is given back.

use argosy_proto::common::Resources;

/// Adds `more` to `sum`; saturates.
pub(crate) fn add(sum: &mut Resources, more: Option<&Resources>) {
    combine(sum, more, i64::saturating_add);
}

/// Takes `less` from `sum`, never below zero.
pub(crate) fn subtract(sum: &mut Resources, less: Option<&Resources>) {
    combine(sum, less, |have, part| have.saturating_sub(part).max(0));
}

fn combine(sum: &mut Resources, other: Option<&Resources>, operation: impl Fn(i64, i64) -> i64) {
    let Some(Resources { cpu_milli, memory_bytes, ephemeral_storage_bytes, pods, extended }) = other else {
        return;
    };
    sum.cpu_milli = operation(sum.cpu_milli, *cpu_milli);
    sum.memory_bytes = operation(sum.memory_bytes, *memory_bytes);
    sum.ephemeral_storage_bytes = operation(sum.ephemeral_storage_bytes, *ephemeral_storage_bytes);
    sum.pods = operation(sum.pods, *pods);
    for (name, amount) in extended {
        let entry = sum.extended.entry(name.clone()).or_default();
        *entry = operation(*entry, *amount);
    }
    sum.extended.retain(|_, amount| *amount != 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back() {
        let one = Resources {
            cpu_milli: 5,
            pods: 1,
            extended: [("gpu".to_owned(), 2)].into(),
            ..Resources::default()
        };
        let mut sum = Resources::default();
        add(&mut sum, Some(&one));
        add(&mut sum, Some(&one));
        subtract(&mut sum, Some(&one));
        assert_eq!(sum, one);
        subtract(&mut sum, Some(&one));
        assert_eq!(sum, Resources::default());
    }
}
