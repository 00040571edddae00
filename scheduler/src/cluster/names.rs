//! Cluster-wide names of actors: first come, first served; given back when the actor, its job or
//! its supervisor is gone.

use std::collections::BTreeSet;

use super::ClusterAction;
use super::core::ClusterCore;
use crate::id::{ActorId, JobId, WorkerId};
use crate::message::FromHead;

impl ClusterCore {
    pub(super) fn named(&mut self, from: WorkerId, name: String, actor: ActorId, owner: WorkerId) {
        if !self.is_active(actor.0.job()) {
            self.forget_unknown_job(from, actor.0.job());
            return;
        }
        let taken_by = match self.names.get(&name) {
            Some((holder, _)) if *holder != actor => Some(*holder),
            Some(_) => None,
            None => {
                self.grant(name.clone(), actor, owner);
                None
            }
        };
        self.send(from, FromHead::ActorNameResult { name, actor, taken_by });
    }

    pub(super) fn unnamed(&mut self, name: &str, actor: ActorId) {
        if self.names.get(name).is_some_and(|(holder, _)| *holder == actor) {
            self.take_back(name);
        }
    }

    pub(super) fn looked_up(&mut self, from: WorkerId, request: u64, name: &str) {
        let actor = self.names.get(name).copied();
        self.send(from, FromHead::ActorFound { request, actor });
    }

    /// A worker came with an actor that has a name.
    pub(super) fn name_held(&mut self, worker: WorkerId, name: String, actor: ActorId) {
        match self.names.get(&name) {
            Some((holder, _)) if *holder == actor => {}
            Some((holder, _)) => {
                let taken_by = Some(*holder);
                self.send(worker, FromHead::ActorNameResult { name, actor, taken_by });
            }
            None if self.is_active(actor.0.job()) => self.grant(name, actor, worker),
            None => {}
        }
    }

    /// A worker came to a head that knows from another one which names are its actors': those that
    /// it does not name have ended while there was no head.
    pub(super) fn drop_names_but(&mut self, owner: WorkerId, held: &[(String, ActorId)]) {
        let held: BTreeSet<(&str, ActorId)> =
            held.iter().map(|(name, actor)| (name.as_str(), *actor)).collect();
        let names = self.names.iter().filter(|(name, (actor, other))| {
            *other == owner && !held.contains(&(name.as_str(), *actor))
        });
        for name in names.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.take_back(&name);
        }
    }

    pub(super) fn drop_names_of(&mut self, owner: WorkerId) {
        let names = self.names.iter().filter(|(_, (_, other))| *other == owner);
        for name in names.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.take_back(&name);
        }
    }

    pub(super) fn drop_names_in(&mut self, job: JobId) {
        let names = self.names.iter().filter(|(_, (actor, _))| actor.0.job() == job);
        for name in names.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.take_back(&name);
        }
    }

    fn grant(&mut self, name: String, actor: ActorId, owner: WorkerId) {
        self.names.insert(name.clone(), (actor, owner));
        self.act(ClusterAction::NameChanged { name, actor: Some((actor, owner)) });
    }

    fn take_back(&mut self, name: &str) {
        self.names.remove(name);
        self.act(ClusterAction::NameChanged { name: name.to_owned(), actor: None });
    }
}
