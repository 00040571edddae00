//! Actors in a process: which of their calls run, and which wait. An actor runs one call at a
//! time, or several, as the runtime's do (`executor::concurrent`): its calls are in groups, of
//! which each has a limit, and start there in the order in which they come.

use std::collections::VecDeque;
use std::sync::Arc;

use rdist_scheduler::checkpoint::EndedCall;
use rdist_scheduler::hash::FastMap;
use rdist_scheduler::id::{ActorId, ExecutorId, TaskId, WorkerId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::spec::TaskKind;

use super::At;
use super::run::word;
use super::submit::{Arguments, Asks, hash_of, is_unordered, saves_state};
use crate::cluster::Simulation;
use crate::network::mix;

/// An actor that lives in a process.
#[derive(Debug, Default)]
pub(super) struct Actor {
    pub(super) life: u64,
    pub(super) count: u64,
    groups: Vec<Group>,
    /// It has the actor end, when everything before it has ended.
    last: Option<u64>,
    /// What came after that.
    too_late: Vec<u64>,
    /// Calls that it never answers.
    pub(super) watches: Vec<u64>,
    /// It has ended itself, and does nothing more.
    pub(super) ended: bool,
    /// Of one that saves its state: calls whose ends are not told yet.
    pub(super) unsaved: Vec<EndedCall>,
}

#[derive(Debug)]
struct Group {
    limit: usize,
    waiting: VecDeque<u64>,
    /// In the order in which they came.
    running: Vec<u64>,
}

/// Calls that ran beside others.
#[derive(Debug, Default, Clone, Copy)]
pub struct Crowds {
    pub together: u64,
    /// They ended before one that had started earlier.
    pub overtook: u64,
}

impl Crowds {
    pub fn add(&mut self, more: &Self) {
        self.together += more.together;
        self.overtook += more.overtook;
    }
}

/// Calls that had to wait for something, but for their turn.
#[derive(Debug, Default)]
pub struct Waits {
    /// An argument was not there yet when they were made.
    pub late: u64,
    /// They were made behind such a one, and kept their place; or could pass it, and did.
    pub behind: u64,
    pub passed: u64,
    /// They waited while they ran.
    pub blocked: u64,
    /// The last late ones of those who made them that have not started.
    open: FastMap<(ActorId, WorkerId, ExecutorId), TaskId>,
}

impl Waits {
    pub fn add(&mut self, more: &Self) {
        self.late += more.late;
        self.behind += more.behind;
        self.passed += more.passed;
        self.blocked += more.blocked;
    }
}

impl Actor {
    /// With as many groups as limits.
    pub(super) fn new(limits: &[usize], life: u64, count: u64) -> Self {
        let group = |limit| Group { limit, waiting: VecDeque::new(), running: Vec::new() };
        let groups = limits.iter().copied().map(group).collect();
        Self { life, count, groups, ..Self::default() }
    }

    /// A call has come; whether it starts.
    fn comes(&mut self, run: u64, group: usize, asks_for_end: bool) -> bool {
        if self.ended || self.last.is_some() {
            self.too_late.push(run);
            return false;
        }
        if asks_for_end {
            self.last = Some(run);
            return self.is_idle();
        }
        let group = &mut self.groups[group];
        let starts = group.running.len() < group.limit;
        match starts {
            true => group.running.push(run),
            false => group.waiting.push_back(run),
        }
        starts
    }

    /// A call has ended; names the one that starts.
    pub(super) fn ends(&mut self, run: u64) -> Option<u64> {
        for group in &mut self.groups {
            let Some(place) = group.running.iter().position(|other| *other == run) else {
                continue;
            };
            group.running.remove(place);
            if let Some(next) = group.waiting.pop_front() {
                group.running.push(next);
                return Some(next);
            }
        }
        self.last.filter(|_| self.is_idle())
    }

    fn is_idle(&self) -> bool {
        self.groups.iter().all(|group| group.running.is_empty())
    }

    fn in_flight(&self) -> usize {
        self.groups.iter().map(|group| group.running.len()).sum()
    }

    /// Whether one of its group has started before it and goes on.
    fn overtakes(&self, run: u64) -> bool {
        let first = self.groups.iter().map(|group| group.running.first());
        first.flatten().all(|first| *first != run)
    }

    /// All calls that it has.
    pub(super) fn into_calls(self) -> impl Iterator<Item = u64> {
        let groups = self.groups.into_iter();
        let in_groups = groups.flat_map(|group| group.running.into_iter().chain(group.waiting));
        in_groups.chain(self.last).chain(self.too_late).chain(self.watches)
    }
}

impl Simulation {
    /// How many calls an actor runs at a time, of each of its groups; follows from its id, as for
    /// a type in a program.
    pub fn limits_of(&self, actor: ActorId) -> Vec<usize> {
        let draw = mix(10, hash_of(actor));
        if !self.mix_of(actor.0.job()).crowds || saves_state(actor) {
            return vec![1];
        }
        let many = 2 + (draw >> 8) as usize % 6;
        match draw % 4 {
            0 => vec![1],
            1 => vec![many, 1],
            _ => vec![many],
        }
    }

    /// Which group of an actor a call is of.
    fn group_of(&self, actor: ActorId, call: TaskId) -> usize {
        let groups = self.limits_of(actor).len() as u64;
        (mix(11, hash_of(ActorId(call))) % groups) as usize
    }

    /// A call has come to its actor.
    pub(super) fn call_comes(&mut self, at: At, id: ActorId) {
        let Some(run) = self.running(at) else { return };
        let (call, asks_for_end) = (run.spec.id, run.spec.body[8] == Asks::End as u8);
        let is_watch = run.spec.body[8] == Asks::Nothing as u8;
        let group = self.group_of(id, call);
        let damages = self.options.faults.damages;
        let Some(process) = self.process(at.worker, at.executor) else { return };
        let Some(actor) = process.actors.get_mut(&id) else {
            if damages {
                // It waited for an argument until the actor was gone.
                return self.cut_off(at);
            }
            panic!("{call:?} runs in {} of {}, where {id} does not live", at.executor, at.worker);
        };
        if is_watch {
            actor.watches.push(at.run);
        } else if actor.comes(at.run, group, asks_for_end) {
            self.call_starts(at);
        }
    }

    /// It is a call's turn.
    pub(super) fn call_starts(&mut self, at: At) {
        let Some(run) = self.running(at) else { return };
        let (spec, attempt) = (Arc::clone(&run.spec), run.attempt);
        let TaskKind::ActorCall { actor: id, .. } = spec.kind else { return };
        let group = self.group_of(id, spec.id);
        let Some(process) = self.process(at.worker, at.executor) else { return };
        let Some(actor) = process.actors.get(&id) else { return };
        let (life, in_flight) = (actor.life, actor.in_flight());
        // One that is tried again comes after what was called meanwhile.
        if !is_unordered(id) && attempt == 0 {
            let caller = (word(&spec, 18), word(&spec, 26));
            self.actors.started((id, group), life, caller, word(&spec, 10));
        }
        self.crowds.together += u64::from(in_flight > 1);
        let caller = (id, WorkerId(word(&spec, 18)), ExecutorId(word(&spec, 26) as u32));
        match self.waits.open.get(&caller) {
            Some(late) if *late == spec.id => drop(self.waits.open.remove(&caller)),
            Some(_) if is_unordered(id) => self.waits.passed += 1,
            _ => {}
        }
        self.step_soon(at, 0);
    }

    /// A call is made, whose arguments may still have to come.
    pub(super) fn note_wait(&mut self, at: At, actor: ActorId, call: TaskId, with: &Arguments) {
        let caller = (actor, at.worker, at.executor);
        let table = &self.workers[&at.worker].table;
        let is_late = with.dependencies.iter().any(|of| !table.contains_key(&of.object));
        self.waits.late += u64::from(is_late);
        if self.waits.open.contains_key(&caller) {
            self.waits.behind += u64::from(!is_unordered(actor));
        }
        if is_late {
            self.waits.open.insert(caller, call);
        }
    }

    /// A call that runs has to wait: what it waits for may wait for the ends of those before it.
    pub(super) fn call_waits(&mut self, at: At) {
        let Some(run) = self.running(at) else { return };
        let TaskKind::ActorCall { actor: id, .. } = run.spec.kind else { return };
        self.waits.blocked += 1;
        let Some(process) = self.process(at.worker, at.executor) else { return };
        let Some(actor) = process.actors.get_mut(&id) else { return };
        let (state, calls) = (actor.count.to_le_bytes(), std::mem::take(&mut actor.unsaved));
        if !calls.is_empty() {
            self.say_saved(at, id, state.to_vec(), calls);
        }
    }

    /// The worker hears that a run waits, or goes on. Of some actors' calls it is not told.
    pub(super) fn say_blocked(&mut self, at: At, waits: bool) {
        let Some(run) = self.running(at) else { return };
        let (executor, task, attempt) = (at.executor, run.spec.id, run.told_as());
        if let TaskKind::ActorCall { actor, .. } = run.spec.kind
            && mix(12, hash_of(actor)).is_multiple_of(3)
        {
            return;
        }
        let event = match waits {
            true => LocalEvent::Blocked { executor, task, attempt },
            false => LocalEvent::Unblocked { executor, task, attempt },
        };
        self.say(at.worker, executor, event, Vec::new());
    }

    /// Counts a call that ends beside others.
    pub(super) fn ends_beside_others(&mut self, at: At, id: ActorId) {
        let Some(process) = self.process(at.worker, at.executor) else { return };
        let Some(actor) = process.actors.get(&id) else { return };
        let overtakes = actor.overtakes(at.run);
        self.crowds.overtook += u64::from(overtakes);
    }
}
