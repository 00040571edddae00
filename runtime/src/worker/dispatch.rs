//! The dispatch thread: moves messages between executors, the core, and the network.
//!
//! It owns the scheduler's core, the arena, the object table and every executor's rings; nothing
//! of it is locked, and it never waits for the network. One turn: read all rings, read the inbox,
//! do what the core wants done, publish what was written. While turns bring something it goes on
//! at once; then it spins for a short while; then it sleeps on its bell until an executor, the
//! network thread or the core's next timeout wakes it.

mod actions;
mod links;
mod messages;
mod notes;
mod readers;
mod room;
mod slack;
mod usage;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rdist_scheduler::id::{ExecutorId, JobId, TaskId, WorkerId};
use rdist_scheduler::local::{LocalConfig, LocalCore, LocalEvent};
use rdist_scheduler::message::ToHead;
use rdist_scheduler::spec::TaskSpec;
use rdist_scheduler::time::Timestamp;

use super::executor::Executor;
use super::inbox::Note;
use super::launch::{self, Processes};
use super::life::Ending;
use super::network::{Command, Network};
use super::query::Functions;
use super::spiller::Spiller;
use crate::config::WorkerConfig;
use crate::machine;
use crate::ring::{Bell, Rung, Spin};
use crate::store::{Arena, Table};
use crate::wire::cluster::JobInfo;
use crate::wire::executor::Block;
use links::Links;
use readers::Readers;
use room::Room;
use slack::Slack;
use usage::Reported;

/// Most frames read from one executor before the others have their turn.
const FRAMES_PER_TURN: usize = 256;
/// Frames between two looks at the clock: they take less than a tenth of a millisecond.
const FRAMES_PER_LOOK: usize = 8;

/// Everything that the dispatch thread owns.
pub(super) struct Dispatch {
    worker: WorkerId,
    config: WorkerConfig,
    /// What CUDA calls the worker's GPUs, by their number.
    gpus: Vec<String>,
    core: LocalCore,
    arena: Arena,
    table: Table,
    executors: BTreeMap<ExecutorId, Executor>,
    jobs: HashMap<JobId, Arc<JobInfo>>,
    /// Function names that executors told, for people.
    functions: Functions,
    launches: Launches,
    links: Links,
    readers: Readers,
    room: Room,
    reported: Reported,
    slack: Slack,
    network: Network,
    notes: mpsc::Receiver<Note>,
    bell: Arc<Bell>,
    processes: Processes,
    clock: Instant,
    /// When the clock was looked at last.
    present: Timestamp,
    head_epoch: Option<u64>,
    /// Messages of the core so far, to the head and to other workers.
    said: u64,
    /// Told once, when the head has let this worker in.
    registered: Option<mpsc::SyncSender<()>>,
    end: End,
}

/// What waits for executors, and what they wait for.
#[derive(Default)]
struct Launches {
    /// Those that wait for what the head knows of their job.
    waiting: Vec<launch::Launch>,
    /// What the head is told when a driver's last line was read.
    farewells: HashMap<ExecutorId, ToHead>,
    /// Detached actors that the head has not answered for: who asked, and for what.
    detaching: BTreeMap<TaskId, (ExecutorId, TaskSpec)>,
    /// Blocks to give back to the executors that wrote them.
    reclaim: HashMap<ExecutorId, Vec<Block>>,
}

/// ```text
/// Running --1--> Draining --2--> Ended
///   | +-----------------3----------^
///   +--4--> GivenUp
/// ```
/// 1 asked to leave; 2 nothing owned or running is left; 3 told to stop; 4 told that the head had
/// given it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Running,
    Draining,
    Ended,
    GivenUp,
}

impl End {
    /// The head has given it up, and may say so more than once. One that was to leave anyway does
    /// not come back.
    fn given_up(self) -> Self {
        match self {
            Self::Running | Self::GivenUp => Self::GivenUp,
            Self::Draining | Self::Ended => Self::Ended,
        }
    }
}

impl Dispatch {
    pub(super) fn new(
        worker: WorkerId,
        config: WorkerConfig,
        (network, processes): (Network, Processes),
        (notes, bell): (mpsc::Receiver<Note>, Arc<Bell>),
        spiller: Spiller,
        registered: mpsc::SyncSender<()>,
    ) -> Self {
        let room = Room::new(spiller, config.spill_limit.unwrap_or(u64::MAX));
        let known = LocalConfig::new(worker, config.resources.clone());
        let core = LocalCore::new(LocalConfig { labels: config.labels.clone(), ..known });
        let gpus = machine::gpu_names(config.resources.gpu);
        Self {
            worker,
            gpus,
            core,
            arena: Arena::new(config.store_bytes),
            table: Table::default(),
            executors: BTreeMap::new(),
            jobs: HashMap::new(),
            functions: HashMap::new(),
            launches: Launches::default(),
            links: Links::default(),
            readers: Readers::default(),
            room,
            reported: Reported::default(),
            slack: Slack::default(),
            network,
            notes,
            bell,
            processes,
            clock: Instant::now(),
            present: Timestamp::default(),
            head_epoch: None,
            said: 0,
            registered: Some(registered),
            end: End::Running,
            config,
        }
    }

    /// Runs until the worker ends; says how that came.
    pub(super) fn run(mut self) -> Ending {
        let mut spin = Spin::new();
        while matches!(self.end, End::Running | End::Draining) {
            let busy = self.turn();
            if busy {
                spin.progress();
            } else if !spin.again() {
                let rung = self.sleep();
                spin.progress();
                spin.woken(rung);
            }
        }
        for executor in self.executors.keys() {
            launch::kill(&self.processes, *executor);
        }
        self.network.command(Command::Stop);
        match self.end {
            End::GivenUp => Ending::GivenUp,
            _ => Ending::Ended,
        }
    }

    /// Reads everything once. Returns whether there was anything.
    fn turn(&mut self) -> bool {
        let mut busy = self.read_rings();
        while let Ok(note) = self.notes.try_recv() {
            self.present = self.now();
            self.note(note);
            busy = true;
        }
        busy |= self.expire();
        if self.arena.has_deferred() {
            for (writer, block) in self.arena.sweep() {
                self.launches.reclaim.entry(writer).or_default().push(block);
            }
            self.room.look_again();
        }
        self.act();
        self.make_room();
        // What came back from disk may have had consequences.
        self.act();
        self.report_usage();
        self.flush();
        // A farewell is not told yet: a head that hears "I leave" first would run the job again.
        let told = self.launches.farewells.is_empty();
        if self.end == End::Draining && self.core.is_idle() && told {
            self.leave();
        }
        self.give_slack_back(busy);
        busy
    }

    fn read_rings(&mut self) -> bool {
        let mut busy = false;
        let ids: smallvec::SmallVec<[ExecutorId; 16]> = self.executors.keys().copied().collect();
        for id in ids {
            for index in 0..FRAMES_PER_TURN {
                if index % FRAMES_PER_LOOK == 0 {
                    self.present = self.now();
                }
                if !self.read_frame(id) {
                    break;
                }
                busy = true;
            }
            if let Some(executor) = self.executors.get_mut(&id) {
                executor.receiver.release();
            }
        }
        busy
    }

    /// Feeds the core, with about the present time.
    fn tell(&mut self, event: LocalEvent) {
        self.core.handle(self.present, event);
    }

    fn now(&self) -> Timestamp {
        Timestamp(u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Lets the core's timeout pass. Returns whether it did.
    fn expire(&mut self) -> bool {
        let now = self.now();
        self.present = now;
        let due = self.core.poll_timeout().is_some_and(|due| due <= now);
        if due {
            self.core.handle_timeout(now);
        }
        due
    }

    /// Publishes what was written in this turn.
    fn flush(&mut self) {
        for (id, blocks) in self.launches.reclaim.drain() {
            if let Some(executor) = self.executors.get_mut(&id) {
                let message = crate::wire::executor::ToExecutor::Reclaim(blocks);
                executor.send(&message, &self.arena);
            }
        }
        for executor in self.executors.values_mut() {
            executor.flush();
            if executor.misbehaved.is_some() {
                launch::kill(&self.processes, executor.id);
            }
        }
    }

    /// Sleeps until somebody rings, or the next timeout.
    fn sleep(&mut self) -> Option<Rung> {
        let mut rung = None;
        let all_empty = self.announce_sleep();
        let congested = self.executors.values().any(Executor::is_congested);
        if all_empty {
            let core = self.core.poll_timeout().map(|due| due - self.now());
            let retry = congested.then_some(Duration::from_millis(1));
            let own = [self.room.timeout(), self.reported.timeout(), self.slack_timeout()];
            let timeout = [core, retry].into_iter().chain(own).flatten().min();
            match self.bell.wait(timeout) {
                Ok(ended_by) => rung = ended_by,
                Err(error) => tracing::error!(%error, "the dispatch thread cannot sleep"),
            }
        }
        for executor in self.executors.values_mut() {
            executor.receiver.awake();
        }
        rung
    }

    /// Tells all executors that they must ring. Returns whether there is nothing to read: else
    /// there is no time to sleep.
    fn announce_sleep(&mut self) -> bool {
        let mut empty = true;
        for executor in self.executors.values_mut() {
            empty &= executor.misbehaved.is_some() || executor.receiver.announce_sleep();
        }
        empty
    }
}

#[cfg(test)]
mod tests {
    use super::End;

    #[test]
    fn who_hears_twice_that_it_was_given_up_comes_back_all_the_same() {
        for (before, after) in
            [(End::Running, End::GivenUp), (End::Draining, End::Ended), (End::Ended, End::Ended)]
        {
            assert_eq!(before.given_up(), after);
            assert_eq!(before.given_up().given_up(), after);
        }
    }
}
