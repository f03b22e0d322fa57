//! ConfigMaps of the cluster that workflows read: what there is, and what of it the control plane has.
//!
//! The runtime gives all of them whenever one changed. One frame is under way at a time, with the names of everything and
//! the contents of what is not told yet, as much as fits; it is sent again until it is answered. A new session begins anew.

use super::Session;
use super::connection::Link;
use crate::Millis;
use argosy_proto::agent::{ConfigMapsReported, ConfigMapsTaken, agent_frame::Body as Up};
use argosy_proto::common::{ConfigMapName, ReportedConfigMap};
use prost::Message;
use std::collections::BTreeMap;

#[derive(Debug)]
struct Held {
    contents: ReportedConfigMap,
    is_told: bool,
}

#[derive(Debug, Default)]
pub(super) struct ConfigMaps {
    /// By namespace and name. `None` until the runtime has listed them: nothing is withdrawn before.
    held: Option<BTreeMap<(String, String), Held>>,
    /// The control plane knows which there are.
    names_told: bool,
    /// Of the last frame that was made.
    revision: u64,
    /// The frame without an answer, and when it was sent last.
    in_flight: Option<(ConfigMapsReported, Millis)>,
}

impl ConfigMaps {
    /// All that there are now.
    pub fn replace(&mut self, all: Vec<ReportedConfigMap>) {
        let mut before = self.held.take().unwrap_or_default();
        let mut held = BTreeMap::new();
        for contents in all {
            let Some(ConfigMapName { namespace, name }) = contents.name.clone() else { continue };
            let key = (namespace, name);
            let known = before.remove(&key).filter(|known| known.contents == contents);
            held.insert(key, known.unwrap_or(Held { contents, is_told: false }));
        }
        self.names_told &= before.is_empty();
        self.held = Some(held);
    }

    /// In a new session everything is told again: the control plane may have forgotten.
    pub fn tell_all(&mut self) {
        self.in_flight = None;
        self.names_told = false;
        self.held.iter_mut().flat_map(BTreeMap::values_mut).for_each(|held| held.is_told = false);
    }

    /// The frame to send now, if there is one.
    fn next(&mut self, now: Millis, resend_ms: Millis, bytes_max: usize) -> Option<ConfigMapsReported> {
        if let Some((frame, sent_at)) = &mut self.in_flight {
            if now.saturating_sub(*sent_at) < resend_ms {
                return None;
            }
            *sent_at = now;
            return Some(frame.clone());
        }
        let held = self.held.as_ref()?;
        if self.names_told && held.values().all(|held| held.is_told) {
            return None;
        }
        let mut changed: Vec<ReportedConfigMap> = Vec::new();
        let mut bytes = 0;
        for Held { contents, .. } in held.values().filter(|held| !held.is_told) {
            bytes += contents.encoded_len();
            if bytes > bytes_max && !changed.is_empty() {
                break;
            }
            changed.push(contents.clone());
        }
        self.revision += 1;
        let frame = ConfigMapsReported { revision: self.revision, present: names(held), changed };
        self.in_flight = Some((frame.clone(), now));
        Some(frame)
    }

    /// An answer came; whether it is the one that is waited for.
    fn taken(&mut self, revision: u64) -> bool {
        let Some((frame, _)) = self.in_flight.take_if(|(frame, _)| frame.revision == revision) else {
            return false;
        };
        let Some(held) = self.held.as_mut() else { return true };
        for told in frame.changed {
            // What changed meanwhile is told next.
            let current = held.values_mut().find(|held| held.contents == told);
            current.into_iter().for_each(|held| held.is_told = true);
        }
        self.names_told = frame.present == names(held);
        true
    }
}

fn names(held: &BTreeMap<(String, String), Held>) -> Vec<ConfigMapName> {
    let named = |(namespace, name): &(String, String)| ConfigMapName {
        namespace: namespace.clone(),
        name: name.clone(),
    };
    held.keys().map(named).collect()
}

impl Session {
    /// Tells what there is to tell, once the session is in step.
    pub(super) fn send_config_maps(&mut self, now: Millis) {
        let Link::Up(up, _) = &self.link else { return };
        if !up.synced {
            return;
        }
        let epoch = up.epoch;
        let resend_ms = self.options.times.agent_resend_ms;
        let bytes_max = self.options.limits.config_maps_frame_bytes_max;
        if let Some(frame) = self.config_maps.next(now, resend_ms, bytes_max) {
            self.send(epoch, Up::ConfigMapsReported(frame));
        }
    }

    pub(super) fn on_config_maps_taken(&mut self, now: Millis, taken: ConfigMapsTaken) {
        if !self.config_maps.taken(taken.revision) {
            self.counters.frames_stale += 1;
            return;
        }
        if !taken.notices.is_empty() {
            self.outputs.push(super::Output::ConfigMapNotices(taken.notices));
        }
        self.send_config_maps(now);
    }
}
