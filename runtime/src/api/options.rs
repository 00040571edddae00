//! Options of tasks and actors, as builders.

use std::time::Duration;

use rdist_scheduler::id::WorkerId;
use rdist_scheduler::resource::{Amount, Resources};
use rdist_scheduler::spec::{
    ActorOptions, Backoff, LabelRule, LabelSelector, Policy, Strategy, StreamPolicy,
};

use super::fault::ErrorPredicate;

use super::group::PlacementGroup;

/// How often a task is run again when its process or its worker was lost under it. Errors and
/// panics of its own code are results, and repeated only where its submitter says so.
pub(crate) const DEFAULT_RETRIES: u32 = 3;

/// What a task asks for, beside its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskOptions {
    pub(crate) request: Resources,
    pub(crate) max_retries: u32,
    pub(crate) strategy: Strategy,
    pub(crate) priority: i32,
    pub(crate) policy: Option<Box<Policy>>,
    pub(crate) actor: ActorOptions,
    /// How often a call of the actor is made again, where that is not left to its type.
    pub(crate) call_retries: Option<u32>,
    /// The actor that has the name already is as good.
    pub(crate) get_if_exists: bool,
    /// The actor outlives its job.
    pub(crate) detached: bool,
}

impl TaskOptions {
    /// One CPU.
    pub fn of_task() -> Self {
        let request = Resources::cpus(1.0);
        Self { request, max_retries: DEFAULT_RETRIES, ..Self::of_actor() }
    }

    /// Nothing: an idle actor costs no CPU.
    pub fn of_actor() -> Self {
        Self {
            request: Resources::NONE,
            max_retries: DEFAULT_RETRIES,
            strategy: Strategy::Default,
            priority: 0,
            policy: None,
            actor: ActorOptions::default(),
            call_retries: None,
            get_if_exists: false,
            detached: false,
        }
    }

    /// Those of an actor whose type says how many calls may be in flight, and whether its state is
    /// saved.
    pub fn of_class(max_concurrency: u32, checkpoint: bool) -> Self {
        let actor = ActorOptions { max_concurrency, checkpoint, ..ActorOptions::default() };
        Self { actor, ..Self::of_actor() }
    }

    /// A call runs on what its actor holds.
    pub(crate) fn of_call(max_retries: u32) -> Self {
        Self { max_retries, ..Self::of_actor() }
    }

    /// CPUs.
    pub fn cpus(&mut self, n: f64) {
        self.request.cpu = Amount::from_f64(n);
    }

    /// GPUs; a fraction is a share of one.
    pub fn gpus(&mut self, n: f64) {
        self.request.gpu = Amount::from_f64(n);
    }

    /// Bytes.
    pub fn memory(&mut self, bytes: u64) {
        self.request.memory = Amount::whole(bytes);
    }

    /// A custom resource.
    pub fn resource(&mut self, name: &str, amount: f64) {
        self.request.set(name, Amount::from_f64(amount));
    }

    /// Retries.
    pub fn retries(&mut self, n: u32) {
        self.max_retries = n;
    }

    /// Where to run.
    pub fn strategy(&mut self, placement: Placement) {
        self.strategy = placement.0;
    }

    /// Into a bundle of a placement group.
    pub fn bundle(&mut self, group: &PlacementGroup, bundle: Option<u32>) {
        self.strategy(group.placement(bundle));
    }

    /// Order among ready tasks.
    pub fn priority(&mut self, priority: i32) {
        self.priority = priority;
    }

    fn policy(&mut self) -> &mut Policy {
        self.policy.get_or_insert_default()
    }

    /// Time limit of a try.
    pub fn timeout(&mut self, limit: Duration) {
        self.policy().timeout = Some(limit);
    }

    /// Retries of tries that ran over the limit.
    pub fn retry_timeouts(&mut self, n: u32) {
        self.policy().timeout_retries = n;
    }

    /// Retries of errors that a predicate accepts.
    pub fn retry_errors<P: ErrorPredicate>(&mut self, n: u32, _: P) {
        let policy = self.policy();
        (policy.error_retries, policy.error_predicate) = (n, P::ID);
    }

    /// Retries after a process ran out of memory.
    pub fn oom_retries(&mut self, n: u32) {
        self.policy().memory_retries = n;
    }

    /// Items that a stream holds.
    pub fn buffer(&mut self, n: u32) {
        self.policy().stream = Some(StreamPolicy::new(n.max(1)));
    }

    /// Pauses before retries.
    pub fn backoff(&mut self, first: Duration, most: Duration) {
        self.policy().backoff = Backoff { first, most };
    }

    /// A process of its own.
    pub fn own_process(&mut self) {
        self.actor.own_process = true;
    }

    /// Restarts.
    pub fn max_restarts(&mut self, n: u32) {
        self.actor.max_restarts = n;
    }

    /// A cluster-wide name.
    pub fn name(&mut self, name: &str) {
        self.actor.name = Some(name.to_owned());
    }

    /// Whether an actor that has the name is as good.
    pub fn get_if_exists(&mut self) {
        self.get_if_exists = true;
    }

    /// Outlives its job.
    pub fn detached(&mut self) {
        self.detached = true;
    }

    /// Calls in flight.
    pub fn max_concurrency(&mut self, n: u32) {
        self.actor.max_concurrency = n.max(1);
    }

    /// Retries of calls.
    pub fn max_task_retries(&mut self, n: u32) {
        self.call_retries = Some(n);
    }
}

/// Where a task or an actor should run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement(Strategy);

impl Placement {
    /// Here if it can be, else where its arguments are, else where it fills a worker up.
    pub const DEFAULT: Self = Self(Strategy::Default);
    /// On the worker with the most room.
    pub const SPREAD: Self = Self(Strategy::Spread);

    pub(crate) fn of(strategy: Strategy) -> Self {
        Self(strategy)
    }

    /// On a worker for which all of these rules hold; see [`label`](crate::label). With none, on
    /// any worker.
    pub fn labels(rules: impl IntoIterator<Item = LabelRule>) -> Self {
        let hard = rules.into_iter().collect();
        Self(Strategy::Labels(Box::new(LabelSelector { hard, soft: Vec::new() })))
    }

    /// As it is, and of the workers with room the one for which the most of these rules hold. Only
    /// for what [`labels`](Self::labels) made; all else stays as it is.
    #[must_use]
    pub fn preferring(mut self, rules: impl IntoIterator<Item = LabelRule>) -> Self {
        if let Strategy::Labels(selector) = &mut self.0 {
            selector.soft.extend(rules);
        }
        self
    }

    /// On that worker, or not at all.
    pub fn on(worker: WorkerId) -> Self {
        Self(Strategy::Affinity { worker, soft: false })
    }

    /// On that worker if it is there and large enough.
    pub fn near(worker: WorkerId) -> Self {
        Self(Strategy::Affinity { worker, soft: true })
    }
}

/// The builder methods that tasks and actors share; the macros expand it inside the `impl` of the
/// builder that `with()` returns, whose field is `options`.
#[doc(hidden)]
#[macro_export]
macro_rules! __option_methods {
    () => {
        /// Holds so many CPUs while it runs.
        #[must_use]
        pub fn cpus(mut self, n: f64) -> Self {
            self.options.cpus(n);
            self
        }

        /// Holds so many GPUs while it runs, in a process of its own that sees those alone
        /// (`CUDA_VISIBLE_DEVICES`). A fraction is a share of one GPU.
        #[must_use]
        pub fn gpus(mut self, n: f64) -> Self {
            self.options.gpus(n);
            self
        }

        /// Holds so many bytes of memory while it runs.
        #[must_use]
        pub fn memory(mut self, bytes: u64) -> Self {
            self.options.memory(bytes);
            self
        }

        /// Holds so much of a custom resource while it runs.
        #[must_use]
        pub fn resource(mut self, name: &str, amount: f64) -> Self {
            self.options.resource(name, amount);
            self
        }

        /// Is run again so often when its process or its worker is lost under it.
        #[must_use]
        pub fn retries(mut self, n: u32) -> Self {
            self.options.retries(n);
            self
        }

        /// Where it should run.
        #[must_use]
        pub fn strategy(mut self, placement: $crate::Placement) -> Self {
            self.options.strategy(placement);
            self
        }

        /// Runs in that bundle of a placement group, counted from 0, on what it holds. An index
        /// that the group does not have is an error of the task.
        #[must_use]
        pub fn placement_group(mut self, group: &$crate::PlacementGroup, bundle: u32) -> Self {
            self.options.bundle(group, Some(bundle));
            self
        }

        /// Runs in any bundle of a placement group that holds enough.
        #[must_use]
        pub fn any_bundle(mut self, group: &$crate::PlacementGroup) -> Self {
            self.options.bundle(group, None);
            self
        }

        /// Among ready tasks of a worker, and among those that wait in the head, the larger number
        /// runs first; equal ones in the order of submission. It is strict: as long as more
        /// urgent work comes fast enough, less urgent work waits, however long.
        #[must_use]
        pub fn priority(mut self, priority: i32) -> Self {
            self.options.priority(priority);
            self
        }
    };
}

/// The builder methods of tasks alone.
#[doc(hidden)]
#[macro_export]
macro_rules! __task_option_methods {
    () => {
        /// How long one try may run, from its start; waiting for arguments and for resources does
        /// not count. A try that takes longer is asked to end as if it were cancelled, with what
        /// it has submitted; after five more seconds its process is killed. The error is
        /// `Cause::TimedOut` and names the limit.
        #[must_use]
        pub fn timeout(mut self, limit: ::core::time::Duration) -> Self {
            self.options.timeout(limit);
            self
        }

        /// Is run again so often when a try ran over its `timeout`.
        #[must_use]
        pub fn retry_timeouts(mut self, n: u32) -> Self {
            self.options.retry_timeouts(n);
            self
        }

        /// Is run again so often when a try ended in an error or a panic that `predicate`
        /// accepts: a function with `#[rdist::predicate]`, or `AnyError`. Without it, errors
        /// and panics are results. Errors that came from another task are never repeated here.
        #[must_use]
        pub fn retry_errors<P: $crate::ErrorPredicate>(mut self, n: u32, predicate: P) -> Self {
            self.options.retry_errors(n, predicate);
            self
        }

        /// Is run again so often when its process was killed for want of memory; 10 by default.
        /// The first pause is a second at least.
        #[must_use]
        pub fn oom_retries(mut self, n: u32) -> Self {
            self.options.oom_retries(n);
            self
        }

        /// Pauses before a try that follows an error, a timeout or a want of memory: `first`,
        /// then twice as long each time, up to `most`; each shortened by up to a half, by chance.
        /// 100 ms and 30 s by default.
        #[must_use]
        pub fn backoff(
            mut self,
            first: ::core::time::Duration,
            most: ::core::time::Duration,
        ) -> Self {
            self.options.backoff(first, most);
            self
        }
    };
}

/// The builder methods of tasks that yield alone.
#[doc(hidden)]
#[macro_export]
macro_rules! __stream_option_methods {
    () => {
        /// At most so many values may be there that the consumer has not taken; then the task
        /// waits until half of them are, and its CPUs are free for others. 64 by default.
        #[must_use]
        pub fn buffer(mut self, n: u32) -> Self {
            self.options.buffer(n);
            self
        }
    };
}

/// The builder methods of actors alone.
#[doc(hidden)]
#[macro_export]
macro_rules! __actor_option_methods {
    () => {
        /// Runs in a process of its own: for large state, for libraries with global state, for
        /// code that may crash.
        #[must_use]
        pub fn own_process(mut self) -> Self {
            self.options.own_process();
            self
        }

        /// Is made again so often after its process or its worker is lost; with fresh state, or
        /// with what it [saved](::rdist::Checkpoint). `u32::MAX`: always.
        #[must_use]
        pub fn max_restarts(mut self, n: u32) -> Self {
            self.options.max_restarts(n);
            self
        }

        /// Calls through this handle and its copies that are lost with the actor's process are
        /// made again so often, once the actor is there again. They may run twice, unless the
        /// actor [saves](::rdist::Checkpoint) its state.
        #[must_use]
        pub fn max_task_retries(mut self, n: u32) -> Self {
            self.options.max_task_retries(n);
            self
        }

        /// A name that [`rdist::named_actor`](::rdist::named_actor) finds.
        #[must_use]
        pub fn name(mut self, name: &str) -> Self {
            self.options.name(name);
            self
        }

        /// With a [`name`](Self::name): the actor outlives the job that makes it. It is a job of
        /// its own, with the same program, environment and files: other jobs find it by its name,
        /// it is made again after losses as often as [`max_restarts`](Self::max_restarts) says
        /// (with its worker, also what it saved is lost), and it ends when it is
        /// [killed](::rdist::ActorHandle::kill) or [terminated](::rdist::ActorHandle::terminate),
        /// when `rdist stop` stops that job, or with the head. Its arguments are values, not
        /// objects. `spawn` waits until it has its name.
        #[must_use]
        pub fn detached(mut self) -> Self {
            self.options.detached();
            self
        }

        /// With a [`name`](Self::name): if an actor has it already, that one is given instead of
        /// an error. It is known when the actor has been awaited.
        #[must_use]
        pub fn get_if_exists(mut self) -> Self {
            self.options.get_if_exists();
            self
        }
    };
}

/// The builder methods of actors whose calls may run beside each other.
#[doc(hidden)]
#[macro_export]
macro_rules! __concurrency_option_methods {
    () => {
        /// Calls of methods without a group that may be in flight; instead of what the type says.
        #[must_use]
        pub fn max_concurrency(mut self, n: u32) -> Self {
            self.options.max_concurrency(n);
            self
        }
    };
}
