//! How lost values could be made again: specifications of tasks that have ended.
//!
//! A record is kept while a value of its task lies in an arena (inline values are never lost),
//! while something is used here that its values refer to and that is owned where the task ran, or
//! while another record would need it to run its own task again. It keeps inline dependencies
//! alive, since their tasks' records may be gone. Values that were put, and values of other owners,
//! are not kept: a task that needs them again finds them, or fails. The number of records is
//! bounded: when it is reached the oldest go, and what only they could make is then lost for good
//! if its copies are.
//!
//! LN-1: a record's `uses` is the number of its live arena values, of objects whose maker it is
//! (see `local::remake`), and of records that need it.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::hash::IdMap;
use crate::id::{ObjectId, TaskId};
use crate::spec::TaskSpec;

/// How often a task was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tries {
    /// The number of the last try, from 0.
    pub(crate) attempt: u32,
    /// Tries before it that do not count against `max_retries`.
    pub(crate) spared: u32,
}

impl Tries {
    /// Tries that do count.
    pub(crate) fn losses(self) -> u32 {
        self.attempt - self.spared
    }
}

#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) spec: Arc<TaskSpec>,
    /// Up to the last attempt that succeeded.
    pub(crate) tries: Tries,
    pub(crate) uses: u32,
    /// Records, with their numbers, that this one counts as a user of.
    pub(crate) needs: SmallVec<[(TaskId, u64); 2]>,
    /// Objects that this one holds.
    pub(crate) holds: SmallVec<[ObjectId; 2]>,
    pub(crate) number: u64,
}

/// All records of a worker.
#[derive(Debug)]
pub(crate) struct Lineage {
    records: IdMap<TaskId, Record>,
    /// Records in the order of their making, also of some that are gone.
    by_age: VecDeque<(u64, TaskId)>,
    made: u64,
    most: usize,
}

impl Lineage {
    pub(crate) fn new(most: usize) -> Self {
        Self { records: IdMap::default(), by_age: VecDeque::new(), made: 0, most }
    }

    pub(crate) fn get(&self, task: TaskId) -> Option<&Record> {
        self.records.get(&task)
    }

    pub(crate) fn contains(&self, task: TaskId) -> bool {
        self.records.contains_key(&task)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// Makes the record of a task with `uses` live arena values, which already holds `holds`.
    /// Returns what older records held that are dropped for it, for the caller to let go of.
    pub(crate) fn insert(
        &mut self,
        spec: Arc<TaskSpec>,
        tries: Tries,
        uses: u32,
        holds: SmallVec<[ObjectId; 2]>,
    ) -> Vec<ObjectId> {
        let mut needs: SmallVec<[(TaskId, u64); 2]> = SmallVec::new();
        for reference in spec.dependencies.iter().chain(&spec.borrowed) {
            let task = reference.object.task;
            if let Some(record) = self.records.get_mut(&task)
                && !needs.contains(&(task, record.number))
            {
                record.uses += 1;
                needs.push((task, record.number));
            }
        }
        let id = spec.id;
        self.made += 1;
        self.by_age.push_back((self.made, id));
        let record = Record { spec, tries, uses, needs, holds, number: self.made };
        let before = self.records.insert(id, record);
        debug_assert!(before.is_none(), "LN-1: two records of {id:?}");
        let mut gone = Vec::new();
        while self.records.len() > self.most {
            let Some((number, task)) = self.by_age.pop_front() else { break };
            if self.records.get(&task).is_some_and(|record| record.number == number)
                && let Some(record) = self.records.remove(&task)
            {
                self.drop_record(record, &mut gone);
            }
        }
        if self.by_age.len() > 64 + 2 * self.records.len() {
            let records = &self.records;
            self.by_age.retain(|(n, task)| records.get(task).is_some_and(|r| r.number == *n));
        }
        gone
    }

    /// The task ran again and made `more` arena values that the record does not count yet.
    pub(crate) fn ran_again(&mut self, task: TaskId, tries: Tries, more: u32) {
        if let Some(record) = self.records.get_mut(&task) {
            record.tries = tries;
            record.uses += more;
        }
    }

    /// An arena value that the record counts is freed, or has failed. Returns what is let go of.
    pub(crate) fn unuse(&mut self, task: TaskId) -> Vec<ObjectId> {
        let mut gone = Vec::new();
        if let Some(record) = self.records.get_mut(&task) {
            record.uses -= 1;
            if record.uses == 0
                && let Some(record) = self.records.remove(&task)
            {
                self.drop_record(record, &mut gone);
            }
        }
        gone
    }

    fn drop_record(&mut self, record: Record, gone: &mut Vec<ObjectId>) {
        let mut dropped = vec![record];
        while let Some(record) = dropped.pop() {
            gone.extend(record.holds);
            for (task, number) in record.needs {
                let Some(need) = self.records.get_mut(&task) else { continue };
                if need.number != number {
                    continue;
                }
                need.uses -= 1;
                if need.uses == 0
                    && let Some(need) = self.records.remove(&task)
                {
                    dropped.push(need);
                }
            }
        }
    }

    /// Forgets every record that `is_gone` names, and its holds.
    pub(crate) fn forget(&mut self, is_gone: impl Fn(TaskId) -> bool) {
        self.records.retain(|task, _| !is_gone(*task));
        self.by_age.retain(|(_, task)| !is_gone(*task));
    }
}
