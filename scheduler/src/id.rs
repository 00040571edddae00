//! Identifiers: small, ordered, `Copy`, derived where a re-run must find the same name again.
//!
//! ```text
//! TaskId    16 bytes   hi: job (32 bits) | family (32 bits)  lo: family + index (64 bits)
//! ObjectId  24 bytes   task (16 bytes) | index (4 bytes)     index: return 0.., put 2^31..,
//!                                                            the stream of returns 2^31 - 1
//! ActorId   16 bytes   the id of the task that creates the actor
//! GroupId   16 bytes   the id of the task that reserves the placement group
//! ```
//! A task's id is a hash of its parent's id, its *family*, plus its submit index there, so a parent
//! that runs again names the same children, and a repeated submit is a no-op; drivers alone start
//! afresh ([`TaskId::root`]). Ids that follow each other let tables keep together what is used
//! together ([`crate::hash::IdHasher`]). An object's id contains its task's id: looking up its
//! lineage needs no table.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::ops::RangeInclusive;
use core::str::FromStr;

use rkyv::{Archive, Deserialize, Serialize};

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default,
                 Archive, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let digits = text.strip_prefix($prefix).unwrap_or(text);
                digits.parse().map(Self).map_err(|_| ParseIdError { what: stringify!($name) })
            }
        }
    };
}

/// Text that is no identifier of the wanted kind.
#[derive(Debug, Clone, thiserror::Error)]
#[error("not a {what}")]
pub struct ParseIdError {
    what: &'static str,
}

number_id!(
    /// A submitted job; the head numbers jobs from 1 and never uses a number again.
    JobId, u32, "job-"
);
number_id!(
    /// A worker daemon's incarnation. 0 is the head itself, as the owner of drivers.
    WorkerId, u64, "worker-"
);
number_id!(
    /// An executor process; numbered by its worker from 1, never reused there.
    ExecutorId, u32, "executor-"
);

impl WorkerId {
    /// The head, which owns the drivers of jobs.
    pub const HEAD: Self = Self(0);
}

/// A task, or one call of an actor's method. See the module's text for the layout.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Archive, Serialize, Deserialize)]
pub struct TaskId {
    hi: u64,
    lo: u64,
}

impl TaskId {
    /// The driver of `job`: the root of all ids of the job.
    pub fn driver(job: JobId) -> Self {
        Self::mix(job, 0x6472_6976_6572, u64::from(job.0))
    }

    /// The `index`-th task that `self` submits, counted over tasks, actors and calls together.
    pub fn child(self, index: u64) -> Self {
        let family = Self::mix(self.job(), self.lo, self.hi);
        Self { hi: family.hi, lo: family.lo.wrapping_add(index) }
    }

    /// What the ids of the children and puts of the task derive from, in its `attempt`-th try: the
    /// task's own id, so that a task that runs again finds, or makes again, what it made before.
    ///
    /// A driver's further tries are new programs instead. One may start on another worker while
    /// children of the try before still run, and would have to share their names with another
    /// owner. Nothing outlives a driver that needs its lineage, so that no name has to come back.
    pub fn root(self, attempt: u32) -> Self {
        const TRIES: u64 = 1 << 40; // beyond all submit indices
        if attempt > 0 && self == Self::driver(self.job()) {
            self.child(TRIES | u64::from(attempt))
        } else {
            self
        }
    }

    /// A number from 0 to 1, below 1, that follows from the id.
    pub(crate) fn fraction(self) -> f64 {
        (splitmix(self.lo) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The job that the task belongs to.
    pub fn job(self) -> JobId {
        JobId((self.hi >> 32) as u32)
    }

    /// All ids that a task of `job` can have: the range of the job's part of an ordered map.
    pub fn all_of(job: JobId) -> RangeInclusive<Self> {
        let hi = u64::from(job.0) << 32;
        Self { hi, lo: 0 }..=Self { hi: hi | 0xffff_ffff, lo: u64::MAX }
    }

    /// The object that stands for the stream of a task that yields; it never has a value.
    pub fn stream(self) -> ObjectId {
        ObjectId { task: self, index: ObjectId::STREAM }
    }

    /// The `index`-th value that the task returns, or yields.
    pub fn object(self, index: u32) -> ObjectId {
        debug_assert!(index < ObjectId::PUT);
        ObjectId { task: self, index }
    }

    /// The `index`-th value that the task puts.
    pub fn put(self, index: u32) -> ObjectId {
        debug_assert!(index < ObjectId::REPLICATED);
        ObjectId { task: self, index: index | ObjectId::PUT }
    }

    /// The same of a value that is kept in several copies, which everybody has to know who refers
    /// to it.
    pub fn put_replicated(self, index: u32) -> ObjectId {
        debug_assert!(index < ObjectId::REPLICATED);
        ObjectId { task: self, index: index | ObjectId::PUT | ObjectId::REPLICATED }
    }

    fn mix(job: JobId, a: u64, b: u64) -> Self {
        let low = splitmix(a ^ splitmix(b));
        let high = splitmix(low ^ b.rotate_left(32));
        Self { hi: u64::from(job.0) << 32 | high >> 32, lo: low }
    }
}

impl Hash for TaskId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Families do not overlap but by a chance of nothing.
        state.write_u64(self.lo);
    }
}

impl Hash for ObjectId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // First values are neighbours as their tasks are, further ones of each other.
        let task = self.task.lo;
        state.write_u64(match self.index {
            0 => task,
            index => splitmix(task).wrapping_add(u64::from(index)),
        });
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that mixes all bits.
fn splitmix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task-{:016x}{:016x}", self.hi, self.lo)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task-{}:{:x}", self.hi >> 32, self.lo)
    }
}

impl FromStr for TaskId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let error = ParseIdError { what: "TaskId" };
        let prefixes = ["task-", "actor-", "group-"];
        let digits = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
        if digits.len() != 32 || !digits.is_ascii() {
            return Err(error);
        }
        match (u64::from_str_radix(&digits[..16], 16), u64::from_str_radix(&digits[16..], 16)) {
            (Ok(hi), Ok(lo)) => Ok(Self { hi, lo }),
            _ => Err(error),
        }
    }
}

/// A value in the object store: the `index`-th return or put of a task.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Archive, Serialize, Deserialize)]
pub struct ObjectId {
    /// The task that makes the value.
    pub task: TaskId,
    index: u32,
}

impl ObjectId {
    const PUT: u32 = 1 << 31;
    /// Of puts alone.
    const REPLICATED: u32 = 1 << 30;
    const STREAM: u32 = Self::PUT - 1;
    /// Most values that a task returns or yields.
    pub const MAX_RETURNS: u32 = Self::STREAM;

    /// Whether it stands for a stream.
    pub fn is_stream(self) -> bool {
        self.index == Self::STREAM
    }

    /// Whether the value was put, rather than returned.
    pub fn is_put(self) -> bool {
        self.index & Self::PUT != 0
    }

    /// Whether the value was put to be kept in several copies.
    pub fn is_replicated(self) -> bool {
        self.is_put() && self.index & Self::REPLICATED != 0
    }

    /// Workers with lower ranks are asked first to keep a copy, and whether they have one.
    pub(crate) fn rank_of(self, worker: WorkerId) -> u64 {
        splitmix(self.task.lo ^ splitmix(u64::from(self.index) << 32 ^ worker.0))
    }

    /// Which return, or which put, of its task the value is.
    pub fn index(self) -> u32 {
        match self.is_put() {
            true => self.index & !(Self::PUT | Self::REPLICATED),
            false => self.index,
        }
    }
}

/// Objects in a block.
pub(crate) const BLOCK_BITS: u32 = 64;

/// Objects that are neighbours: the first values of tasks that follow each other, or further values
/// of one task. Every object is in one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ObjectBlock(ObjectId);

impl ObjectId {
    /// The index in what stands for a block of first values.
    const FIRST: u32 = u32::MAX;

    /// Its block, and its place there.
    #[inline]
    pub(crate) fn block(self) -> (ObjectBlock, u32) {
        let Self { task, index } = self;
        if index == 0 {
            let tasks = TaskId { hi: task.hi, lo: task.lo / u64::from(BLOCK_BITS) };
            let bit = task.lo % u64::from(BLOCK_BITS);
            (ObjectBlock(Self { task: tasks, index: Self::FIRST }), bit as u32)
        } else {
            (ObjectBlock(Self { task, index: index / BLOCK_BITS }), index % BLOCK_BITS)
        }
    }
}

impl ObjectBlock {
    /// The object in that place.
    pub(crate) fn object(self, place: u32) -> ObjectId {
        let ObjectId { task, index } = self.0;
        if index == ObjectId::FIRST {
            let lo = task.lo * u64::from(BLOCK_BITS) + u64::from(place);
            ObjectId { task: TaskId { hi: task.hi, lo }, index: 0 }
        } else {
            ObjectId { task, index: index * BLOCK_BITS + place }
        }
    }

    /// The job that all of them are of.
    pub(crate) fn job(self) -> JobId {
        self.0.task.job()
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.is_put() {
            true if self.is_replicated() => "replicated",
            true => "put",
            false => "return",
        };
        if self.is_stream() {
            return write!(f, "{}/stream", self.task);
        }
        write!(f, "{}/{kind}/{}", self.task, self.index())
    }
}

impl FromStr for ObjectId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let error = || ParseIdError { what: "ObjectId" };
        let (rest, index) = text.rsplit_once('/').ok_or_else(error)?;
        let (task, kind) = rest.split_once('/').ok_or_else(error)?;
        let task: TaskId = task.parse().map_err(|_| error())?;
        let index = index.parse().ok().filter(|index| *index < Self::PUT).ok_or_else(error)?;
        match kind {
            "return" => Ok(task.object(index)),
            "put" if index < Self::REPLICATED => Ok(task.put(index)),
            "replicated" if index < Self::REPLICATED => Ok(task.put_replicated(index)),
            _ => Err(error()),
        }
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_put() { 'p' } else { 'r' };
        write!(f, "{:?}/{kind}{}", self.task, self.index())
    }
}

/// An actor: the id of the task that creates it.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Archive, Serialize, Deserialize,
)]
pub struct ActorId(pub TaskId);

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "actor-{:016x}{:016x}", self.0.hi, self.0.lo)
    }
}

impl fmt::Debug for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "actor-{}:{:x}", self.0.hi >> 32, self.0.lo)
    }
}

/// A placement group: the id of the task that reserves it.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Archive, Serialize, Deserialize,
)]
pub struct GroupId(pub TaskId);

impl GroupId {
    /// What the `index`-th bundle is called where tasks are.
    pub fn bundle(self, index: u32) -> TaskId {
        const BUNDLES: u64 = 1 << 41; // beyond all submit indices and tries
        self.0.child(BUNDLES | u64::from(index))
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group-{:016x}{:016x}", self.0.hi, self.0.lo)
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group-{}:{:x}", self.0.hi >> 32, self.0.lo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objects_name_is_read_back() {
        let task = TaskId::driver(JobId(7)).child(3);
        for object in [task.object(0), task.put(12)] {
            assert_eq!(object.to_string().parse::<ObjectId>().unwrap(), object);
        }
        let name = task.to_string();
        for wrong in ["", "x/return/0", &name, &format!("{name}/return"), &format!("{name}/put/-1")]
        {
            assert!(wrong.parse::<ObjectId>().is_err(), "{wrong}");
        }
        assert!(format!("{name}/return/{}", u32::MAX).parse::<ObjectId>().is_err());
        assert!(format!("{name}/borrow/0").parse::<ObjectId>().is_err());
    }

    #[test]
    fn only_a_driver_that_runs_again_names_other_children() {
        let driver = TaskId::driver(JobId(7));
        let task = driver.child(3);
        assert_eq!((driver.root(0), task.root(0), task.root(2)), (driver, task, task));
        let tries = [driver.root(1), driver.root(2)];
        assert!(tries[0] != tries[1] && !tries.contains(&driver));
        assert!(tries.iter().all(|root| root.job() == JobId(7) && root.root(1) == *root));
    }
}
