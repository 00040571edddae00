//! What is in the programs of a job.

/// Which shapes of work a driver has.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    pub tasks: u64,
    /// Only independent tasks.
    pub plain: bool,
    /// There are always workers for two bundles that lie apart.
    pub strict_spread: bool,
    /// Actors hold CPUs. Not where drivers die: actors live as long as their job, and each try of
    /// its driver makes others.
    pub actors_hold: bool,
    /// Tasks fail, hang and yield.
    pub trouble: bool,
    /// Some that hang have to be killed, with what runs beside them.
    pub stubborn: bool,
    /// The most CPUs that the job may hold; 0: as many as there are. Never less than a lone worker
    /// may have, since a job may need that many at a time.
    pub quota: u64,
    /// Processes give short tasks to others of the job themselves.
    pub leases: bool,
    /// Processes call actors directly, and tasks call them too.
    pub routes: bool,
    /// Tasks are cancelled, and actors ended.
    pub cancels: bool,
    /// Tasks return several values, and ask for labels; processes run out of memory.
    pub several: bool,
    /// It makes one detached actor, and waits for its end.
    pub detached: bool,
    /// Actors have names that others want too, or are detached.
    pub names: bool,
    /// Also by force, with what runs beside them.
    pub forces: bool,
    /// Actors live on any worker, from where they move when it is to leave.
    pub scatters: bool,
    /// Actors run several calls at a time.
    pub crowds: bool,
    /// Streams are left, or cancelled, before they end.
    pub lets_go: bool,
    /// Calls of actors wait for their arguments, or while they run.
    pub waits: bool,
}

impl Mix {
    pub const NOTHING: Self = Self {
        tasks: 0,
        plain: false,
        strict_spread: false,
        actors_hold: false,
        trouble: false,
        stubborn: false,
        quota: 0,
        leases: false,
        routes: false,
        cancels: false,
        several: false,
        names: false,
        detached: false,
        forces: false,
        scatters: false,
        crowds: false,
        lets_go: false,
        waits: false,
    };
}
