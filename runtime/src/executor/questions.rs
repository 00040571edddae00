//! Questions that the head alone can answer, and the threads that wait for what it says.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdist_scheduler::id::{ActorId, WorkerId};
use rdist_scheduler::resource::Resources;

use super::process::Process;
use super::wait::{Parker, Why};
use crate::wire::executor::FromExecutor;

/// What the head says.
#[derive(Debug)]
pub(super) enum Answer {
    /// Who has a name: the actor and its supervisor.
    Actor(Option<(ActorId, WorkerId)>),
    /// What each worker offers.
    Offers(Vec<(WorkerId, Resources)>),
}

#[derive(Debug)]
enum Question {
    Asked(Arc<Parker>),
    Answered(Answer),
}

/// All that were asked and not read, by their number.
#[derive(Debug, Default)]
pub(super) struct Questions {
    open: Mutex<HashMap<u64, Question>>,
    next: AtomicU64,
}

impl Questions {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Question>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes who has asked.
    pub(super) fn answered(&self, request: u64, answer: Answer) {
        if let Some(question) = self.lock().get_mut(&request)
            && let Question::Asked(parker) = std::mem::replace(question, Question::Answered(answer))
        {
            parker.notify();
        }
    }
}

impl Process {
    /// Asks who has a name.
    pub(crate) fn look_up(&'static self, name: &str) -> Option<(ActorId, WorkerId)> {
        let name = name.to_owned();
        match self.ask(|request| FromExecutor::ActorLookup { request, name }) {
            Some(Answer::Actor(actor)) => actor,
            _ => None,
        }
    }

    /// Asks what all workers offer.
    pub(crate) fn offers(&'static self) -> Vec<(WorkerId, Resources)> {
        match self.ask(|request| FromExecutor::OffersWanted { request }) {
            Some(Answer::Offers(offers)) => offers,
            _ => Vec::new(),
        }
    }

    fn ask(&'static self, message: impl FnOnce(u64) -> FromExecutor) -> Option<Answer> {
        let questions = &self.questions;
        let request = questions.next.fetch_add(1, Ordering::Relaxed);
        questions.lock().insert(request, Question::Asked(Parker::current()));
        self.send(&message(request));
        let is_answered = || matches!(questions.lock().get(&request), Some(Question::Answered(_)));
        self.wait(Why::Answer, None, is_answered, || {});
        match questions.lock().remove(&request) {
            Some(Question::Answered(answer)) => Some(answer),
            _ => None,
        }
    }
}
