//! The process that gives short tasks to its job's pooled executor itself, by a *lease*
//! (`rdist_scheduler::local`, `lease`).
//!
//! A process that submits a task soon after the one before has ended (the next one, or the first of
//! the next burst) asks its worker for a lease. While it has one, plain tasks go through the ring
//! to the executor: one at a time, and of functions whose runs are known to be short, so many that
//! the last one waits for no longer than [`MOST_WORK`]. All others go by the worker, which runs
//! them beside these.
//!
//! The executor says when the lease is over, by giving back what it has not started; the worker is
//! told of such tasks as if they had never gone another way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rdist_scheduler::outcome::Death;
use rdist_scheduler::spec::{Strategy, TaskSpec};

use super::link::{Call, Link, Via};
use crate::executor::objects::{Entry, Held};
use crate::executor::outbox::{Draft, lock_soon};
use crate::executor::process::Process;
use crate::executor::wait::{Parker, Why};
use crate::wire::direct::DirectCall;
use crate::wire::executor::FromExecutor;

/// Functions whose runs are shorter than that are given ahead: the worker would take as long to
/// give one to another core.
const SHORT: Duration = Duration::from_micros(5);
/// What a task costs beside its run.
const OVERHEAD: Duration = Duration::from_micros(1);
/// Longest work that is given ahead.
const MOST_WORK: Duration = Duration::from_millis(4);
/// Where more than a few are open, one of so many runs is measured.
const RUNS_PER_LOOK: u64 = 16;
const FEW: u64 = 4;
/// Runs of a function that ended another way than with a small value, one after the other, before
/// all of them go by the worker.
const MAX_UNFIT: u32 = 4;
/// Tasks that come less often are none the worse for going by the worker.
const SOON: Duration = Duration::from_millis(100);
/// After a refusal so many chances pass until the next question, and twice as many after each.
const FIRST_PAUSE: u32 = 1;
const LAST_PAUSE: u32 = 1 << 10;

/// Whether this process has a lease, and what it knows of its functions.
#[derive(Debug, Default)]
pub(super) struct Lessee {
    state: Mutex<State>,
    /// There is a lease; for a look without the lock.
    is_there: AtomicBool,
    /// Leased tasks without an answer.
    open: AtomicU64,
    /// Leased tasks that have run.
    runs: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    lease: Option<(u64, Arc<Link>)>,
    /// The worker is asked; these threads wait for its answer.
    asked: Option<Vec<Arc<Parker>>>,
    /// The last task that went by the worker, and when.
    last: Option<(Arc<Entry>, Instant)>,
    /// Chances to ask that are left out, now and after the next refusal.
    pause: u32,
    next_pause: u32,
    paces: HashMap<u64, Pace>,
}

/// How runs of a function have been.
#[derive(Debug, Default, Clone, Copy)]
struct Pace {
    /// About the usual time; `None`: none has been measured.
    run: Option<Duration>,
    unfit: u32,
}

impl Pace {
    /// Learns of a run. Down fast, since the first runs are slow, and up slowly: one that was
    /// interrupted says nothing of the next.
    fn learn(&mut self, run: Duration) {
        let usual = self.run.unwrap_or(run);
        let learnt = if run < usual {
            (usual + run) / 2
        } else {
            usual + run.min(2 * usual) / 8 - usual / 8
        };
        self.run = Some(learnt);
    }
}

impl Lessee {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock_soon(&self.state)
    }

    /// A leased task has its end.
    pub(super) fn ended(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether this is a chance to ask for a lease.
    fn asks(&self, function: u64) -> bool {
        !self.is_there.load(Ordering::Relaxed) && self.lock().asks(function)
    }

    /// Where a task of that function goes now, if it does not go by the worker; it is counted.
    fn choose(&self, function: u64) -> Option<(u64, Arc<Link>)> {
        if !self.is_there.load(Ordering::Relaxed) {
            return None;
        }
        let state = self.lock();
        let open = self.open.load(Ordering::Relaxed);
        if !state.fits(function) || !state.has_room(function, open) {
            return None;
        }
        let lease = state.lease.clone()?;
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(lease)
    }

    /// The lease by which that call went is over.
    fn is_over(&self, state: &mut State, call: &Call) {
        let Via::Lease(number) = call.via else { return };
        if state.lease.take_if(|(lease, _)| *lease == number).is_some() {
            self.is_there.store(false, Ordering::Relaxed);
        }
    }
}

impl State {
    fn fits(&self, function: u64) -> bool {
        self.paces.get(&function).is_none_or(|pace| pace.unfit < MAX_UNFIT)
    }

    /// Whether one more task of a function may wait in the executor.
    fn has_room(&self, function: u64, open: u64) -> bool {
        let run = self.paces.get(&function).and_then(|pace| pace.run);
        let is_short = run.filter(|run| *run < SHORT);
        open == 0
            || is_short.is_some_and(|run| {
                (run + OVERHEAD).as_nanos() * u128::from(open) < MOST_WORK.as_nanos()
            })
    }

    /// Whether this is a chance to ask for a lease: the last task has just ended, and the worker
    /// is not asked.
    fn asks(&mut self, function: u64) -> bool {
        let has_ended =
            |(last, at): &(Arc<Entry>, Instant)| last.is_settled() && at.elapsed() < SOON;
        if !self.last.as_ref().is_some_and(has_ended)
            || self.lease.is_some()
            || self.asked.is_some()
            || !self.fits(function)
        {
            return false;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        true
    }
}

impl Process {
    /// Submits a task that makes one value, by the way that there is.
    pub(crate) fn submit_task(&'static self, mut spec: TaskSpec) -> Held {
        if !is_leasable(&spec) {
            return self.submit(spec);
        }
        let function = spec.function;
        if self.direct.lessee.asks(function) {
            self.ask_for_lease();
        }
        if let Some((lease, link)) = self.direct.lessee.choose(function) {
            match link.run(self, lease, spec) {
                Ok((held, number)) => {
                    self.keep_up(&link, number);
                    return held;
                }
                Err(back) => {
                    self.direct.lessee.ended();
                    spec = back;
                }
            }
        }
        let held = self.submit(spec);
        if !self.direct.lessee.is_there.load(Ordering::Relaxed) {
            self.direct.lessee.lock().last = Some((Arc::clone(&held), Instant::now()));
        }
        held
    }

    /// Asks the worker, and waits for what it says.
    #[cold]
    fn ask_for_lease(&'static self) {
        let mut state = self.direct.lessee.lock();
        match &mut state.asked {
            Some(waiting) => waiting.push(Parker::current()),
            None => {
                state.asked = Some(vec![Parker::current()]);
                self.outbox.send(&FromExecutor::LeaseWanted);
            }
        }
        drop(state);
        self.wait(Why::Answer, None, || self.direct.lessee.lock().asked.is_none(), || {});
    }

    /// The worker's answer: the host, the fence there, and the lease's number.
    pub(in crate::executor) fn lease_answered(&self, granted: Option<(Arc<Link>, u64, u64)>) {
        let mut state = self.direct.lessee.lock();
        let waiting = state.asked.take().unwrap_or_default();
        match granted {
            Some((link, fence, number)) => {
                link.outbox.transmit(Draft::new(&DirectCall::After(fence)));
                state.lease = Some((number, link));
                self.direct.lessee.is_there.store(true, Ordering::Relaxed);
                (state.pause, state.next_pause) = (0, FIRST_PAUSE);
            }
            None => {
                state.pause = state.next_pause.max(FIRST_PAUSE);
                state.next_pause = (2 * state.pause).min(LAST_PAUSE);
            }
        }
        drop(state);
        waiting.iter().for_each(|parker| parker.notify());
    }

    /// A leased task has run, for so long.
    pub(super) fn ran(&self, call: &Call, run: Duration) {
        let runs = self.direct.lessee.runs.fetch_add(1, Ordering::Relaxed);
        let has_few = self.direct.lessee.open.load(Ordering::Relaxed) <= FEW;
        if !has_few && !runs.is_multiple_of(RUNS_PER_LOOK) {
            return;
        }
        let mut state = self.direct.lessee.lock();
        let pace = state.paces.entry(call.spec.function).or_default();
        pace.unfit = 0;
        pace.learn(run);
    }

    /// A leased task has left its lease; the worker, which has it, counts this process as a holder
    /// of what it makes.
    pub(super) fn left_lease(&self, call: &Call) {
        let mut state = self.direct.lessee.lock();
        state.paces.entry(call.spec.function).or_default().unfit += 1;
        self.direct.lessee.is_over(&mut state, call);
    }

    /// The host has not started a task: it goes by the worker.
    pub(super) fn not_started(&self, call: Call) {
        {
            let mut state = self.direct.lessee.lock();
            self.direct.lessee.is_over(&mut state, &call);
            state.last = Some((call.entry.clone(), Instant::now()));
        }
        let Call { entry, spec, is_promised, .. } = call;
        if is_promised {
            self.outbox.send(&FromExecutor::Submit(spec));
            self.outbox.send(&FromExecutor::Wanted(entry.reference));
        } else {
            self.objects.adopt(&entry, || self.outbox.send(&FromExecutor::Submit(spec)));
            self.objects.adopted(&entry, &self.outbox);
        }
    }

    /// The host has ended, and its replies are read. Of the tasks that have none, it ran the first
    /// one, and had not started the others.
    pub(in crate::executor) fn host_ended(&self, link: &Arc<Link>, death: &Death) {
        let mut state = self.direct.lessee.lock();
        if state.lease.take_if(|(_, host)| Arc::ptr_eq(host, link)).is_some() {
            self.direct.lessee.is_there.store(false, Ordering::Relaxed);
        }
        drop(state);
        let open = link.take_all(&self.direct, |call| matches!(call.via, Via::Lease(_)));
        for (place, call) in open.into_iter().enumerate() {
            if place == 0 || call.is_promised {
                if let Some(failed) = self.lost(call, death) {
                    self.objects.wake(&failed);
                }
            } else {
                self.not_started(call);
            }
        }
    }
}

/// Whether a task needs nothing that only the worker can do.
fn is_leasable(spec: &TaskSpec) -> bool {
    spec.takes_turns()
        && spec.borrowed.is_empty()
        && spec.returns == 1
        && spec.max_retries > 0
        && spec.priority == 0
        && spec.strategy == Strategy::Default
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_run_does_not_make_a_function_slow() {
        let run_of = |pace: Pace| pace.run.unwrap();
        let mut pace = Pace::default();
        pace.learn(Duration::from_micros(80));
        assert_eq!(run_of(pace), Duration::from_micros(80));
        for _ in 0..8 {
            pace.learn(Duration::from_micros(1));
        }
        assert!(run_of(pace) < Duration::from_micros(2), "the first runs are slow: {pace:?}");
        pace.learn(Duration::from_millis(4));
        assert!(run_of(pace) < Duration::from_micros(2), "it was interrupted: {pace:?}");
        for _ in 0..100 {
            pace.learn(Duration::from_micros(50));
        }
        assert!(run_of(pace) > SHORT, "it has become slow: {pace:?}");
    }

    #[test]
    fn only_short_functions_are_given_ahead() {
        let mut state = State::default();
        assert!(state.has_room(1, 0), "the first task has the executor for itself");
        assert!(!state.has_room(1, 1), "nothing is known of the function");
        state.paces.insert(1, Pace { run: Some(Duration::from_micros(1)), unfit: 0 });
        state.paces.insert(2, Pace { run: Some(Duration::from_micros(50)), unfit: 0 });
        assert!(state.has_room(1, 1));
        assert!(!state.has_room(2, 1), "it would hold up the next one");
        assert!(state.has_room(1, 1_999));
        assert!(!state.has_room(1, 2_000), "four milliseconds of work wait there");
    }
}
