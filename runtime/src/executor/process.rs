//! The connection to the worker: one for the whole life of the process.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::task::Waker;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use rdist_scheduler::hash::BuildIdHasher;
use rdist_scheduler::id::{ActorId, ObjectId, TaskId, WorkerId};
use rdist_scheduler::outcome::TaskError;
use rdist_scheduler::spec::{Reference, TaskSpec};

use super::detached::Detaching;
use super::direct::Direct;
use super::inbound::Inbound;
use super::inherited::{self, ConnectError};
use super::mailbox::Mailbox;
use super::objects::{Entry, Held, Kept, Objects};
use super::outbox::Outbox;
use super::questions::{Answer, Questions};
use super::registry::{Body, Registry};
use super::running::Running;
use super::settled::Settled;
use super::slots::{Slots, Work};
use super::turns::Turns;
use super::wait::{Watch, Why};
use crate::api::error::Error;
use crate::api::value::{self, Archived, Value as UserValue};
use crate::ring::{Bell, RingPair};
use crate::store::{Draft, LocalSocket, Segments, SocketError, StoreError, Writer};
use crate::wire::executor::{Block, FromExecutor, SocketMessage, ToExecutor, Value};

/// Frames that may wait for room before threads with user code on their stack wait too.
const MAX_BEHIND: usize = 256;

/// Smaller values ride inside messages, however many they are.
const MIN_BLOCK_BYTES: usize = 64;

/// Values for which it is worth while to look for memory that was given back.
const LARGE_BYTES: usize = 64 << 10;

static PROCESS: OnceLock<Process> = OnceLock::new();

/// Everything that this process has of its worker.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) worker: WorkerId,
    pub(super) outbox: Arc<Outbox>,
    inbound: Mutex<Inbound>,
    pub(super) direct: Direct,
    pub(super) bell: Arc<Bell>,
    pub(super) socket: Arc<LocalSocket>,
    pub(super) watch: Watch,
    pub(crate) objects: Objects,
    pub(super) segments: Arc<Segments>,
    writer: Writer,
    pub(super) registry: Registry,
    pub(super) slots: Slots,
    pub(super) turns: Turns,
    /// Tasks that run here, for their cancellation.
    pub(super) running: DashMap<TaskId, Arc<Running>, BuildIdHasher>,
    pub(super) actors: DashMap<ActorId, Arc<Mailbox>, BuildIdHasher>,
    /// Saved states of actors that are made next.
    pub(super) restores: DashMap<ActorId, Vec<u8>, BuildIdHasher>,
    pub(super) questions: Questions,
    pub(super) detaching: Detaching,
}

impl Process {
    /// The connection, where this process is an executor.
    #[inline]
    pub(crate) fn current() -> Result<&'static Self, Error> {
        PROCESS.get().ok_or(Error::NotInTask)
    }

    /// Takes the inherited socket, as [`super::EXECUTOR_FD`] names it, and the worker's welcome.
    pub(crate) fn connect(descriptor: &str) -> Result<&'static Self, ConnectError> {
        let fd = inherited::socket(descriptor)?;
        let process = Self::welcome(fd)?;
        super::output::start_marks();
        if PROCESS.set(process).is_err() {
            return Err(ConnectError::Twice);
        }
        Ok(PROCESS.get().expect("set above"))
    }

    fn welcome(fd: OwnedFd) -> Result<Self, ConnectError> {
        // Before a spare process waits.
        let registry = Registry::collect()?;
        let (socket, (message, fds)) = inherited::first_message(fd)?;
        let SocketMessage::Welcome { worker, ring_bytes, .. } = message else {
            return Err(ConnectError::NotWelcome(format!("{message:?}")));
        };
        let Ok([rings, worker_bell, own_bell]) = <[OwnedFd; 3]>::try_from(fds) else {
            return Err(ConnectError::NotWelcome("a welcome without its descriptors".to_owned()));
        };
        let [worker_bell, bell] = [worker_bell, own_bell].map(|fd| Arc::new(Bell::from_fd(fd)));
        let watch = Watch::new(&bell, &socket)?;
        let (sender, receiver) = RingPair::attach(rings, ring_bytes)?.split(worker_bell);
        let outbox = Arc::new(Outbox::new(sender));
        let segments = Arc::new(Segments::new(socket.clone())?);
        let requests = outbox.clone();
        let writer = Writer::new(segments.clone(), move |len| {
            requests.send(&FromExecutor::SegmentWanted { len });
            Ok(())
        });
        outbox.send(&FromExecutor::Hello { functions: registry.names() });
        Ok(Self {
            worker,
            outbox,
            inbound: Mutex::new(Inbound::new(receiver)),
            direct: Direct::default(),
            bell,
            socket,
            watch,
            objects: Objects::default(),
            segments,
            writer,
            registry,
            slots: Slots::default(),
            turns: Turns::default(),
            running: DashMap::default(),
            actors: DashMap::default(),
            restores: DashMap::default(),
            questions: Questions::default(),
            detaching: Detaching::default(),
        })
    }

    /// Sends for user code: waits while the worker is far behind.
    pub(crate) fn send(&'static self, message: &FromExecutor) {
        self.outbox.send(message);
        self.wait_until_behind(MAX_BEHIND);
    }

    /// Waits until at most `most` frames wait for room in the ring.
    pub(super) fn wait_until_behind(&'static self, most: usize) {
        // Room in the ring rings the process's bell, which somebody in `poll` may answer instead
        // of this thread; so look again now and then.
        while self.outbox.behind() > most {
            let soon = Instant::now() + Duration::from_millis(1);
            self.wait(Why::Answer, Some(soon), || self.outbox.behind() <= most, || {});
        }
    }

    /// Handles all frames that have arrived; whether there was any, or anything left the backlog.
    pub(super) fn pump(&'static self) -> bool {
        let mut moved = self.outbox.behind() > 0 && self.outbox.flush();
        let mut inbound = match self.inbound.try_lock() {
            Ok(inbound) => inbound,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Somebody else is at it.
            Err(TryLockError::WouldBlock) => {
                std::hint::spin_loop();
                return moved;
            }
        };
        moved |= self.read_all(&mut inbound);
        drop(inbound);
        if moved {
            self.slots.call_threads(self);
        }
        moved
    }

    pub(super) fn lock_inbound(&self) -> MutexGuard<'_, Inbound> {
        self.inbound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs under the receiver's lock: takes note, and leaves all user code to other threads.
    pub(super) fn handle(&'static self, message: ToExecutor) {
        match message {
            ToExecutor::Run { spec, attempt, dependencies, after } => {
                super::run::accept(self, (spec, attempt), dependencies, after);
            }
            ToExecutor::Recall => self.recall(),
            ToExecutor::Ready { object, value } => {
                let settled = match value {
                    Value::Inline(bytes) => Settled::Inline(value::aligned(bytes)),
                    Value::Block(block) => Settled::block(self.read_block(block)),
                };
                self.objects.settle(object, settled, &self.outbox);
            }
            ToExecutor::Failed { object, error } => {
                self.objects.settle(object, Settled::failed(error), &self.outbox);
            }
            ToExecutor::Restore { actor, state } => {
                self.restores.insert(actor, state);
            }
            ToExecutor::Cancel(task) => self.cancelled(task),
            ToExecutor::Credit { task, consumed } => {
                if let Some(running) = self.running.get(&task) {
                    running.credit(consumed);
                }
            }
            ToExecutor::DropActor(actor) => {
                if let Some((_, mailbox)) = self.actors.remove(&actor) {
                    self.slots.push(Work::EndActor(mailbox));
                }
            }
            ToExecutor::ActorFound { request, actor } => {
                self.questions.answered(request, Answer::Actor(actor));
            }
            ToExecutor::Offers { request, offers } => {
                self.questions.answered(request, Answer::Offers(offers));
            }
            ToExecutor::Detached { task, answer } => self.detaching.answered(task, answer),
            ToExecutor::Reclaim(blocks) => self.writer.reclaim(blocks),
            ToExecutor::MemoryWanted { objects } => {
                let objects = self.objects.give_up(objects);
                let segments = self.writer.give_up_empty();
                self.outbox.send(&FromExecutor::MemoryGiven { objects, segments });
            }
            ToExecutor::Shutdown => super::leave(0),
            ToExecutor::Fence { .. }
            | ToExecutor::Route { .. }
            | ToExecutor::RouteEnded { .. }
            | ToExecutor::LinkEnded { .. }
            | ToExecutor::Lease { .. }
            | ToExecutor::EndLease { .. }
            | ToExecutor::Made(_) => unreachable!("those are about rings, and dealt with there"),
        }
    }

    fn cancelled(&self, task: TaskId) {
        let running = self.running.get(&task).map(|running| running.clone());
        if let Some(running) = running {
            running.cancel();
        }
    }

    /// What came over the socket; the end of the worker ends this process.
    pub(super) fn read_socket(&self) {
        if let Err(error) = self.segments.pump() {
            match error {
                StoreError::Worker(SocketError::Closed) => super::leave(super::ABANDONED_STATUS),
                error => super::abandon(&error.to_string()),
            }
        }
    }

    /// A block that the worker named. It names sealed blocks only, so one that cannot be read is
    /// the end of any sense in going on.
    pub(crate) fn read_block(&self, block: Block) -> crate::store::View {
        match self.segments.read(block) {
            Ok(view) => view,
            Err(StoreError::Worker(SocketError::Closed)) => super::leave(super::ABANDONED_STATUS),
            Err(error) => super::abandon(&error.to_string()),
        }
    }

    /// Memory for a value of `len` bytes.
    pub(crate) fn create(&'static self, len: usize) -> Result<DraftBytes, Error> {
        let bytes = len as u64;
        if len >= LARGE_BYTES {
            // The worker may have given memory back, which is warm, where a new segment is not;
            // perhaps no other thread has had the time to read that.
            self.pump();
        }
        match self.writer.create(bytes) {
            Ok(draft) => Ok(DraftBytes(draft)),
            Err(StoreError::Refused { reason, .. }) => Err(Error::StoreFull { bytes, reason }),
            Err(StoreError::Worker(SocketError::Closed)) => super::leave(super::ABANDONED_STATUS),
            Err(error) => Err(Error::StoreFull { bytes, reason: error.to_string() }),
        }
    }

    /// Archives a value, inline or in the arena.
    pub(crate) fn encode<T: UserValue>(&'static self, value: &T) -> Result<Encoded, Error> {
        let (archived, contains) = value::archive(value, |len| self.create(len))?;
        let value = match archived {
            Archived::Inline(bytes) => Value::Inline(bytes.into_vec()),
            Archived::Large(draft) => Value::Block(draft.0.seal()),
        };
        Ok(Encoded::of(value, contains))
    }

    /// The same value in the arena, unless it is there or tiny.
    pub(crate) fn move_to_arena(&'static self, encoded: Encoded) -> Result<Encoded, Error> {
        let Value::Inline(bytes) = &encoded.value else { return Ok(encoded) };
        if bytes.len() < MIN_BLOCK_BYTES {
            return Ok(encoded);
        }
        let mut draft = self.create(bytes.len())?;
        draft.as_mut().copy_from_slice(bytes);
        Ok(Encoded { value: Value::Block(draft.0.seal()), ..encoded })
    }

    /// Puts an archived value as `object`, to be kept in so many copies.
    pub(crate) fn put(&'static self, object: ObjectId, copies: u32, encoded: Encoded) -> Held {
        let reference = Reference { object, owner: self.worker };
        let entry = self.objects.made(reference);
        let settled = match &encoded.value {
            Value::Inline(bytes) => Settled::Inline(value::aligned(bytes.clone())),
            // It is read when somebody wants it, so that it can go to disk until then.
            Value::Block(_) => Settled::away(),
        };
        self.objects.settle(object, settled, &self.outbox);
        if encoded.contains.is_empty() {
            entry.has_no_references();
        }
        let contains = encoded.references(self);
        self.send(&FromExecutor::Put { object, value: encoded.value, copies, contains });
        entry
    }

    /// Sends a task; the reference is to its value.
    pub(crate) fn submit(&'static self, spec: TaskSpec) -> Held {
        let held = self.submit_now(spec);
        self.wait_until_behind(MAX_BEHIND);
        held
    }

    /// The same without waiting for a worker that is far behind.
    pub(super) fn submit_now(&self, spec: TaskSpec) -> Held {
        let held = self.objects.made(Reference { object: spec.id.object(0), owner: self.worker });
        self.outbox.send(&FromExecutor::Submit(spec));
        held
    }

    /// Sends a task that makes several values; the references are to them, in order.
    pub(crate) fn submit_several(&'static self, spec: TaskSpec) -> Vec<Held> {
        let owner = self.worker;
        let made = |index| self.objects.made(Reference { object: spec.id.object(index), owner });
        let held = (0..spec.returns).map(made).collect();
        self.send(&FromExecutor::Submit(spec));
        held
    }

    /// Sends a task that yields; the reference is to its stream.
    pub(crate) fn submit_stream(&'static self, spec: TaskSpec) -> Held {
        let held = self.objects.made(Reference { object: spec.id.stream(), owner: self.worker });
        self.send(&FromExecutor::Submit(spec));
        held
    }

    /// A reference to an item of a stream that this process holds, which is asked for.
    pub(crate) fn want_item(&self, reference: Reference) -> Held {
        // What asks for it counts the process as its holder.
        let held = self.objects.made(reference);
        self.want(&held);
        held
    }

    /// A reference to a value that will never be, of which the worker knows nothing.
    pub(crate) fn failed(&self, object: ObjectId, error: TaskError) -> Held {
        Objects::failed(Reference { object, owner: self.worker }, error)
    }

    /// Gets hold of a reference that came inside a value or an argument.
    pub(crate) fn retain(&self, reference: Reference) -> Held {
        self.objects.retained(reference, &self.outbox)
    }

    /// A reference, for a message that names it: the worker knows that this process has it.
    pub(crate) fn told(&self, held: &Held) -> Reference {
        self.pass_on(held);
        self.objects.told(held, &self.outbox)
    }

    /// Keeps a value in place for views of it.
    pub(crate) fn keep(&self, reference: Reference) -> Kept {
        Kept::new(self.retain(reference), &self.outbox, &self.objects)
    }

    /// Asks the worker for a value, unless that was done.
    pub(crate) fn want(&self, entry: &Arc<Entry>) {
        self.objects.want(entry, &self.outbox);
        self.want_reply_for(entry);
    }

    /// The same for many, no faster than the worker takes the questions.
    pub(crate) fn want_all<'a>(&'static self, held: impl Iterator<Item = &'a Held>) {
        for held in held {
            self.want(held);
            self.wait_until_behind(MAX_BEHIND);
        }
    }

    /// Asks for all of `open`, and wakes `waker` whenever one of them is settled, until
    /// [`unwatch`](Self::unwatch).
    pub(crate) fn watch<'a>(
        &'static self,
        waker: &Waker,
        open: impl Iterator<Item = &'a Held> + Clone,
    ) {
        self.want_all(open.clone());
        self.objects.watch(waker, open.map(|held| &**held));
    }

    /// Ends one [`watch`](Self::watch).
    pub(crate) fn unwatch(&self, waker: &Waker) {
        self.objects.unwatch(waker);
    }

    /// What the program has under that id.
    pub(crate) fn function(&self, id: u64) -> Option<Body> {
        self.registry.get(id).map(|function| function.body)
    }

    /// Waits on a thread that belongs to no task. False: the deadline passed.
    pub(crate) fn wait_for_answer(
        &'static self,
        deadline: Option<Instant>,
        is_over: impl FnMut() -> bool,
    ) -> bool {
        self.wait(Why::Answer, deadline, is_over, || {})
    }
}

/// A value in bytes, with the references inside.
#[derive(Debug)]
pub struct Encoded {
    pub(crate) value: Value,
    /// Held until the message that names them is sent.
    pub(crate) contains: Vec<Held>,
    /// The further values of a task that makes several.
    pub(crate) more: Vec<Self>,
}

impl Encoded {
    pub(crate) fn of(value: Value, contains: Vec<Held>) -> Self {
        Self { value, contains, more: Vec::new() }
    }

    /// What the worker is told about the references inside.
    pub(crate) fn references(&self, process: &Process) -> Vec<Reference> {
        self.contains.iter().map(|held| process.told(held)).collect()
    }

    pub(crate) fn len(&self) -> u64 {
        match &self.value {
            Value::Inline(bytes) => bytes.len() as u64,
            Value::Block(block) => block.len,
        }
    }
}

/// A block that is being written.
#[derive(Debug)]
pub(crate) struct DraftBytes(pub(crate) Draft);

impl AsMut<[u8]> for DraftBytes {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
