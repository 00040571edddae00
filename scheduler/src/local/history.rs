//! What happened to tasks and actors, for people who ask later: every try that did not end well, of
//! the last tasks of which there are such, and where the last tasks ran that ended well. Bounded;
//! nothing here takes part in a decision.

use std::collections::VecDeque;

use crate::hash::IdMap;
use crate::id::{TaskId, WorkerId};
use crate::outcome::Cause;
use crate::time::Timestamp;

/// Tasks and actors whose troubles are remembered.
const TROUBLED: usize = 1_000;
/// Troubles of one that are remembered: the first ones, and the last.
const TROUBLES: usize = 8;
/// Bytes of an error's text that are remembered: its beginning and its end.
const TEXT_BYTES: usize = 4 << 10;
/// Tasks that ended well and are remembered.
const ENDED: usize = 4_096;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct History {
    troubles: IdMap<TaskId, Vec<Trouble>>,
    /// Those in `troubles`, the oldest first.
    order: VecDeque<TaskId>,
    /// A ring, once it is full.
    ended: Vec<Ended>,
    next: usize,
}

/// A try of a task, or a life of an actor, that did not end well.
#[derive(Debug)]
struct Trouble {
    at: Timestamp,
    number: u32,
    worker: WorkerId,
    what: String,
    again: bool,
}

#[derive(Debug, Clone, Copy)]
struct Ended {
    task: TaskId,
    attempt: u32,
    worker: WorkerId,
    at: Timestamp,
}

impl History {
    /// A task has returned.
    pub(super) fn ended(&mut self, task: TaskId, attempt: u32, worker: WorkerId, at: Timestamp) {
        let ended = Ended { task, attempt, worker, at };
        match self.ended.get_mut(self.next) {
            Some(oldest) => *oldest = ended,
            None => self.ended.push(ended),
        }
        self.next = (self.next + 1) % ENDED;
    }

    /// A try of a task, or a life of an actor, ended for that reason; `again`: another follows.
    pub(super) fn trouble(
        &mut self,
        task: TaskId,
        (number, worker, at): (u32, WorkerId, Timestamp),
        cause: &Cause,
        again: bool,
    ) {
        let trouble = Trouble { at, number, worker, what: short(cause.to_string()), again };
        let known = self.troubles.entry(task).or_default();
        if known.is_empty() {
            self.order.push_back(task);
        }
        if known.len() == TROUBLES {
            known.pop();
        }
        known.push(trouble);
        if self.order.len() > TROUBLED
            && let Some(oldest) = self.order.pop_front()
        {
            self.troubles.remove(&oldest);
        }
    }

    /// What is remembered of a task or an actor, a line for each; `noun`: `try` or `life`.
    pub(super) fn of(&self, task: TaskId, noun: &str, now: Timestamp) -> Vec<String> {
        let troubles = self.troubles.get(&task).into_iter().flatten();
        let trouble = |trouble: &Trouble| {
            let Trouble { at, number, worker, what, again } = trouble;
            let next = if *again { "; it is tried again" } else { "; it is not tried again" };
            let ago = ago(now, *at);
            format!("{noun} {} on {worker} ended {ago}: {what}{next}", number + 1)
        };
        let ended = self.ended.iter().filter(|ended| ended.task == task);
        let ended = ended.max_by_key(|ended| ended.at).map(|ended| {
            let Ended { attempt, worker, at, .. } = *ended;
            format!("{noun} {} ended well on {worker}, {}", attempt + 1, ago(now, at))
        });
        troubles.map(trouble).chain(ended).collect()
    }
}

fn ago(now: Timestamp, at: Timestamp) -> String {
    format!("{:.1} s ago", (now - at).as_secs_f64())
}

/// Without its middle, if it is long.
fn short(text: String) -> String {
    if text.len() <= TEXT_BYTES {
        return text;
    }
    let is_between = |at: &usize| text.is_char_boundary(*at);
    let head = (0..=TEXT_BYTES / 2).rev().find(is_between).unwrap_or(0);
    let tail = (text.len() - TEXT_BYTES / 2..).find(is_between).unwrap_or(text.len());
    format!("{}\n...\n{}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::JobId;

    fn task(index: u64) -> TaskId {
        TaskId::driver(JobId(1)).child(index)
    }

    fn told(history: &History, index: u64) -> Vec<String> {
        history.of(task(index), "try", Timestamp(10_000_000_000))
    }

    #[test]
    fn each_try_has_its_reason() {
        let mut history = History::default();
        let (one, two) = (WorkerId(1), WorkerId(2));
        let lost = Cause::WorkerDied { reason: "it was silent".to_owned() };
        history.trouble(task(1), (0, one, Timestamp(5_000_000_000)), &lost, true);
        history.ended(task(1), 1, two, Timestamp(9_000_000_000));
        let expected = [
            "try 1 on worker-1 ended 5.0 s ago: its worker died: it was silent; it is tried again",
            "try 2 ended well on worker-2, 1.0 s ago",
        ];
        assert_eq!(told(&history, 1), expected);
        assert!(told(&history, 2).is_empty());
    }

    #[test]
    fn it_is_bounded() {
        let mut history = History::default();
        let cause = Cause::Returned { message: "ä".repeat(100_000) };
        for index in 0..2 * ENDED as u64 {
            history.ended(task(index), 0, WorkerId(1), Timestamp(index));
            for attempt in 0..10 {
                history.trouble(task(index), (attempt, WorkerId(1), Timestamp(0)), &cause, true);
            }
        }
        assert_eq!(history.ended.len(), ENDED);
        assert_eq!((history.troubles.len(), history.order.len()), (TROUBLED, TROUBLED));
        let last = told(&history, 2 * ENDED as u64 - 1);
        assert_eq!(last.len(), TROUBLES + 1);
        assert!(last[0].starts_with("try 1 ") && last[TROUBLES - 1].starts_with("try 10 "));
        assert!(last[0].len() < TEXT_BYTES + 200);
    }
}
