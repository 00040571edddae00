//! Why a task waits, in words for people.

use core::fmt;

use super::{Field, filter, pinned};
use crate::id::WorkerId;
use crate::resource::{Amount, Resources};
use crate::spec::Strategy;

/// Why no worker was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Nobody is there, or everybody is leaving.
    NoWorkers,
    /// No worker has that much of one resource, not even idle.
    TooLarge {
        /// The resource.
        resource: String,
        /// How much it needs.
        wanted: Amount,
        /// The most that a worker has.
        largest: Amount,
    },
    /// Each resource is there, but not all of them on one worker.
    NotTogether {
        /// What it needs.
        request: Resources,
    },
    /// Enough workers are large enough; all are in use.
    Busy {
        /// What it needs.
        request: Resources,
        /// Workers that could run it when idle.
        able: usize,
    },
    /// No worker has the labels that it wants.
    NoLabels {
        /// The rules, for people.
        rules: String,
    },
    /// It may only run on one worker, which is in use.
    PinnedBusy {
        /// The worker.
        worker: WorkerId,
        /// What it needs.
        request: Resources,
    },
    /// It may only run on one worker, which is too small.
    PinnedTooSmall {
        /// The worker.
        worker: WorkerId,
        /// The resource.
        resource: String,
        /// How much it needs.
        wanted: Amount,
        /// How much the worker has.
        held: Amount,
    },
    /// It may only run on one worker, which takes nothing new.
    PinnedDraining(WorkerId),
    /// It may only run on one worker, which is no member.
    PinnedGone(WorkerId),
    /// The job may not hold so much more.
    Quota {
        /// The resource.
        resource: String,
        /// How much it needs.
        wanted: Amount,
        /// The most that the job may hold.
        limit: Amount,
        /// What the job holds.
        used: Amount,
    },
    /// The head restarted, and another worker that is still to come back may have the task.
    Recovering,
}

impl Reason {
    /// Why [`super::choose`] finds nobody for such a task. Looks at every worker.
    pub fn find(field: &Field, request: &Resources, strategy: &Strategy) -> Self {
        if let Some(worker) = pinned(field, request, strategy) {
            return Self::find_pinned(field, request, worker);
        }
        let open = || field.spots().filter(|(_, spot)| !spot.closed);
        if open().next().is_none() {
            return Self::NoWorkers;
        }
        let open = || open().filter(|(_, spot)| filter::admits(spot, strategy));
        if let (None, Strategy::Labels(selector)) = (open().next(), strategy) {
            return Self::NoLabels { rules: selector.to_string() };
        }
        let able = open().filter(|(_, spot)| filter::able(spot, request)).count();
        if able > 0 {
            return Self::Busy { request: request.clone(), able };
        }
        let mut most = Resources::NONE;
        for (_, spot) in open() {
            most.cpu = most.cpu.max(spot.total.cpu);
            most.gpu = most.gpu.max(spot.total.gpu);
            most.memory = most.memory.max(spot.total.memory);
            for (name, amount) in spot.total.custom() {
                if amount > most.get(name) {
                    most.set(name, amount);
                }
            }
        }
        match most.shortage(request) {
            Some((resource, wanted, largest)) => {
                Self::TooLarge { resource: resource.to_owned(), wanted, largest }
            }
            None => Self::NotTogether { request: request.clone() },
        }
    }

    /// Whether only a new worker can help.
    pub fn is_hopeless(&self) -> bool {
        !matches!(
            self,
            Self::Busy { .. } | Self::PinnedBusy { .. } | Self::Quota { .. } | Self::Recovering
        )
    }

    fn find_pinned(field: &Field, request: &Resources, worker: WorkerId) -> Self {
        let Some(spot) = field.spot(worker) else { return Self::PinnedGone(worker) };
        if let Some((resource, wanted, held)) = spot.total.shortage(request) {
            return Self::PinnedTooSmall { worker, resource: resource.to_owned(), wanted, held };
        }
        if spot.closed {
            return Self::PinnedDraining(worker);
        }
        Self::PinnedBusy { worker, request: request.clone() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWorkers => f.write_str("no worker takes tasks; start one: rdist worker join"),
            Self::TooLarge { resource, wanted, largest } => {
                write!(f, "needs {}; ", Quantity(resource, *wanted))?;
                match largest.is_zero() {
                    true => f.write_str("no worker has any"),
                    false => write!(f, "largest worker has {}", Bare(resource, *largest)),
                }
            }
            Self::NoLabels { rules } => {
                write!(f, "needs a worker with {rules}; no worker is like that")
            }
            Self::NotTogether { request } => {
                write!(f, "needs {request} together; no single worker has all of it")
            }
            Self::Busy { request, able: 1 } => {
                write!(f, "waits for {request}; the only worker that is large enough is in use")
            }
            Self::Busy { request, able } => {
                write!(f, "waits for {request}; {able} workers are large enough, all in use")
            }
            Self::PinnedBusy { worker, request } => {
                write!(f, "waits for {request} on {worker}, which is in use")
            }
            Self::PinnedTooSmall { worker, resource, wanted, held } => write!(
                f,
                "needs {} on {worker}, which has {}",
                Quantity(resource, *wanted),
                Bare(resource, *held)
            ),
            Self::PinnedDraining(worker) => {
                write!(f, "may only run on {worker}, which takes nothing new")
            }
            Self::PinnedGone(worker) => write!(f, "may only run on {worker}, which is gone"),
            Self::Quota { resource, wanted, limit, .. } if wanted > limit => write!(
                f,
                "needs {}; the quota of its job is {}",
                Quantity(resource, *wanted),
                Bare(resource, *limit)
            ),
            Self::Quota { resource, wanted, limit, used } => write!(
                f,
                "waits for {} of its job's quota of {}, of which {} is in use",
                Quantity(resource, *wanted),
                Bare(resource, *limit),
                Bare(resource, *used)
            ),
            Self::Recovering => {
                f.write_str("the head has restarted and waits for its workers to come back")
            }
        }
    }
}

/// An amount with its resource: `2 GPU`, `512 MiB of memory`.
struct Quantity<'a>(&'a str, Amount);

impl fmt::Display for Quantity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "memory" => write!(f, "{} of memory", Bare(self.0, self.1)),
            name => write!(f, "{} {name}", self.1),
        }
    }
}

/// An amount whose resource was named before: `1`, `256 MiB`.
struct Bare<'a>(&'a str, Amount);

impl fmt::Display for Bare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "memory" => write!(f, "{:.0} MiB", self.1.as_f64() / f64::from(1 << 20)),
            _ => write!(f, "{}", self.1),
        }
    }
}
