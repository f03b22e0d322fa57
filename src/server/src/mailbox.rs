//! The way into the member's thread.

use argosy_engine::State;
use argosy_member::{MemberStatus, Outcome};
use argosy_model::MemberId;
use argosy_proto::agent::{AgentFrame, ControlFrame};
use argosy_proto::command::Command;
use argosy_proto::peer::PeerFrame;
use argosy_store::Checkpoint;
use tokio::sync::{mpsc, oneshot};

/// Mail that waits for the member's thread. Senders wait when it is full, which is the back-pressure on peers, agents
/// and clients alike.
pub const MAILBOX_MAX: usize = 16_384;

/// A connected agent.
pub struct AgentConnection {
    /// Number within this process.
    pub connection: u64,
    /// Identity from the certificate.
    pub cluster: String,
    /// Frames for it.
    pub sender: mpsc::Sender<Result<ControlFrame, tonic::Status>>,
}

/// What the member's thread is told.
pub enum Mail {
    /// A frame of an authenticated peer.
    Peer {
        /// The peer.
        from: MemberId,
        /// Its frame.
        frame: PeerFrame,
    },
    /// The stream to a peer ended or could not be opened.
    PeerUnreachable(MemberId),
    /// An agent connected.
    AgentOpened(AgentConnection),
    /// A frame of a connected agent.
    AgentFrame {
        /// Its connection.
        connection: u64,
        /// The frame.
        frame: AgentFrame,
    },
    /// The connection is gone.
    AgentClosed {
        /// Its number.
        connection: u64,
    },
    /// A client's command.
    Command {
        /// What is asked.
        command: Command,
        /// Takes the outcome; dropped when the member stops, which the client sees as unknown.
        answer: oneshot::Sender<Outcome>,
    },
    /// A linearizable read.
    Read {
        /// Takes the state, or nothing when no quorum answered in time.
        answer: oneshot::Sender<Option<State>>,
    },
    /// A consistent copy of everything that is replicated.
    Checkpoint {
        /// Takes it; dropped when the disk fails.
        answer: oneshot::Sender<Box<dyn Checkpoint>>,
    },
    /// The records of an archived workflow.
    Archived {
        /// Its number.
        workflow: u64,
        /// Takes them; `None` when there are too many bytes.
        answer: oneshot::Sender<Option<Vec<Vec<u8>>>>,
    },
    /// How the member stands.
    Status {
        /// Takes the answer.
        answer: oneshot::Sender<MemberStatus>,
    },
    /// Stop after what came before.
    Stop,
}

/// Sends to the member's thread.
#[derive(Clone)]
pub struct Mailbox(flume::Sender<Mail>);

impl Mailbox {
    /// A mailbox and the end the member's thread reads.
    #[must_use]
    pub fn new() -> (Self, flume::Receiver<Mail>) {
        let (sender, receiver) = flume::bounded(MAILBOX_MAX);
        (Self(sender), receiver)
    }

    /// Waits for room; does nothing once the member has stopped.
    pub async fn send(&self, mail: Mail) {
        let _ = self.0.send_async(mail).await;
    }

    /// Carries out a command; [`Outcome::Unknown`] when the member stops meanwhile.
    pub async fn command(&self, command: Command) -> Outcome {
        let (answer, outcome) = oneshot::channel();
        self.send(Mail::Command { command, answer }).await;
        outcome.await.unwrap_or(Outcome::Unknown)
    }

    /// State at least as new as everything acknowledged before the call; `None` when no quorum answered in time.
    pub async fn read(&self) -> Option<State> {
        let (answer, state) = oneshot::channel();
        self.send(Mail::Read { answer }).await;
        state.await.ok().flatten()
    }

    /// The records of an archived workflow: `Some(None)` when they have too many bytes, `None` once the member has stopped.
    pub async fn archived(&self, workflow: u64) -> Option<Option<Vec<Vec<u8>>>> {
        let (answer, records) = oneshot::channel();
        self.send(Mail::Archived { workflow, answer }).await;
        records.await.ok()
    }

    /// How the member stands; `None` once it has stopped.
    pub async fn status(&self) -> Option<MemberStatus> {
        let (answer, status) = oneshot::channel();
        self.send(Mail::Status { answer }).await;
        status.await.ok()
    }

    /// A consistent copy of what the member has applied; `None` when it has stopped or its disk fails.
    pub async fn checkpoint(&self) -> Option<Box<dyn Checkpoint>> {
        let (answer, checkpoint) = oneshot::channel();
        self.send(Mail::Checkpoint { answer }).await;
        checkpoint.await.ok()
    }

    /// Mail waiting.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.0.len()
    }
}
