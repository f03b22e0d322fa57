//! Memoization caches that somebody prepared: entries in a ConfigMap, as Argo writes them.

use argosy_proto::state as row;
use serde::Deserialize;

use crate::config_maps::TYPE_LABEL;
use crate::state::{ROW_VERSION, State};

/// The label's value for caches.
pub(crate) const CACHE_TYPE: &str = "Cache";
const UNLABELLED: &str =
    "memoization configmap doesn't have workflows.argoproj.io/configmap-type label, refusing to use it";

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    #[serde(rename = "nodeID")]
    node_id: String,
    outputs: Option<Outputs>,
    creation_timestamp: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Outputs {
    parameters: Option<Vec<argosy_spec::Parameter>>,
    result: Option<String>,
    exit_code: Option<String>,
}

/// When an entry was made; 0 for one that can't be read.
pub(crate) fn created_at_ms(text: &str) -> i64 {
    let entry: Entry = serde_json::from_str(text).unwrap_or_default();
    time_ms(&entry.creation_timestamp).unwrap_or(0)
}

/// The entry of a key in a prepared cache; an error when there is a ConfigMap of the cache's name that is for something
/// else, or an entry that cannot be read.
pub(crate) fn find(
    state: &State,
    namespace: &str,
    cache: &str,
    key: &str,
) -> Result<Option<row::Memo>, String> {
    let Some(config_map) = state.config_map(namespace, cache) else { return Ok(None) };
    if config_map.labels.get(TYPE_LABEL).is_none_or(|kind| kind != CACHE_TYPE) {
        return Err(UNLABELLED.to_owned());
    }
    let Some(text) = config_map.data.get(key).filter(|text| !text.is_empty()) else { return Ok(None) };
    let entry: Entry = serde_json::from_str(text).map_err(|error| {
        format!("malformed cache entry: could not unmarshal JSON; unable to parse: {error}")
    })?;
    Ok(Some(row::Memo {
        version: ROW_VERSION,
        outputs: entry.outputs.map(outputs),
        created_at_ms: time_ms(&entry.creation_timestamp).unwrap_or(0),
        node_id: entry.node_id,
    }))
}

fn outputs(given: Outputs) -> row::Outputs {
    let parameters = given.parameters.unwrap_or_default().into_iter();
    row::Outputs {
        result: given.result,
        exit_code: given.exit_code.and_then(|code| code.parse().ok()),
        parameters: parameters
            .map(|one| row::Parameter { name: one.name, value: one.value, verbatim: false })
            .collect(),
        ..row::Outputs::default()
    }
}

/// An RFC 3339 time as Kubernetes writes it: UTC, whole seconds.
fn time_ms(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, separator: char| -> Option<[i64; 3]> {
        let found: Vec<i64> = text.split(separator).map(|part| part.parse().ok()).collect::<Option<_>>()?;
        found.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time.split('.').next()?, ':')?;
    let in_range = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !in_range {
        return None;
    }
    // Days since 1970 of a date of the Gregorian calendar, with the year beginning in March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some((days * 86_400 + hour * 3600 + minute * 60 + second) * 1000)
}

#[cfg(test)]
mod tests {
    use super::time_ms;
    use crate::view::time_text;

    #[test]
    fn times_are_read_as_they_are_written() {
        for ms in [0, 951_782_400_000, 1_577_836_800_000, 1_709_164_800_000, 1_790_000_001_000] {
            assert_eq!(time_ms(&time_text(ms)), Some(ms), "{}", time_text(ms));
        }
        for odd in ["", "2020-01-01", "2020-13-01T00:00:00Z", "aT:Z"] {
            assert_eq!(time_ms(odd), None, "{odd}");
        }
    }
}
