//! Room in the arena: who waits for it, and how it is made.
//!
//! ```text
//! Block --1--> Block, being written --2--> Spilled --3--> Spilled, being read --4--> Block
//!   ^                    |                                        |
//!   +---------5----------+                                        +--6--> (a lost copy)
//! ```
//! 1. the arena is nearly full, or somebody waits for room, and nobody reads the value: the least
//!    recently used go first; 2. it is on disk, and its block is free; 3. somebody wants it;
//!    4. it was read and its checksum fits: the file stays as long as the object, so that the value
//!    need not be written again; 5. somebody reads it by now, or the disk is full; 6. the file is
//!    damaged: the core is told, which finds another copy or makes the value again.
//!
//! What executors read (pins) and what tasks that run here were given (holds) is not touched. When
//! that leaves too little, executors are asked to give up values that they were told and do not
//! read now, and segments in which nothing lies. Who waits is served in order of arrival; after
//! [`PATIENCE`] without any room having been made, those who want to write or to read are told why
//! they cannot. Once the arena was nearly full, executors leave a part of the arena alone, in which
//! values come back: so they can, also when the disk is full.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use rdist_scheduler::hash::IdMap;
use rdist_scheduler::id::{ExecutorId, ObjectId, WorkerId};

use super::Dispatch;
use crate::store::{ArenaFull, Incoming, SpillError, Stored};
use crate::wire::executor::{Block, ToExecutor};
use crate::worker::network::Command;
use crate::worker::spiller::Spiller;

/// Above this share of the capacity values go to disk, until the second share is reached.
const HIGH_PERCENT: u64 = 80;
const LOW_PERCENT: u64 = 65;
/// Share of the capacity that is kept for what comes back.
const RESERVE_PERCENT: u64 = 12;
/// Most bytes that wait for the disk.
const MAX_WRITING_BYTES: u64 = 256 << 20;
/// How often executors are asked to give something up while somebody waits.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// Most values of which an executor is asked at a time.
const MAX_ASKED: usize = 10_000;
/// How long a disk that was full is left alone.
const DISK_PAUSE: Duration = Duration::from_secs(1);
/// How long a request for a segment waits without any room having been made.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same, where the disk is full.
const DISK_FULL_PATIENCE: Duration = Duration::from_secs(2);

/// See the module's text.
pub(super) struct Room {
    /// Executors that wait for a segment, and for how many bytes.
    grants: VecDeque<(ExecutorId, u64)>,
    /// Copies to be fetched.
    pulls: VecDeque<(ObjectId, u64, WorkerId)>,
    /// Values to be read back.
    restores: VecDeque<ObjectId>,
    /// Executors that were asked, and have not answered.
    asked: HashMap<ExecutorId, Instant>,
    ask_at: Instant,
    /// Something was freed since those who wait were served last.
    freed: bool,
    /// When something was freed last, or the first one began to wait.
    progress: Instant,
    disk: Disk,
}

/// What is on disk, and what is on its way there.
struct Disk {
    spiller: Spiller,
    limit: u64,
    /// Whole values, also of objects that are in memory again.
    files: IdMap<ObjectId, u64>,
    bytes: u64,
    writing: IdMap<ObjectId, Block>,
    writing_bytes: u64,
    /// Writes that have ended.
    written: Vec<(ObjectId, Result<(), SpillError>)>,
    /// The last failure; until then nothing is written.
    failure: Option<(Instant, String)>,
}

/// What is on disk, for people.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpilledBytes {
    pub files: u64,
    pub bytes: u64,
}

impl Room {
    pub(super) fn new(spiller: Spiller, limit: u64) -> Self {
        let now = Instant::now();
        let disk = Disk {
            spiller,
            limit,
            files: IdMap::default(),
            bytes: 0,
            writing: IdMap::default(),
            writing_bytes: 0,
            written: Vec::new(),
            failure: None,
        };
        Self {
            grants: VecDeque::new(),
            pulls: VecDeque::new(),
            restores: VecDeque::new(),
            asked: HashMap::new(),
            ask_at: now,
            freed: false,
            progress: now,
            disk,
        }
    }

    fn somebody_waits(&self) -> bool {
        !(self.grants.is_empty() && self.pulls.is_empty() && self.restores.is_empty())
    }

    /// When the dispatch thread has to look again, if nothing happens before.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.somebody_waits().then(|| self.ask_at.saturating_duration_since(Instant::now()))
    }

    /// An executor is gone.
    pub(super) fn executor_died(&mut self, executor: ExecutorId) {
        self.asked.remove(&executor);
        self.grants.retain(|(by, _)| *by != executor);
        self.made();
    }

    /// Some room was made.
    pub(super) fn made(&mut self) {
        self.freed = true;
        self.progress = Instant::now();
    }

    /// Something may have been freed.
    pub(super) fn look_again(&mut self) {
        self.freed = true;
    }

    fn waits(&mut self) {
        if !self.somebody_waits() {
            self.progress = Instant::now();
            self.ask_at = self.progress;
        }
        self.freed = true;
    }

    /// Forgets an object's file.
    pub(super) fn forget(&mut self, object: ObjectId) {
        let disk = &mut self.disk;
        if let Some(len) = disk.files.remove(&object) {
            disk.bytes -= len;
            disk.spiller.remove(object);
            // A disk that was full has room again.
            disk.failure = None;
        }
        // A write that is under way is found to be of no use when it ends.
        if let Some(block) = disk.writing.get_mut(&object) {
            block.segment = u32::MAX;
        }
        self.unwanted(object);
    }

    pub(super) fn spilled(&self) -> SpilledBytes {
        SpilledBytes { files: self.disk.files.len() as u64, bytes: self.disk.bytes }
    }

    pub(super) fn has_file(&self, object: ObjectId) -> bool {
        self.disk.files.contains_key(&object)
    }

    /// Nobody waits for a value to come back any longer.
    pub(super) fn unwanted(&mut self, object: ObjectId) {
        self.restores.retain(|other| *other != object);
    }

    /// A write has ended; what follows is done when the dispatch thread knows who reads the value.
    pub(super) fn written(&mut self, object: ObjectId, result: Result<(), SpillError>) {
        self.disk.written.push((object, result));
    }
}

impl Dispatch {
    /// An executor wants a segment; 0: no longer.
    pub(super) fn segment_wanted(&mut self, by: ExecutorId, len: u64) {
        if len == 0 {
            return self.room.grants.retain(|(waiting, _)| *waiting != by);
        }
        self.room.waits();
        self.room.grants.push_back((by, len));
        self.serve_grants();
    }

    /// The core wants a copy.
    pub(super) fn pull(&mut self, object: ObjectId, size: u64, from: WorkerId) {
        self.room.waits();
        self.room.pulls.push_back((object, size, from));
        self.serve_pulls();
    }

    /// A value on disk is wanted in memory; answered by `restored`.
    pub(super) fn restore(&mut self, object: ObjectId) {
        self.room.waits();
        self.room.restores.push_back(object);
        self.serve_restores();
    }

    /// Does what there is to do about room; called in each turn, when the core has drawn its
    /// consequences: what is not pinned or held then, nobody reads.
    pub(super) fn make_room(&mut self) {
        let mut pressed = self.settle_writes();
        let high = self.arena.capacity() / 100 * HIGH_PERCENT;
        pressed |= self.room.somebody_waits() || self.arena.live_bytes() > high;
        if !pressed {
            return;
        }
        loop {
            if std::mem::take(&mut self.room.freed) {
                self.serve_grants();
                self.serve_restores();
                self.serve_pulls();
            }
            self.spill();
            // What is on disk already is free at once.
            if !self.room.freed {
                break;
            }
        }
        if self.room.somebody_waits() {
            self.ask_executors();
            self.refuse_hopeless();
        } else if self.arena.live_bytes() > high && self.room.disk.writing.is_empty() {
            // So that whoever comes next finds something to spill.
            self.ask_executors();
        }
    }

    /// Frees the blocks of values that are on disk now. Returns whether there were any.
    fn settle_writes(&mut self) -> bool {
        let written = std::mem::take(&mut self.room.disk.written);
        let any = !written.is_empty();
        for (object, result) in written {
            let disk = &mut self.room.disk;
            let Some(block) = disk.writing.remove(&object) else { continue };
            disk.writing_bytes -= block.len;
            let is_current = self.table.get(object) == Some(&Stored::Block(block));
            match result {
                Ok(()) if is_current => {
                    disk.files.insert(object, block.len);
                    disk.bytes += block.len;
                    self.evict(object, block);
                }
                Ok(()) => disk.spiller.remove(object),
                Err(error) => {
                    if disk.failure.is_none() {
                        tracing::warn!(%object, %error, "values stay in memory");
                    }
                    disk.failure = Some((Instant::now() + DISK_PAUSE, error.to_string()));
                }
            }
        }
        any
    }

    /// Frees a block whose value is on disk too, unless somebody reads it.
    fn evict(&mut self, object: ObjectId, block: Block) {
        if let Some(old) = self.table.replace(object, Stored::Spilled { len: block.len }) {
            self.free_block(old);
        }
    }

    /// Lets the disk take what nobody reads, as much as is wanted.
    fn spill(&mut self) {
        let (capacity, live) = (self.arena.capacity(), self.arena.live_bytes());
        let waiting = self.waiting_bytes().min(capacity);
        let above = if live > capacity / 100 * HIGH_PERCENT {
            live - capacity / 100 * LOW_PERCENT
        } else {
            0
        };
        let disk = &self.room.disk;
        let mut wanted = waiting.max(above).saturating_sub(disk.writing_bytes);
        let may_write = disk.failure.as_ref().is_none_or(|(until, _)| *until <= Instant::now());
        let mut room = disk.limit.saturating_sub(disk.bytes + disk.writing_bytes);
        room = room.min(MAX_WRITING_BYTES.saturating_sub(disk.writing_bytes));
        let (mut clean, mut dirty) = (Vec::new(), Vec::new());
        for (object, block) in self.table.evictable() {
            if wanted == 0 {
                break;
            }
            if disk.files.contains_key(&object) {
                clean.push((object, block));
            } else if !disk.writing.contains_key(&object) && may_write && block.len <= room {
                room -= block.len;
                dirty.push((object, block));
            } else {
                continue;
            }
            wanted = wanted.saturating_sub(block.len);
        }
        for (object, block) in clean {
            self.evict(object, block);
        }
        for (object, block) in dirty {
            let Ok(view) = self.arena.read(block) else { continue };
            let disk = &mut self.room.disk;
            disk.writing.insert(object, block);
            disk.writing_bytes += block.len;
            disk.spiller.write(object, view);
        }
    }

    fn waiting_bytes(&self) -> u64 {
        let room = &self.room;
        let restores = room.restores.iter().filter_map(|object| self.table.get(*object));
        room.grants.iter().map(|(_, len)| *len).sum::<u64>()
            + room.pulls.iter().map(|(_, size, _)| *size).sum::<u64>()
            + restores.map(Stored::len).sum::<u64>()
    }

    fn serve_grants(&mut self) {
        let capacity = self.arena.capacity();
        if self.arena.live_bytes() > capacity / 100 * HIGH_PERCENT && self.room.disk.limit > 0 {
            self.arena.set_reserve(capacity / 100 * RESERVE_PERCENT);
        }
        while let Some(&(by, len)) = self.room.grants.front() {
            let granted = match self.arena.grant(by, len) {
                Ok(grant) => Ok(grant),
                Err(full) if full.is_retryable() && full.system.is_none() => return,
                Err(full) => Err(full.to_string()),
            };
            self.room.grants.pop_front();
            if let Some(executor) = self.executors.get_mut(&by) {
                executor.grant(granted);
            }
        }
    }

    fn serve_pulls(&mut self) {
        while let Some(&(object, size, from)) = self.room.pulls.front() {
            let Ok(block) = self.arena.create(size) else { return };
            self.room.pulls.pop_front();
            self.network.command(Command::Pull { object, from, block });
        }
    }

    fn serve_restores(&mut self) {
        while let Some(&object) = self.room.restores.front() {
            let len = match self.table.get(object) {
                Some(Stored::Spilled { len }) => *len,
                // It is gone, or back.
                _ => {
                    self.room.restores.pop_front();
                    continue;
                }
            };
            let Ok(block) = self.arena.create(len) else { return };
            self.room.restores.pop_front();
            self.table.hold(object);
            self.room.disk.spiller.restore(object, block);
        }
    }

    /// Asks executors for what they do not use.
    fn ask_executors(&mut self) {
        let now = Instant::now();
        if now < self.room.ask_at {
            return;
        }
        self.room.ask_at = now + ASK_AGAIN;
        let ids: Vec<ExecutorId> = self.executors.keys().copied().collect();
        for id in ids {
            if self.room.asked.contains_key(&id) {
                continue;
            }
            let objects = self.table.pinned_by(id).take(MAX_ASKED).collect();
            self.room.asked.insert(id, now);
            self.send(id, &ToExecutor::MemoryWanted { objects });
        }
    }

    /// An executor's answer.
    pub(super) fn memory_given(
        &mut self,
        by: ExecutorId,
        objects: Vec<ObjectId>,
        segments: Vec<u32>,
    ) -> Result<(), String> {
        if self.room.asked.remove(&by).is_none() {
            return Err("gave memory that nobody wanted".to_owned());
        }
        if !(objects.is_empty() && segments.is_empty()) {
            self.room.made();
        }
        for object in objects {
            self.unpin(object, by);
        }
        for segment in segments {
            self.arena.take_back(by, segment).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Refuses what nothing is left to make room for.
    fn refuse_hopeless(&mut self) {
        let room = &self.room;
        let patience = if room.disk.failure.is_some() { DISK_FULL_PATIENCE } else { PATIENCE };
        if room.progress.elapsed() < patience || !room.disk.writing.is_empty() {
            return;
        }
        let why = match &room.disk.failure {
            Some((_, failure)) => failure.clone(),
            None if room.disk.limit == 0 => "nothing may be spilled (--spill-limit 0)".to_owned(),
            None if room.disk.bytes >= room.disk.limit / 100 * 95 => {
                format!("--spill-limit ({} bytes) is reached", room.disk.limit)
            }
            None => "all of them are in use".to_owned(),
        };
        let usage = self.arena.usage();
        let refusal = |wanted| {
            let (live, granted) = (usage.live, usage.committed - usage.warm);
            let full = ArenaFull { wanted, live, granted, capacity: usage.capacity, system: None };
            format!("{full}; none can be spilled: {why}")
        };
        for (by, wanted) in std::mem::take(&mut self.room.grants) {
            if let Some(executor) = self.executors.get_mut(&by) {
                executor.grant(Err(refusal(wanted)));
            }
        }
        for object in self.room.restores.clone() {
            let wanted = self.table.get(object).map_or(0, Stored::len);
            self.refuse_readers(object, &refusal(wanted));
        }
        self.room.progress = Instant::now();
    }

    /// A value was read from disk into a block, or not.
    pub(super) fn restored(
        &mut self,
        object: ObjectId,
        block: Incoming,
        result: Result<(), SpillError>,
    ) {
        match result {
            Ok(()) => {
                let block = self.arena.seal(block);
                if self.table.replace(object, Stored::Block(block)).is_none() {
                    self.free_block(Stored::Block(block));
                }
                self.came_back(object);
            }
            Err(error) => {
                tracing::warn!(%object, %error, "a spilled value is lost");
                drop(block);
                self.lost_copy(object);
            }
        }
        if let Some(stored) = self.table.let_go(object) {
            self.give_back(object, stored);
        }
    }
}
