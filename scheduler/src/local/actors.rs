//! Supervision of actors, and where they live as far as this worker knows.

use std::sync::Arc;

use super::{LocalCore, Step};
use crate::actor::{ActorEntry, ActorState, Supervised};
use crate::id::{ActorId, ExecutorId, JobId, WorkerId};
use crate::message::{ActorPlace, CancelMode, PeerMessage, ToHead};
use crate::outcome::{Cause, Death, TaskError};
use crate::spec::{ActorOptions, Reference, TaskSpec};
use crate::task::{TaskKey, TaskState};

impl LocalCore {
    /// An actor is to be made, at first or again.
    pub(super) fn begin_actor(
        &mut self,
        key: TaskKey,
        spec: &Arc<TaskSpec>,
        options: &ActorOptions,
    ) {
        let actor = ActorId(spec.id);
        let is_new = !self.actors.get(&actor).is_some_and(|entry| {
            entry.supervised.is_some() && !matches!(entry.place, ActorState::Dead(_))
        });
        let life = self.tasks[key].attempt;
        if is_new {
            for reference in held_for_life(spec, self.me) {
                self.hold(reference);
            }
            let me = self.me;
            let entry = self.actors.entry(actor).or_insert_with(|| ActorEntry::new(me));
            entry.owner = me;
            entry.place = ActorState::Pending;
            entry.floor = life;
            entry.supervised = Some(Box::new(Supervised {
                spec: Arc::clone(spec),
                max_restarts: options.max_restarts.saturating_add(life),
                name: options.name.clone(),
                life,
                moves: 0,
                subscribers: Vec::new(),
            }));
        } else if let Some(entry) = self.actors.get_mut(&actor)
            && let Some(supervised) = &mut entry.supervised
        {
            supervised.life = life;
        }
        if let (true, Some(name)) = (is_new, &options.name) {
            self.tasks.restamp(key);
            self.tasks[key].state = TaskState::Naming;
            self.send_head(ToHead::ActorNamed { name: name.clone(), actor, owner: self.me });
            return;
        }
        self.resolve_actor(key);
    }

    fn resolve_actor(&mut self, key: TaskKey) {
        if self.strands(key) {
            return;
        }
        let spec = Arc::clone(&self.tasks[key].spec);
        let here = !super::submit::is_grouped(&spec)
            && self.reason_to_spill(&spec).is_none()
            && self.ledger.fits(&spec.request);
        self.resolve(key, TaskState::Waiting { here });
    }

    pub(super) fn name_answered(&mut self, name: &str, actor: ActorId, taken_by: Option<ActorId>) {
        let Some(key) = self.tasks.find(actor.0, self.me) else { return };
        if !matches!(self.tasks[key].state, TaskState::Naming) {
            return;
        }
        match taken_by {
            Some(other) if other != actor => {
                if let Some(entry) = self.actors.get_mut(&actor)
                    && let Some(supervised) = &mut entry.supervised
                {
                    // It never had the name, and has none to give back.
                    supervised.name = None;
                }
                let cause = Cause::NameTaken { name: name.to_owned(), by: other };
                self.fail(key, TaskError { task: actor.0, cause });
            }
            _ => self.resolve_actor(key),
        }
    }

    /// The creation task of a supervised actor returned on `worker`.
    pub(super) fn actor_made(&mut self, actor: ActorId, life: u32, worker: WorkerId) {
        let Some(entry) = self.actors.get_mut(&actor) else { return };
        let Some(supervised) = &mut entry.supervised else { return };
        if matches!(entry.place, ActorState::Dead(_)) {
            return self.kill_at(actor, worker);
        }
        supervised.life = life;
        entry.floor = entry.floor.max(life);
        entry.place = ActorState::At { worker, life };
        if worker != self.me {
            self.peer(worker).actors.insert(actor);
        }
        self.tell_subscribers(actor);
        self.advance_lanes(actor);
    }

    /// A life of a supervised actor has ended: the next one begins, or it is dead.
    pub(super) fn actor_lost(&mut self, actor: ActorId, life: u32, death: Death) {
        let Some(entry) = self.actors.get_mut(&actor) else { return };
        let Some(supervised) = &mut entry.supervised else { return };
        if life != supervised.life || !matches!(entry.place, ActorState::At { .. }) {
            return;
        }
        entry.floor = life.saturating_add(1);
        supervised.moves += u32::from(death == Death::Moved);
        let moves = supervised.moves;
        let restarts = life.saturating_sub(moves);
        let may_restart =
            death == Death::Moved || (restarts < supervised.max_restarts && !death.is_wanted());
        if let ActorState::At { worker, .. } = entry.place {
            let cause = Cause::ActorDied(death.clone());
            self.history.trouble(actor.0, (life, worker, self.now), &cause, may_restart);
        }
        if !may_restart {
            let cause = Cause::ActorDied(death);
            return self.actor_ends(actor, Arc::new(TaskError { task: actor.0, cause }));
        }
        entry.place = ActorState::Pending;
        let spec = Arc::clone(&supervised.spec);
        self.tell_subscribers(actor);
        if self.tasks.find(actor.0, self.me).is_none() {
            let key = self.insert_task(spec, self.me, life.saturating_add(1), ExecutorId(0));
            if moves > 0 {
                self.tasks[key].extra().spared = moves;
            }
            self.begin(key);
        }
    }

    /// A supervised actor is gone for good.
    pub(super) fn actor_ends(&mut self, actor: ActorId, error: Arc<TaskError>) {
        let Some(entry) = self.actors.get_mut(&actor) else { return };
        if matches!(entry.place, ActorState::Dead(_)) {
            return;
        }
        entry.place = ActorState::Dead(error);
        self.forget_saved(actor, self.me);
        let Some(entry) = self.actors.get_mut(&actor) else { return };
        let (mut name, mut spec) = (None, None);
        if let Some(supervised) = &mut entry.supervised {
            name = supervised.name.take();
            spec = Some(Arc::clone(&supervised.spec));
        }
        if let Some(spec) = spec {
            let references = held_for_life(&spec, self.me);
            self.steps.extend(references.map(|reference| Step::LetGo(reference.object)));
        }
        if let Some(name) = name {
            self.send_head(ToHead::ActorUnnamed { name, actor });
        }
        self.tell_subscribers(actor);
        self.advance_lanes(actor);
    }

    /// The actors of a job end with it. Who calls one for another job may have asked where it is
    /// after it had heard of that end itself, and waits for news of it.
    pub(super) fn actors_end_with(&mut self, job: JobId) {
        let lives = |entry: &ActorEntry| !matches!(entry.place, ActorState::Dead(_));
        let of_job =
            self.actors.iter().filter(|(actor, entry)| actor.0.job() == job && lives(entry));
        let mut actors: Vec<ActorId> = of_job.map(|(actor, _)| *actor).collect();
        actors.sort_unstable();
        for actor in actors {
            let cause = Cause::ActorDied(Death::JobEnded { job });
            if let Some(entry) = self.actors.get_mut(&actor) {
                entry.place = ActorState::Dead(Arc::new(TaskError { task: actor.0, cause }));
            }
            self.tell_subscribers(actor);
        }
    }

    fn tell_subscribers(&mut self, actor: ActorId) {
        let Some(entry) = self.actors.get(&actor) else { return };
        let Some(supervised) = &entry.supervised else { return };
        let place = place_of(&entry.place);
        for to in supervised.subscribers.clone() {
            self.send(to, PeerMessage::ActorLocated { actor, place: place.clone() });
        }
    }

    pub(super) fn actor_locate(&mut self, from: WorkerId, actor: ActorId) {
        let place = match self.actors.get_mut(&actor) {
            Some(ActorEntry { place, supervised: Some(supervised), .. }) => {
                if !supervised.subscribers.contains(&from) {
                    supervised.subscribers.push(from);
                }
                place_of(place)
            }
            _ => ActorPlace::Dead(unknown_actor(actor)),
        };
        self.send(from, PeerMessage::ActorLocated { actor, place });
    }

    pub(super) fn actor_located(&mut self, from: WorkerId, actor: ActorId, place: ActorPlace) {
        let Some(entry) = self.actors.get_mut(&actor) else { return };
        if entry.owner != from || entry.supervised.is_some() {
            return;
        }
        match place {
            ActorPlace::Pending => entry.place = ActorState::Pending,
            ActorPlace::At { life, .. } if life < entry.floor => return,
            ActorPlace::At { worker, life } => {
                entry.floor = life;
                entry.place = ActorState::At { worker, life };
                if worker != self.me {
                    self.peer(worker).actors.insert(actor);
                }
            }
            ActorPlace::Dead(error) => entry.place = ActorState::Dead(Arc::new(error)),
        }
        self.advance_lanes(actor);
    }

    /// A worker is lost that supervised the actor, or on which it lived.
    pub(super) fn actor_worker_died(&mut self, actor: ActorId, worker: WorkerId) {
        let Some(entry) = self.actors.get_mut(&actor) else { return };
        if let Some(supervised) = &mut entry.supervised {
            supervised.subscribers.retain(|subscriber| *subscriber != worker);
            if let ActorState::At { worker: at, life } = entry.place
                && at == worker
            {
                self.actor_lost(actor, life, Death::WorkerLost);
            }
            return;
        }
        if entry.owner == worker {
            if !matches!(entry.place, ActorState::Dead(_)) {
                let error = TaskError { task: actor.0, cause: Cause::OwnerDied };
                entry.place = ActorState::Dead(Arc::new(error));
                self.advance_lanes(actor);
            }
        } else if let ActorState::At { worker: at, life } = entry.place
            && at == worker
        {
            // The supervisor will tell what becomes of it.
            entry.floor = life.saturating_add(1);
            entry.place = ActorState::Pending;
        }
    }

    pub(super) fn kill_requested(&mut self, actor: ActorId, owner: WorkerId) {
        if owner == self.me {
            self.kill_supervised(actor, Death::Ended);
        } else {
            self.send(owner, PeerMessage::ActorKill { actor });
        }
    }

    /// A worker asks: as the supervisor, or of the supervisor.
    pub(super) fn actor_kill(&mut self, from: WorkerId, actor: ActorId) {
        if self.hosted.get(&actor).is_some_and(|hosted| hosted.owner == from) {
            self.end_hosted(actor, Death::Ended);
        } else {
            self.kill_supervised(actor, Death::Ended);
        }
    }

    pub(super) fn kill_supervised(&mut self, actor: ActorId, death: Death) {
        let Some(entry) = self.actors.get(&actor) else { return };
        if entry.supervised.is_none() {
            return;
        }
        let place = entry.place.clone();
        let cause = Cause::ActorDied(death);
        self.actor_ends(actor, Arc::new(TaskError { task: actor.0, cause }));
        match place {
            ActorState::At { worker, .. } => self.kill_at(actor, worker),
            ActorState::Pending => {
                self.cancel_requested(actor.0, self.me, CancelMode::default());
            }
            ActorState::Dead(_) => {}
        }
    }

    fn kill_at(&mut self, actor: ActorId, worker: WorkerId) {
        if worker == self.me {
            if self.hosted.get(&actor).is_some_and(|hosted| hosted.owner == worker) {
                self.end_hosted(actor, Death::Ended);
            }
        } else {
            self.send(worker, PeerMessage::ActorKill { actor });
        }
    }

    /// Where an actor of another supervisor lives is asked once; changes are told.
    pub(super) fn known_actor(&mut self, actor: ActorId, owner: WorkerId) {
        if let Some(entry) = self.actors.get_mut(&actor) {
            let is_gone = matches!(entry.place, ActorState::Dead(_));
            if entry.owner == owner || !is_gone || entry.supervised.is_some() {
                return;
            }
        }
        let mut entry = ActorEntry::new(owner);
        if owner == self.me {
            entry.place = ActorState::Dead(Arc::new(unknown_actor(actor)));
        } else if self.is_dead(owner) {
            let error = TaskError { task: actor.0, cause: Cause::OwnerDied };
            entry.place = ActorState::Dead(Arc::new(error));
        } else {
            self.peer(owner).actors.insert(actor);
            self.send(owner, PeerMessage::ActorLocate { actor });
        }
        if let Some(former) = self.actors.get_mut(&actor) {
            // Calls that still wait for their arguments, or have to come back.
            entry.lanes = core::mem::take(&mut former.lanes);
            entry.out = former.out;
        }
        self.actors.insert(actor, entry);
    }
}

/// What the supervisor refers to while an actor may be made again: its arguments, and what its
/// creation returned, for a maker that runs again and makes it again.
pub(super) fn held_for_life(spec: &TaskSpec, me: WorkerId) -> impl Iterator<Item = Reference> + '_ {
    let returned =
        (0..spec.returns).map(move |index| Reference { object: spec.id.object(index), owner: me });
    spec.dependencies.iter().chain(&spec.borrowed).copied().chain(returned)
}

fn place_of(state: &ActorState) -> ActorPlace {
    match state {
        ActorState::Pending => ActorPlace::Pending,
        ActorState::At { worker, life } => ActorPlace::At { worker: *worker, life: *life },
        ActorState::Dead(error) => ActorPlace::Dead(TaskError::clone(error)),
    }
}

fn unknown_actor(actor: ActorId) -> TaskError {
    TaskError { task: actor.0, cause: Cause::ActorDied(Death::Ended) }
}
