//! The simulated runtime in real time, for load tests.

use argosy_agent_runtime::{
    Error, ExecutorAnswer, LogOptions, LogStream, Runtime, RuntimeAction, RuntimeEvent,
};
use argosy_model::display_fence;
use argosy_proto::common::{Fence, Resources};
use argosy_simulated::{Options, Simulated};
use async_trait::async_trait;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Actions and answers that wait; more are dropped, since they are repeated.
const ORDERS_MAX: usize = 65_536;

#[expect(clippy::large_enum_variant, reason = "moved once, in numbers that are bounded")]
enum Order {
    Action(RuntimeAction),
    Answer(ExecutorAnswer),
}

/// The cluster's handle.
pub struct SimulatedRuntime {
    orders: mpsc::Sender<Order>,
}

impl SimulatedRuntime {
    /// A cluster that begins empty.
    pub fn start(seed: u64, allocatable: Resources, events: mpsc::Sender<RuntimeEvent>) -> Self {
        let (orders, receiver) = mpsc::channel(ORDERS_MAX);
        let options =
            Options { seed, allocatable, start_ms: (0, 0), duration_ms: (0, 0), ..Options::default() };
        tokio::spawn(run(Simulated::new(options), receiver, events));
        Self { orders }
    }

    /// Takes the reconciler's answer to an executor.
    pub fn answer(&self, answer: ExecutorAnswer) {
        // What is dropped is asked again.
        let _ = self.orders.try_send(Order::Answer(answer));
    }
}

#[async_trait]
impl Runtime for SimulatedRuntime {
    fn act(&self, action: RuntimeAction) {
        let _ = self.orders.try_send(Order::Action(action));
    }

    async fn logs(&self, fence: Fence, _options: LogOptions) -> Result<LogStream, Error> {
        let reason = "simulated steps write nothing".to_owned();
        Err(Error::Logs { fence: display_fence(&fence), reason })
    }
}

async fn run(mut cluster: Simulated, mut orders: mpsc::Receiver<Order>, events: mpsc::Sender<RuntimeEvent>) {
    let begin = Instant::now();
    let now = || u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    cluster.agent_restarted(0);
    let mut batch = Vec::new();
    loop {
        for event in cluster.advance(now()) {
            if events.send(event).await.is_err() {
                return;
            }
        }
        // Only checkers read them.
        drop(cluster.take_executions());
        let wake = cluster
            .next_wake()
            .map_or(Duration::from_secs(3600), |at| Duration::from_millis(at.saturating_sub(now())));
        tokio::select! {
            count = orders.recv_many(&mut batch, 256) => if count == 0 { return },
            () = tokio::time::sleep(wake) => {}
        }
        for order in batch.drain(..) {
            match order {
                Order::Action(action) => cluster.act(now(), action),
                Order::Answer(answer) => cluster.answer(now(), &answer),
            }
        }
    }
}
