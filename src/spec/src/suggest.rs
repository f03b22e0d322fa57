//! "Did you mean".

/// Longest name that is compared; beyond it no suggestion is made.
const NAME_MAX: usize = 64;

/// The candidate nearest to `name`, if one is near.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let length = name.chars().count();
    if length > NAME_MAX {
        return None;
    }
    let allowed = (length / 3).max(1);
    candidates
        .map(|candidate| (distance(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut two_ago: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, from) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, to) in right.iter().enumerate() {
            let replace = previous[column] + usize::from(from != to);
            let mut best = replace.min(previous[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *from == right[column - 1] && left[row - 1] == *to {
                best = best.min(two_ago[column - 1] + 1);
            }
            current.push(best);
        }
        two_ago = std::mem::replace(&mut previous, current);
    }
    previous[right.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let words = ["entrypoint", "arguments", "templates", "onExit"];
        assert_eq!(nearest("entryPoint", words.into_iter()), Some("entrypoint"));
        assert_eq!(nearest("template", words.into_iter()), Some("templates"));
        assert_eq!(nearest("argumnets", words.into_iter()), Some("arguments"));
        assert_eq!(nearest("nonsense", words.into_iter()), None);
        assert_eq!(nearest("", words.into_iter()), None);
    }
}
