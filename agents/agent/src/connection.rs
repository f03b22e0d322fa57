//! Connections to members: one at a time, any member in turn.

use argosy_pki::{SharedClientTls, server_name};
use argosy_proto::agent::agent_link_client::AgentLinkClient;
use argosy_proto::agent::{AgentFrame, ControlFrame};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// TCP, TLS and HTTP/2 together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Frames that wait for the network; more end the connection, and the next one begins with a resync.
pub const FRAMES_OUT_MAX: usize = 4_096;
/// Frames that wait for the reconciler: beyond, the stream's flow control holds the member back.
const FRAMES_IN_MAX: usize = 256;
/// Bytes of one frame in either direction: an assignment holds a template.
const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What happened to the connection of a generation.
#[expect(clippy::large_enum_variant, reason = "almost all are frames")]
pub enum Event {
    /// Frames may be sent.
    Opened(mpsc::Sender<AgentFrame>),
    /// A frame came.
    Frame(ControlFrame),
    /// It is over, or never began; why.
    Closed(String),
}

/// Opens a channel to a member.
pub async fn dial(tls: Arc<ClientConfig>, address: &str) -> Result<Channel, tonic::transport::Error> {
    let target = address.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let (tls, target) = (TlsConnector::from(Arc::clone(&tls)), target.clone());
        async move {
            let stream = TcpStream::connect(&target).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(server_name(), stream).await?))
        }
    });
    // TLS is the connector's business: with an https address the channel would want to speak it once more.
    Endpoint::from_static("http://member.argosy.invalid")
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
}

/// A client with the link's frame limits.
pub fn client(channel: Channel) -> AgentLinkClient<Channel> {
    AgentLinkClient::new(channel)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX)
}

/// The whole story of an error: transport errors hide the cause behind "transport error".
pub fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = error.source();
    }
    text
}

/// What a member answered, in one line.
pub fn explain_status(status: &tonic::Status) -> String {
    let code = status.code();
    match std::error::Error::source(status) {
        Some(source) => format!("{code:?}: {}", explain(source)),
        None => format!("{code:?}: {}", status.message()),
    }
}

/// The one connection; a new one ends the old.
pub struct Connector {
    tls: SharedClientTls,
    events: mpsc::Sender<(u64, Event)>,
    generation: u64,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Connector {
    fn drop(&mut self) {
        self.close();
    }
}

impl Connector {
    /// Nothing open; events come with the generation they belong to.
    pub fn new(tls: SharedClientTls) -> (Self, mpsc::Receiver<(u64, Event)>) {
        let (events, receiver) = mpsc::channel(FRAMES_IN_MAX);
        (Self { tls, events, generation: 0, task: None }, receiver)
    }

    /// Whether an event is of the present connection.
    pub fn is_present(&self, generation: u64) -> bool {
        self.generation == generation
    }

    /// Ends the present connection; its events do not count any more.
    pub fn close(&mut self) {
        self.generation += 1;
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// Ends the present connection and opens another after the wait.
    pub fn open(&mut self, after: Duration, address: String) {
        self.close();
        let (tls, events, generation) = (Arc::clone(&self.tls), self.events.clone(), self.generation);
        self.task = Some(tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let why = match session(tls.load_full(), &address, generation, &events).await {
                Ok(()) => format!("member {address} closed the session"),
                Err(problem) => format!("member {address}: {problem}"),
            };
            let _ = events.send((generation, Event::Closed(why))).await;
        }));
    }
}

async fn session(
    tls: Arc<ClientConfig>,
    address: &str,
    generation: u64,
    events: &mpsc::Sender<(u64, Event)>,
) -> Result<(), String> {
    let channel = tokio::time::timeout(CONNECT_TIMEOUT, dial(tls, address))
        .await
        .map_err(|_| "no answer in time".to_owned())?
        .map_err(|error| explain(&error))?;
    let (sender, frames) = mpsc::channel(FRAMES_OUT_MAX);
    let mut client = client(channel);
    let opened = client.session(ReceiverStream::new(frames));
    let response = tokio::time::timeout(CONNECT_TIMEOUT, opened).await;
    let mut frames = response
        .map_err(|_| "no session in time".to_owned())?
        .map_err(|status| explain_status(&status))?
        .into_inner();
    let gone = |_| "the agent is ending".to_owned();
    events.send((generation, Event::Opened(sender))).await.map_err(gone)?;
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|status| explain_status(&status))?;
        events.send((generation, Event::Frame(frame))).await.map_err(gone)?;
    }
    Ok(())
}
