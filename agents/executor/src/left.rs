//! A result that the agent does not take: left in an object of the attempt's own, whose signed request came with the permit.
//!
//! The request lives for a while only. While the command runs another one is asked for whenever half of that time is over, so
//! that one is at hand that lives on for at least that long when the agent goes away. Where it has run out, or the store can't be
//! reached either, nothing is lost: the executor goes on offering the outcome to the agent.

use crate::artifacts::{Answer, Operation};
use crate::files::{Session, hex};
use crate::protocol::{OutcomeRequest, RESULT_REFERENCE_VERSION, ResultObject, ResultReference, Task};
use ring::digest::{SHA256, digest};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

/// How long a permit without a place is taken for one that could not be signed in time.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// The shortest time between two questions for a place.
const ASK_EVERY_MIN: Duration = Duration::from_secs(1);
/// How long storing the object may take: meanwhile the agent is not asked.
const STORE_MAX: Duration = Duration::from_secs(30);

/// Where the result may be left.
pub struct Place {
    session: Arc<Session>,
    message_file: PathBuf,
    object: Arc<Mutex<Option<ResultObject>>>,
    /// Its end ends the renewals.
    _over: mpsc::SyncSender<()>,
}

impl Place {
    /// The place of a task whose end a kubelet tells; another one's is left in a file of its runtime's.
    pub fn new(task: &Task, session: Option<&Arc<Session>>, object: Option<ResultObject>) -> Option<Self> {
        let message_file = task.termination_message_file.as_ref().filter(|_| task.outcome_file.is_none())?;
        let session = Arc::clone(session?);
        let object = Arc::new(Mutex::new(object));
        let (over, is_over) = mpsc::sync_channel(0);
        let renewing = (Arc::clone(&session), Arc::clone(&object));
        thread::spawn(move || renew(&renewing.0, &renewing.1, &is_over));
        Some(Self { session, message_file: PathBuf::from(message_file), object, _over: over })
    }

    /// How long an outcome is offered to the agent first; nothing where there is no place.
    pub fn outage(&self) -> Option<Duration> {
        read(&self.object).map(|object| Duration::from_millis(object.outage_ms))
    }

    /// Leaves the outcome in the object, then says in the termination message where it is.
    ///
    /// # Errors
    /// What failed; the agent has to take it then, or it is tried again.
    pub fn leave(&self, request: &OutcomeRequest) -> Result<(), String> {
        let object = read(&self.object).ok_or("there is no place for it")?;
        let json = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        let stored = self.session.put_within(&object.request, &json, STORE_MAX);
        stored.map_err(|failure| failure.message)?;
        let reference = ResultReference {
            result_object: RESULT_REFERENCE_VERSION,
            key: object.key,
            sha256: hex(digest(&SHA256, &json).as_ref()),
            bytes: json.len() as u64,
        };
        write(&self.message_file, &reference)
    }
}

fn write(file: &Path, reference: &ResultReference) -> Result<(), String> {
    let json = serde_json::to_vec(reference).map_err(|error| error.to_string())?;
    std::fs::write(file, json).map_err(|error| format!("cannot write {}: {error}", file.display()))
}

fn read(object: &Mutex<Option<ResultObject>>) -> Option<ResultObject> {
    object.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn renew(session: &Session, object: &Mutex<Option<ResultObject>>, over: &mpsc::Receiver<()>) {
    loop {
        let wait = read(object).map_or(ASK_AGAIN_AFTER, |one| Duration::from_millis(one.renew_after_ms));
        match over.recv_timeout(wait.max(ASK_EVERY_MIN)) {
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        // An agent that can't be reached now is asked again; until then the request at hand is as good as it gets.
        if let Some(Answer::ResultObject { object: answer }) = session.ask_once(Operation::ResultObject) {
            let Some(renewed) = answer else { return };
            *object.lock().unwrap_or_else(PoisonError::into_inner) = Some(renewed);
        }
    }
}
