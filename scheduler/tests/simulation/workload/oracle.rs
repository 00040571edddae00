//! What every value must be, before it is made.

use rdist_scheduler::hash::FastMap;
use rdist_scheduler::id::{ObjectId, TaskId};

use super::{Child, Op, Slot, put_id, stream_program, task_program};
use crate::network::mix;

/// What a value must be.
#[derive(Debug, Clone)]
pub struct Expected {
    pub value: u64,
    pub contains: Vec<ObjectId>,
}

/// What a task returns that has read this.
pub fn nth(read: u64, index: u32) -> u64 {
    if index == 0 { read } else { mix(read, index.into()) }
}

/// Knows every value before it is made.
#[derive(Debug, Default)]
pub struct Oracle {
    values: FastMap<ObjectId, Expected>,
}

impl Oracle {
    pub fn get(&self, object: ObjectId) -> Option<&Expected> {
        self.values.get(&object)
    }

    pub fn put(&mut self, object: ObjectId, seed: u64, contains: Vec<ObjectId>) {
        self.values.insert(object, Expected { value: mix(seed, 1), contains });
    }

    /// What reading a value adds to what a program has read; none for results of calls.
    pub fn read(&self, read: u64, object: ObjectId) -> u64 {
        let Some(expected) = self.values.get(&object) else { return read };
        let inside = expected.contains.iter().filter_map(|object| self.values.get(object));
        inside.fold(mix(read, expected.value), |read, inner| mix(read, inner.value))
    }

    /// Enters what a task will yield.
    pub fn stream(&mut self, task: TaskId, child: &Child) {
        let (mut puts, mut own, mut index) = (0, Vec::new(), 0);
        for op in stream_program(child.seed, child.items, false).ops {
            match op {
                Op::Put { seed, inline, .. } => {
                    let id = put_id(task, puts, seed, inline);
                    puts += 1;
                    self.put(id, seed, Vec::new());
                    own.push(id);
                }
                Op::Yield { seed, contains, .. } => {
                    let contains = contains.iter().map(|slot| own[*slot]).collect();
                    let item = Expected { value: mix(seed, 2), contains };
                    self.values.insert(task.object(index), item);
                    index += 1;
                }
                _ => {}
            }
        }
    }

    /// Enters the results of a task and of all that it will submit.
    pub fn submit(&mut self, task: TaskId, child: &Child, slot: impl Fn(Slot) -> ObjectId) {
        let object = task.object(0);
        if self.values.contains_key(&object) {
            return;
        }
        let read = child.dependencies.iter().map(|n| slot(*n));
        let mut read = read.fold(child.seed, |read, object| match self.values.get(&object) {
            Some(expected) => mix(read, expected.value),
            None => read,
        });
        let more = (child.calls.map_or(0, |(_, times)| times), child.cancels);
        let program = task_program(child.seed, child.depth, child.borrowed.len(), more);
        let mut own: Vec<ObjectId> = child.borrowed.iter().map(|n| slot(*n)).collect();
        let (mut children, mut puts) = (0, 0);
        for op in &program.ops {
            match op {
                Op::Submit(grandchild) => {
                    let id = task.child(children);
                    children += 1;
                    self.submit(id, grandchild, &(|n: Slot| own[n]) as &dyn Fn(Slot) -> ObjectId);
                    own.push(id.object(0));
                }
                Op::Put { seed, inline, contains } => {
                    let id = put_id(task, puts, *seed, *inline);
                    puts += 1;
                    self.put(id, *seed, contains.iter().map(|slot| own[*slot]).collect());
                    own.push(id);
                }
                Op::Get(slot) => read = self.read(read, own[*slot]),
                Op::Stream { child, take, keep, .. } => {
                    let id = task.child(children);
                    children += 1;
                    self.stream(id, child);
                    for object in (0..child.items.min(*take)).map(|index| id.object(index)) {
                        read = self.read(read, object);
                        own.extend(keep.then_some(object));
                    }
                }
                Op::Call { .. } => {
                    // What it returns nobody knows before.
                    own.push(task.child(children).object(0));
                    children += 1;
                }
                Op::Yield { .. } => unreachable!("a task yields or returns"),
                Op::Claim { .. }
                | Op::LookUp(_)
                | Op::CallNamed(_)
                | Op::KillNamed(_)
                | Op::Detach
                | Op::Find(_)
                | Op::KillFound(_)
                | Op::Watch(_)
                | Op::Terminate(_) => {
                    unreachable!("drivers alone use names")
                }
                Op::Compute(_)
                | Op::Drop(_)
                | Op::Cancel(..)
                | Op::Kill(_)
                | Op::Spawn { .. }
                | Op::Reserve { .. }
                | Op::Return(_) => {}
            }
        }
        let contains: Vec<ObjectId> = program.returns.iter().map(|slot| own[*slot]).collect();
        for index in 0..child.returns.into() {
            let returned = Expected { value: nth(read, index), contains: contains.clone() };
            self.values.insert(task.object(index), returned);
        }
    }
}
