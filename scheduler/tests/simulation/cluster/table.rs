//! Workers by id: looked up several times for each event, and numbered without gaps.

use std::ops::Index;

use rdist_scheduler::id::WorkerId;

use super::Worker;

/// Those that live, in the order of their ids.
#[derive(Default)]
pub struct Workers(Vec<Option<Box<Worker>>>);

impl Workers {
    pub fn get(&self, id: &WorkerId) -> Option<&Worker> {
        self.0.get(id.0 as usize)?.as_deref()
    }

    pub fn get_mut(&mut self, id: &WorkerId) -> Option<&mut Worker> {
        self.0.get_mut(id.0 as usize)?.as_deref_mut()
    }

    pub fn contains_key(&self, id: &WorkerId) -> bool {
        self.get(id).is_some()
    }

    pub fn insert(&mut self, id: WorkerId, worker: Worker) {
        let place = id.0 as usize;
        if self.0.len() <= place {
            self.0.resize_with(place + 1, || None);
        }
        self.0[place] = Some(Box::new(worker));
    }

    pub fn remove(&mut self, id: &WorkerId) {
        if let Some(place) = self.0.get_mut(id.0 as usize) {
            *place = None;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        let all = (0..).zip(&self.0);
        all.filter_map(|(id, worker)| Some((WorkerId(id), worker.as_deref()?)))
    }

    pub fn keys(&self) -> impl Iterator<Item = WorkerId> {
        self.iter().map(|(id, _)| id)
    }

    pub fn values(&self) -> impl Iterator<Item = &Worker> {
        self.0.iter().flatten().map(|worker| &**worker)
    }
}

impl Index<&WorkerId> for Workers {
    type Output = Worker;

    fn index(&self, id: &WorkerId) -> &Worker {
        self.get(id).expect("a worker that lives")
    }
}
