//! The driver's program: its argument is the socket, as Argo gives it.

use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let socket = std::env::args_os().nth(1).ok_or("usage: argosy-test-driver SOCKET")?;
    let mut told = signal(SignalKind::terminate())?;
    argosy_test_driver::serve(socket.as_ref(), async move {
        told.recv().await;
    })
    .await
}
