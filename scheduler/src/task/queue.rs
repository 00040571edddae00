//! Tasks that wait for resources, grouped by their job and what they ask for: a choice looks at the
//! front of each group, not at each task.
//!
//! The job with the least share first ([`crate::share`]); within a job higher priorities first,
//! then first come, first served. A group whose front does not fit is
//! passed by, so that a large request does not idle the worker; after [`MAX_PASSED_BY`] times it
//! is its turn, and what comes after it waits until it fits. That holds only while waiting can
//! help (what runs unblocked would make room): otherwise two tasks could wait for each other.

use core::cmp::Reverse;
use std::collections::VecDeque;

use smallvec::SmallVec;

use super::TaskKey;
use crate::hash::FastMap;
use crate::id::JobId;
use crate::resource::{Ledger, Resources};
use crate::share::Standing;

/// How often later tasks may overtake one that does not fit.
const MAX_PASSED_BY: u32 = 256;
/// Empty groups that are kept for the next task of the same shape.
const MAX_EMPTY_SHAPES: usize = 32;
/// Empty priorities that an empty group keeps, and room for notes in each.
const MAX_EMPTY_LANES: usize = 4;
const MAX_EMPTY_NOTES: usize = 1 << 12;

/// Place in line: the job's share, the priority, and the stamp.
type Place = (Standing, Reverse<i32>, u64);

/// A note of a queued task; void when the task's stamp is another one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) key: TaskKey,
    pub(crate) stamp: u64,
}

#[derive(Debug, Default)]
struct Shape {
    job: JobId,
    request: Resources,
    /// It is in the index.
    is_listed: bool,
    /// By priority, the highest first.
    lanes: SmallVec<[(i32, VecDeque<Ready>); 1]>,
    /// Queued tasks, void notes not counted.
    len: u32,
    /// Those of them that may run elsewhere.
    movable: u32,
    passed_by: u32,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct ReadyQueue {
    shapes: Vec<Shape>,
    index: FastMap<(JobId, Resources), u32>,
    free: Vec<u32>,
    len: usize,
    last: u32,
}

impl ReadyQueue {
    /// Adds a task at the end of its priority; returns its shape.
    pub(crate) fn push(
        &mut self,
        job: JobId,
        request: &Resources,
        priority: i32,
        movable: bool,
        ready: Ready,
    ) -> u32 {
        let at = self.shape_of(job, request);
        let shape = &mut self.shapes[at as usize];
        match shape.lanes.iter_mut().find(|lane| lane.0 <= priority) {
            Some((found, lane)) if *found == priority => lane.push_back(ready),
            _ => {
                let place = shape.lanes.partition_point(|lane| lane.0 > priority);
                shape.lanes.insert(place, (priority, VecDeque::from([ready])));
            }
        }
        shape.len += 1;
        shape.movable += u32::from(movable);
        self.len += 1;
        at
    }

    fn shape_of(&mut self, job: JobId, request: &Resources) -> u32 {
        if let Some(shape) = self.shapes.get(self.last as usize)
            && shape.is_listed
            && shape.job == job
            && shape.request == *request
        {
            return self.last;
        }
        let key = (job, request.clone());
        let at = match self.index.get(&key) {
            Some(&at) => at,
            None => {
                let at = self.free.pop().unwrap_or_else(|| {
                    self.shapes.push(Shape::default());
                    (self.shapes.len() - 1) as u32
                });
                let request = request.clone();
                self.shapes[at as usize] =
                    Shape { job, request, is_listed: true, ..Shape::default() };
                self.index.insert(key, at);
                at
            }
        };
        self.last = at;
        at
    }

    /// A task left the queue, by [`ReadyQueue::pick`], [`ReadyQueue::newest`] or otherwise; its
    /// note, if still there, is void.
    pub(crate) fn left(&mut self, at: u32, movable: bool) {
        let shape = &mut self.shapes[at as usize];
        shape.len -= 1;
        shape.movable -= u32::from(movable);
        self.len -= 1;
        if shape.len == 0 {
            shape.passed_by = 0;
            // Room for the next tasks is kept, unless it is much.
            shape.lanes.truncate(MAX_EMPTY_LANES);
            for (_, lane) in &mut shape.lanes {
                lane.clear();
                lane.shrink_to(MAX_EMPTY_NOTES);
            }
            if self.index.len() > MAX_EMPTY_SHAPES {
                shape.is_listed = false;
                self.index.remove(&(shape.job, shape.request.clone()));
                self.free.push(at);
            }
        }
    }

    /// The next task, whether it fits or not; it stays.
    pub(crate) fn first(
        &mut self,
        share: impl Fn(JobId) -> Standing,
        is_current: impl Fn(Ready) -> bool,
    ) -> Option<Ready> {
        if self.len == 0 {
            return None;
        }
        let mut best: Option<(Place, Ready)> = None;
        for shape in self.shapes.iter_mut().filter(|shape| shape.len > 0) {
            let Some((lane, stamp)) = front(&mut shape.lanes, &is_current) else { continue };
            let place = (share(shape.job), Reverse(shape.lanes[lane].0), stamp);
            if let Some(ready) = shape.lanes[lane].1.front().copied()
                && best.is_none_or(|(best, _)| place < best)
            {
                best = Some((place, ready));
            }
        }
        best.map(|(_, ready)| ready)
    }

    /// The next task that fits. The caller takes it out with [`ReadyQueue::left`].
    pub(crate) fn pick(
        &mut self,
        ledger: &Ledger,
        share: impl Fn(JobId) -> Standing,
        is_current: impl Fn(Ready) -> bool,
    ) -> Option<Ready> {
        if self.len == 0 {
            return None;
        }
        let mut best: Option<(Place, usize, usize)> = None;
        let mut barred: Option<(Place, usize)> = None;
        for at in 0..self.shapes.len() {
            let shape = &mut self.shapes[at];
            if shape.len == 0 {
                continue;
            }
            let Some((lane, stamp)) = front(&mut shape.lanes, &is_current) else { continue };
            let place = (share(shape.job), Reverse(shape.lanes[lane].0), stamp);
            if ledger.fits(&shape.request) {
                if best.is_none_or(|(best, ..)| place < best) {
                    best = Some((place, at, lane));
                }
            } else if barred.is_none_or(|(barred, _)| place < barred) {
                barred = Some((place, at));
            }
        }
        let (place, at, lane) = best?;
        if let Some((before, waits)) = barred
            && before < place
        {
            let shape = &mut self.shapes[waits];
            shape.passed_by = shape.passed_by.saturating_add(1);
            if shape.passed_by > MAX_PASSED_BY && ledger.will_fit(&shape.request) {
                return None;
            }
        }
        let shape = &mut self.shapes[at];
        shape.passed_by = 0;
        shape.lanes[lane].1.pop_front()
    }

    /// Takes out the notes of up to `count` of the newest movable tasks that ask for exactly
    /// `request`, the least urgent first. The caller says [`ReadyQueue::left`] for each.
    pub(crate) fn newest(
        &mut self,
        request: &Resources,
        count: u32,
        is_current: impl Fn(Ready) -> bool,
        is_movable: impl Fn(Ready) -> bool,
    ) -> Vec<Ready> {
        let mut taken = Vec::new();
        let asks = |shape: &&mut Shape| shape.movable > 0 && shape.request == *request;
        let mut shapes: Vec<&mut Shape> = self.shapes.iter_mut().filter(asks).collect();
        // The longest line gains the most.
        shapes.sort_by_key(|shape| Reverse(shape.movable));
        for shape in shapes {
            let wanted = (count as usize).min(taken.len() + shape.movable as usize);
            for (_, lane) in shape.lanes.iter_mut().rev() {
                let mut kept = Vec::new();
                while taken.len() < wanted {
                    match lane.pop_back() {
                        None => break,
                        Some(ready) if !is_current(ready) => {}
                        Some(ready) if is_movable(ready) => taken.push(ready),
                        Some(ready) => kept.push(ready),
                    }
                }
                lane.extend(kept.into_iter().rev());
            }
        }
        taken
    }

    /// Whether anything waits that is of another job.
    pub(crate) fn has_others(&self, job: JobId) -> bool {
        self.shapes.iter().any(|shape| shape.len > 0 && shape.job != job)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Queued tasks of the shape.
    pub(crate) fn len_of(&self, shape: u32) -> u32 {
        self.shapes[shape as usize].len
    }

    /// Requests of movable tasks with their numbers, the most frequent first.
    pub(crate) fn backlog(&self, most: usize) -> Vec<(Resources, u32)> {
        let mut backlog: Vec<(Resources, u32)> = Vec::new();
        for shape in self.shapes.iter().filter(|shape| shape.movable > 0) {
            match backlog.iter_mut().find(|(request, _)| *request == shape.request) {
                Some((_, count)) => *count += shape.movable,
                None => backlog.push((shape.request.clone(), shape.movable)),
            }
        }
        backlog.sort_by_key(|shape| Reverse(shape.1));
        backlog.truncate(most);
        backlog
    }
}

/// Lane and stamp of the first task; drops void notes before it.
fn front(
    lanes: &mut [(i32, VecDeque<Ready>)],
    is_current: impl Fn(Ready) -> bool,
) -> Option<(usize, u64)> {
    for (at, (_, lane)) in lanes.iter_mut().enumerate() {
        while let Some(&ready) = lane.front() {
            if is_current(ready) {
                return Some((at, ready.stamp));
            }
            lane.pop_front();
        }
    }
    None
}
