//! Names of actors: each is one actor's at a time, and goes to who asks first.

use std::collections::BTreeMap;

use rdist_scheduler::hash::{FastMap, FastSet};
use rdist_scheduler::id::{ActorId, WorkerId};
use rdist_scheduler::message::FromHead;

/// Who has wanted which name, and had it.
#[derive(Debug, Default)]
pub struct Names {
    /// What an actor is to be named, and its supervisor.
    claims: FastMap<ActorId, (String, WorkerId)>,
    holders: FastSet<(String, ActorId)>,
    /// Questions of workers.
    asked: FastMap<(WorkerId, u64), String>,
    pub taken: u64,
    pub found: u64,
}

/// What the head has written down.
type Durable = BTreeMap<String, (ActorId, WorkerId)>;

impl Names {
    pub fn claimed(&mut self, name: String, actor: ActorId, owner: WorkerId) {
        self.claims.insert(actor, (name, owner));
    }

    pub fn granted(&mut self, name: &str, actor: ActorId) {
        self.holders.insert((name.to_owned(), actor));
    }

    pub fn asked(&mut self, by: WorkerId, request: u64, name: &str) {
        self.asked.insert((by, request), name.to_owned());
    }

    /// What the head says of a name is what it has written down.
    pub fn check(&mut self, to: WorkerId, message: &FromHead, durable: &Durable) {
        match message {
            FromHead::ActorNameResult { name, actor, taken_by } => {
                let holder = durable.get(name).map(|(holder, _)| *holder);
                assert_eq!(holder, taken_by.or(Some(*actor)), "{name} is another's");
                assert_ne!(*taken_by, Some(*actor), "{name} is taken by who wants it");
                self.taken += u64::from(taken_by.is_some());
            }
            FromHead::ActorFound { request, actor } => {
                let name = &self.asked[&(to, *request)];
                assert_eq!(*actor, durable.get(name).copied(), "{name} is another's");
                self.found += u64::from(actor.is_some());
            }
            _ => {}
        }
    }

    /// Who makes the actor, if it wants a name that is not its own by now.
    pub fn lacks(&self, actor: ActorId, durable: &Durable) -> Option<WorkerId> {
        let (name, owner) = self.claims.get(&actor)?;
        let is_its = durable.get(name).is_some_and(|(holder, _)| *holder == actor);
        (!is_its).then_some(*owner)
    }

    /// Whether an actor may not be made because another one had its name.
    pub fn explains(&self, actor: ActorId, name: &str, by: ActorId) -> bool {
        actor != by
            && self.claims.get(&actor).is_some_and(|(claimed, _)| claimed == name)
            && self.holders.contains(&(name.to_owned(), by))
    }
}
