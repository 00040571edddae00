//! Actors with names: programs claim names, and find actors by them.

use rdist_scheduler::id::{ActorId, ExecutorId, JobId, WorkerId};
use rdist_scheduler::local::LocalEvent;
use rdist_scheduler::outcome::{Cause, TaskError};
use rdist_scheduler::resource::Resources;
use rdist_scheduler::spec::{ActorOptions, Reference, TaskKind, TaskSpec};

use super::submit::{self, Arguments, Asks};
use super::{At, Handle};
use crate::cluster::Simulation;
use crate::network::mix;
use crate::workload::Name;

/// What a run knows by a name.
#[derive(Debug)]
pub(super) struct Named {
    name: String,
    handle: Handle,
    /// It has made it, and not ended it.
    is_own: bool,
    /// It was to end itself, which nobody knows to have happened.
    may_be_there: bool,
}

/// A run waits until its actor has its name.
#[derive(Debug)]
pub(super) struct Claim {
    /// Else it takes the one that has the name.
    or_get: bool,
    pub(super) error: Option<TaskError>,
}

impl Simulation {
    fn name_of(&self, at: At, name: Name) -> String {
        name.of(self.workers[&at.worker].processes[&at.executor].job)
    }

    /// Makes an actor with a name that others may have, and waits for it.
    pub(super) fn claim(&mut self, at: At, name: Name, or_get: bool) {
        let text = self.name_of(at, name);
        let Some(run) = self.running(at) else { return };
        let id = run.root().child(run.children);
        run.children += 1;
        let (actor, owner) = (ActorId(id), at.worker);
        let handle = Handle { actor, owner, is_grouped: false };
        run.named.push(Named { name: text.clone(), handle, is_own: false, may_be_there: false });
        run.claim = Some(Claim { or_get, error: None });
        run.wants.push_back(Reference { object: id.object(0), owner });
        run.inner = false;
        self.names.claimed(text.clone(), actor, owner);
        let kind = TaskKind::ActorCreate(Box::new(ActorOptions {
            max_restarts: 1_000,
            own_process: mix(9, id.job().0.into()).is_multiple_of(2),
            checkpoint: submit::saves_state(actor),
            max_concurrency: self.limits_of(actor)[0] as u32,
            name: Some(text),
        }));
        let body = mix(1, id.job().0.into()).to_le_bytes().to_vec();
        let made = self.spec(id, at, kind, body);
        self.submit_spec(at, TaskSpec { request: Resources::NONE, ..made });
    }

    /// Those that the run knows by name and somebody wants to end, whoever that is.
    fn named_that_end(&mut self, at: At) -> Vec<ActorId> {
        let named = self.running(at).map(|run| &run.named);
        let actors: Vec<ActorId> =
            named.into_iter().flatten().map(|named| named.handle.actor).collect();
        actors.into_iter().filter(|actor| self.killed.contains(actor)).collect()
    }

    /// The actor is there, or will never be.
    pub(super) fn claim_ends(&mut self, at: At) {
        let gone = self.named_that_end(at);
        let Some(run) = self.running(at) else { return };
        let Some(claim) = run.claim.take() else { return };
        let Some((last, before)) = run.named.split_last_mut() else { return };
        let is_own = |named: &&Named| {
            named.name == last.name && named.is_own && !gone.contains(&named.handle.actor)
        };
        let own = before.iter().rfind(is_own);
        let own = own.map(|named| named.handle.actor);
        let may_be_there = |by| {
            let is_it = |named: &Named| named.name == last.name && named.handle.actor == by;
            before.iter().any(|named| is_it(named) && named.may_be_there)
        };
        let is_of_job = last.name.contains('/');
        match claim.error.map(|error| error.cause) {
            None => {
                assert!(own.is_none(), "{} belongs to {own:?}, and {last:?}", last.name);
                last.is_own = true;
            }
            Some(Cause::NameTaken { by, .. }) => {
                let is_known = own.is_some() || may_be_there(by);
                assert!(!is_of_job || is_known, "{by} has a name that is {last:?}'s alone");
                assert!(own.is_none_or(|own| own == by), "{own:?} had the name that {by} has");
                if claim.or_get {
                    let name = last.name.clone();
                    self.ask_for(at, name);
                }
            }
            Some(_) => {}
        }
    }

    /// Looks up who has a name that the run has claimed before.
    pub(super) fn look_up(&mut self, at: At, name: Name) {
        let name = self.name_of(at, name);
        let Some(run) = self.running(at) else { return };
        let before = run.named.iter().rfind(|named| named.name == name);
        let handle = before.expect("it was claimed before").handle;
        run.named.push(Named { name: name.clone(), handle, is_own: false, may_be_there: false });
        self.ask_for(at, name);
    }

    fn ask_for(&mut self, at: At, name: String) {
        if let Some(run) = self.running(at) {
            run.blocked = true;
        }
        let event = LocalEvent::ActorLookup { by: at.executor, request: at.run, name };
        self.say(at.worker, at.executor, event, Vec::new());
    }

    /// The answer: what was last claimed, or looked up, is this one, if there is any.
    pub(super) fn found(
        &mut self,
        (worker, executor): (WorkerId, ExecutorId),
        run: u64,
        found: Option<(ActorId, WorkerId)>,
    ) {
        let at = At { worker, executor, run };
        let gone = self.named_that_end(at);
        let Some(run) = self.running(at) else { return };
        run.blocked = false;
        let Some((last, before)) = run.named.split_last_mut() else { return };
        let is_own = |named: &&Named| {
            named.name == last.name && named.is_own && !gone.contains(&named.handle.actor)
        };
        let own = before.iter().rfind(is_own);
        if let Some(own) = own {
            let expected = Some((own.handle.actor, own.handle.owner));
            assert_eq!(found, expected, "{} is another's", own.name);
        }
        if let Some((actor, owner)) = found {
            last.handle = Handle { actor, owner, is_grouped: false };
        }
        self.step_soon(at, 0);
    }

    /// Calls the n-th of those that the run knows by name.
    pub(super) fn call_named(&mut self, at: At, n: usize) -> bool {
        let Some(run) = self.running(at) else { return false };
        let handle = run.named[n].handle;
        let call = run.root().child(run.children);
        let of = handle.actor.0.job();
        if of != call.job() {
            self.foreign.insert(call, of);
        }
        self.call_by(at, handle, Arguments::default(), Asks::Answer)
    }

    /// Calls what a detached actor never answers.
    pub(super) fn watch(&mut self, at: At, n: usize) -> bool {
        let Some(run) = self.running(at) else { return false };
        let handle = run.named[n].handle;
        self.call_by(at, handle, Arguments::default(), Asks::Nothing)
    }

    /// The n-th of those that the run knows by name ends itself, after what it was called for here.
    pub(super) fn terminate(&mut self, at: At, n: usize) -> bool {
        let Some(run) = self.running(at) else { return false };
        let (call, handle) = (run.root().child(run.children), run.named[n].handle);
        let actor = handle.actor;
        let of = actor.0.job();
        if of != call.job() {
            self.foreign.insert(call, of);
        }
        if !self.call_by(at, handle, Arguments::default(), Asks::End) {
            return false;
        }
        if let Some(run) = self.running(at) {
            for named in run.named.iter_mut().filter(|named| named.handle.actor == actor) {
                named.is_own = false;
                named.may_be_there = true;
            }
        }
        // If nobody else wants its end, what was called here before has an answer.
        let is_first = self.killed.insert(actor);
        match self.numbers.get(&call) {
            Some(number) if is_first && !submit::is_unordered(actor) => {
                self.terminated.insert(actor, *number);
            }
            _ => drop(self.terminated.remove(&actor)),
        }
        true
    }

    /// Looks up a detached actor. Calls of one that is not there fail.
    pub(super) fn find(&mut self, at: At, n: u64) {
        let jobs = self.options.jobs.len() as u64;
        let detached = (1..=jobs).filter(|job| self.options.jobs[*job as usize - 1].detached);
        let detached: Vec<u64> = detached.collect();
        let of = detached.get((n % detached.len().max(1) as u64) as usize).copied();
        let name = Name::OfJob(0).of(JobId(of.unwrap_or(jobs + 1) as u32));
        let Some(run) = self.running(at) else { return };
        let actor = ActorId(run.root().child(u64::MAX - run.children));
        let handle = Handle { actor, owner: at.worker, is_grouped: false };
        run.named.push(Named { name: name.clone(), handle, is_own: false, may_be_there: false });
        self.nobody.insert(actor);
        self.ask_for(at, name);
    }

    pub(super) fn kill_found(&mut self, at: At, n: usize) {
        let Some(run) = self.running(at) else { return };
        let Handle { actor, owner, .. } = run.named[n].handle;
        if !self.nobody.contains(&actor) {
            self.wants_end(actor);
            let event = LocalEvent::ActorKillRequested { actor, owner };
            self.say(at.worker, at.executor, event, Vec::new());
        }
    }

    /// Ends the n-th of those that the run knows by name, if it has made it.
    pub(super) fn kill_named(&mut self, at: At, n: usize) {
        let Some(run) = self.running(at) else { return };
        if std::mem::take(&mut run.named[n].is_own) {
            let Handle { actor, owner, .. } = run.named[n].handle;
            self.wants_end(actor);
            let event = LocalEvent::ActorKillRequested { actor, owner };
            self.say(at.worker, at.executor, event, Vec::new());
        }
    }
}
