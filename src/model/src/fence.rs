use argosy_proto::common::Fence;

/// A fence as the step sees it in `ARGOSY_FENCE`: `incarnation.index.ordinal`, each in decimal. Comparing two of one
/// node part by part gives the order of their assignment.
#[must_use]
pub fn display_fence(fence: &Fence) -> String {
    format!("{}.{}.{}", fence.incarnation, fence.index, fence.ordinal)
}

/// Reads what [`display_fence`] wrote; `None` for anything else.
#[must_use]
pub fn parse_fence(text: &str) -> Option<Fence> {
    let mut parts = text.split('.');
    let fence = Fence {
        incarnation: parts.next()?.parse().ok()?,
        index: parts.next()?.parse().ok()?,
        ordinal: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(fence)
}

/// The prefix of the keys under which attempts of a workflow store objects of their own.
#[must_use]
pub fn artifact_prefix(cell: &str, workflow_uid: &str) -> String {
    format!(".argosy/{cell}/{workflow_uid}/")
}

/// The key under which an attempt stores what will be at `key`: nobody else writes there, late or not.
#[must_use]
pub fn artifact_key(prefix: &str, fence: &Fence, key: &str) -> String {
    format!("{prefix}{}/{}", display_fence(fence), key.trim_start_matches('/'))
}

/// The key under which an attempt leaves its result when its agent can't be reached: beside its artifacts, and none of theirs.
#[must_use]
pub fn result_key(prefix: &str, fence: &Fence) -> String {
    format!("{prefix}{}.result.json", display_fence(fence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn a_fence_reads_back() {
        let fence = Fence { incarnation: 2, index: 17, ordinal: 3 };
        assert_eq!(parse_fence(&display_fence(&fence)), Some(fence));
        for bad in ["", "1.2", "1.2.3.4", "a.b.c", "-1.2.3"] {
            assert_eq!(parse_fence(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_fence_keeps_its_bytes() {
        let fence = Fence { incarnation: 2, index: 300, ordinal: 3 };
        assert_eq!(fence.encode_to_vec(), [0x08, 2, 0x10, 0xac, 0x02, 0x18, 3]);
    }

    #[test]
    fn a_later_incarnation_is_greater_whatever_the_index() {
        assert!(
            Fence { incarnation: 2, index: 1, ordinal: 0 } > Fence { incarnation: 1, index: 900, ordinal: 9 }
        );
    }
}
