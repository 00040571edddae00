//! The life of a worker, from its admission to its end, and what follows.
//!
//! ```text
//! join by token ──► Life ──ended──► done
//!                    ▲ └──given up──► join by the certificate ──┐
//!                    └──────────────── another id ◄─────────────┘
//! ```
//! A worker that was silent for too long, because its network was cut or its process stood still,
//! is given up: the head lets others do its work again, and its id never comes back. Its process
//! does, as a new worker at the same port with nothing of the former one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdist_scheduler::id::WorkerId;

use super::{REGISTRATION_TIMEOUT, WorkerError, raise_descriptor_limit, system};
use super::{dispatch, inbox, network, spiller};
use crate::config::WorkerConfig;
use crate::ring::Bell;
use crate::store::Spill;
use crate::transport::Identity;

/// Between two tries to join again; doubled after each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A worker daemon inside this process.
#[derive(Debug)]
pub struct Worker;

impl Worker {
    /// Joins the cluster and starts both threads. Returns once the head has let the worker in.
    ///
    /// # Errors
    /// [`WorkerError`]; nothing of it runs then.
    pub fn start(config: WorkerConfig) -> Result<WorkerHandle, WorkerError> {
        raise_descriptor_limit();
        let life = Life::begin(&config, None)?;
        let control = Arc::new(Control {
            state: Mutex::new(State { inbox: life.inbox.clone(), stopped: false }),
            changed: Condvar::new(),
        });
        Ok(WorkerHandle { life, config, control })
    }
}

/// A worker that runs. Dropping it lets the worker run on.
#[derive(Debug)]
pub struct WorkerHandle {
    life: Life,
    config: WorkerConfig,
    control: Arc<Control>,
}

impl WorkerHandle {
    /// The worker's id.
    pub fn id(&self) -> WorkerId {
        self.life.id
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.life.address
    }

    /// What ends it from another thread, while this one waits.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.control.clone())
    }

    /// Ends it at once; its executors are killed.
    pub fn shutdown(&self) {
        self.control.stop();
    }

    /// Lets what runs end, takes nothing new, then leaves.
    pub fn drain(&self) {
        self.life.inbox.tell(inbox::Note::Stop { drain: true });
    }

    /// Waits for its end. Each time that the head had given it up it joins again, and `renamed` is
    /// told its new id.
    ///
    /// # Errors
    /// [`WorkerError`], where the head does not let it in again.
    pub fn wait(mut self, mut renamed: impl FnMut(WorkerId)) -> Result<(), WorkerError> {
        loop {
            let former = self.life.id;
            let Life { address, dispatch, network, .. } = self.life;
            // A panic in a thread was printed by the panic hook; the worker is over either way.
            let ending = dispatch.join().unwrap_or(Ending::Ended);
            let identity = network.join().ok().flatten();
            let (Ending::GivenUp, Some(identity)) = (ending, identity) else { return Ok(()) };
            tracing::warn!(worker = %former, "the head had given this worker up: it joins again");
            // Where others, and whoever forwards a port, expect it.
            self.config.listen = address;
            match again(&self.config, &identity, &self.control)? {
                Some(life) => self.life = life,
                None => return Ok(()),
            }
            tracing::info!(worker = %self.life.id, "joined again");
            renamed(self.life.id);
        }
    }
}

/// Tries until the head has let it in or has refused it; `None` when it is to end meanwhile.
fn again(
    config: &WorkerConfig,
    former: &Identity,
    control: &Control,
) -> Result<Option<Life>, WorkerError> {
    let mut pause = FIRST_PAUSE;
    while !control.is_stopped_within(pause) {
        match Life::begin(config, Some(former)) {
            Ok(life) => {
                control.lead_to(&life.inbox);
                return Ok(Some(life));
            }
            Err(error) if error.is_final() => return Err(error),
            Err(error) => tracing::warn!(%error, "this worker could not join again"),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(None)
}

/// Ends a worker from any thread.
#[derive(Debug, Clone)]
pub struct Stopper(Arc<Control>);

impl Stopper {
    /// Ends it at once; its executors are killed.
    pub fn stop(&self) {
        self.0.stop();
    }
}

/// What ends the present life, or the wait for the next one.
#[derive(Debug)]
struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    inbox: inbox::Inbox,
    stopped: bool,
}

impl Control {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        state.inbox.tell(inbox::Note::Stop { drain: false });
        self.changed.notify_all();
    }

    fn is_stopped_within(&self, pause: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.state(), pause, |state| !state.stopped);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopped
    }

    fn lead_to(&self, inbox: &inbox::Inbox) {
        let mut state = self.state();
        state.inbox = inbox.clone();
        if state.stopped {
            inbox.tell(inbox::Note::Stop { drain: false });
        }
    }
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It was told to, or has left.
    Ended,
    /// The head had given it up.
    GivenUp,
}

/// From an admission to its end.
#[derive(Debug)]
struct Life {
    id: WorkerId,
    address: SocketAddr,
    inbox: inbox::Inbox,
    dispatch: JoinHandle<Ending>,
    network: JoinHandle<Option<Identity>>,
}

impl Life {
    /// Joins, as what follows the worker with that certificate or else by token.
    fn begin(config: &WorkerConfig, follows: Option<&Identity>) -> Result<Self, WorkerError> {
        let bell = Bell::new().map_err(|source| system("making an event descriptor", source))?;
        let bell = Arc::new(bell);
        let (inbox, notes) = inbox::Inbox::new(bell.clone());
        let processes = Arc::new(Mutex::new(HashMap::new()));
        let (network, network_thread) =
            network::start(config, follows, inbox.clone(), processes.clone())?;
        let (id, address) = (network.worker(), network.address());
        let folder = config.spill_folder();
        let spill = Spill::open(&folder, &id.to_string()).map_err(WorkerError::Spill);
        let spiller = spill.and_then(|spill| {
            let started = spiller::Spiller::start(spill, inbox.clone());
            started.map_err(|source| system("starting the thread for the disk", source))
        });
        let spiller = match spiller {
            Ok(spiller) => spiller,
            Err(error) => {
                network.stop();
                return Err(error);
            }
        };
        let (registered, registration) = std::sync::mpsc::sync_channel(1);
        let config = config.clone();
        let dispatch = std::thread::Builder::new()
            .name("rdist-dispatch".to_owned())
            .spawn(move || {
                let notes = (notes, bell);
                let network = (network, processes);
                dispatch::Dispatch::new(id, config, network, notes, spiller, registered).run()
            })
            .map_err(|source| system("starting the dispatch thread", source))?;
        if registration.recv_timeout(REGISTRATION_TIMEOUT).is_err() {
            inbox.tell(inbox::Note::Stop { drain: false });
            return Err(WorkerError::NotRegistered);
        }
        Ok(Self { id, address, inbox, dispatch, network: network_thread })
    }
}
