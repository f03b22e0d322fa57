//! ConfigMaps of clusters: each report is decided, and answered after commit.

use super::cluster::Kind;
use super::{Answer, Sessions};
use argosy_proto::agent::{ConfigMapsReported, ConfigMapsTaken, control_frame::Body as Down};
use argosy_proto::command::{self, command::Body as Ask, reply::Body as Reply};
use argosy_proto::common::ConfigMapNotice;

/// The reports of one session.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// Being decided.
    asked: Option<u64>,
    /// The last answer: the agent may not have got it.
    answer: Option<ConfigMapsTaken>,
}

impl Sessions {
    pub(super) fn on_config_maps(&mut self, name: &str, report: ConfigMapsReported) {
        let Some(session) = self.clusters.get_mut(name).and_then(|cluster| cluster.session.as_mut()) else {
            return;
        };
        let ConfigMapsReported { revision, present, changed } = report;
        let answered = session.config_maps.answer.as_ref().filter(|answer| answer.revision >= revision);
        if let Some(answer) = answered.cloned() {
            let (connection, epoch) = (session.connection, session.epoch);
            if answer.revision == revision {
                self.send(connection, epoch, Down::ConfigMapsTaken(answer));
            }
            return;
        }
        if !session.live || session.config_maps.asked.is_some() {
            // The agent sends it again.
            self.counters.frames_unexpected += 1;
            return;
        }
        session.config_maps.asked = Some(revision);
        let epoch = session.epoch;
        let cluster = name.to_owned();
        let ask = command::ReportConfigMaps { cluster, session_epoch: epoch, present, changed };
        self.decide(name, Kind::ConfigMaps { epoch, revision }, Ask::ReportConfigMaps(ask));
    }

    pub(super) fn on_config_maps_decided(&mut self, name: &str, epoch: u64, revision: u64, answer: Answer) {
        let Some(session) = self.current(name, epoch) else { return };
        session.config_maps.asked = None;
        let notices = match answer {
            Answer::Reply(command::Reply { body: Some(Reply::ConfigMapsTaken(taken)) }) => taken.notices,
            // Of the whole report, which would be refused again: until something changes there.
            Answer::Refused(refusal) => {
                let command::Refusal { code, message, .. } = refusal;
                vec![ConfigMapNotice { name: None, refused: true, code, message }]
            }
            // The agent sends it again.
            Answer::Reply(_) | Answer::Lost => return,
        };
        let taken = ConfigMapsTaken { revision, notices };
        session.config_maps.answer = Some(taken.clone());
        let connection = session.connection;
        self.send(connection, epoch, Down::ConfigMapsTaken(taken));
    }
}
