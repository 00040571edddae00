//! Rings between two executors of a worker. What one has written can be read from then on, also
//! when it is dead; it is read when the other one looks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rdist_scheduler::id::{ExecutorId, WorkerId};
use rdist_scheduler::outcome::{Death, TaskError};
use rdist_scheduler::spec::TaskSpec;

use super::At;
use crate::cluster::{Event, Simulation};

#[derive(Debug, Clone)]
pub enum Frame {
    /// What follows comes after that fence.
    After(u64),
    /// A task, by the lease of that number.
    Run { lease: u64, token: u64, spec: Arc<TaskSpec> },
    /// A call, by a route.
    Call { token: u64, spec: Arc<TaskSpec> },
    /// What that token stands for returned this value: inline, and without references.
    Ran { token: u64, value: u64 },
    /// It failed.
    Failed { token: u64, error: TaskError },
    /// The task of that token comes back.
    NotStarted { token: u64 },
}

/// All of a worker's.
#[derive(Debug, Default)]
pub struct Rings {
    /// By who writes and who reads.
    frames: BTreeMap<(ExecutorId, ExecutorId), VecDeque<Frame>>,
}

impl Simulation {
    pub(super) fn transmit(
        &mut self,
        worker: WorkerId,
        (from, to): (ExecutorId, ExecutorId),
        frame: Frame,
    ) {
        self.trace(|| format!("{worker} {from} => {to} {frame:?}"));
        let Some(at) = self.workers.get_mut(&worker) else { return };
        if !at.processes.contains_key(&to) {
            return; // nobody reads it
        }
        at.rings.frames.entry((from, to)).or_default().push_back(frame);
        // Who reads other rings, or sleeps, looks late.
        let late = if self.rng.one_in(16) { 2_000_000 } else { 4_000 };
        let looks = self.now + 500 + self.rng.below(late);
        self.agenda.at(looks & !1, Event::Ring { worker, from, to });
    }

    /// Reads all that is there, as far as the fence allows.
    pub fn read_ring(&mut self, worker: WorkerId, (from, to): (ExecutorId, ExecutorId)) {
        while let Some(frame) = self.next_frame(worker, (from, to)) {
            match frame {
                Frame::After(_) => {}
                Frame::Run { lease, token, spec } => {
                    self.task_arrived(worker, (from, to), lease, (token, spec));
                }
                Frame::Call { token, spec } => {
                    self.call_arrived(worker, (from, to), token, spec);
                }
                Frame::Ran { token, value } => self.replied((worker, to), token, Ok(value)),
                Frame::Failed { token, error } => self.replied((worker, to), token, Err(error)),
                Frame::NotStarted { token } => self.came_back(worker, to, token),
            }
        }
    }

    fn next_frame(
        &mut self,
        worker: WorkerId,
        (from, to): (ExecutorId, ExecutorId),
    ) -> Option<Frame> {
        let at = self.workers.get_mut(&worker)?;
        let host = &mut at.processes.get_mut(&to)?.host;
        let ring = at.rings.frames.get_mut(&(from, to))?;
        match ring.front()? {
            Frame::After(_) | Frame::Run { .. } | Frame::Call { .. } => {
                let lane = host.lanes.get_mut(&from)?;
                if lane.after > host.fence {
                    return None;
                }
                let frame = ring.pop_front();
                if let Some(Frame::After(fence)) = frame {
                    lane.after = fence;
                }
                frame
            }
            _ => ring.pop_front(),
        }
    }

    /// Whether the other executor has read what this one has given it, or is known to have ended.
    pub(super) fn is_taken(&self, at: At, by: ExecutorId) -> bool {
        let rings = self.workers.get(&at.worker).map(|worker| &worker.rings.frames);
        let frames = rings.and_then(|frames| frames.get(&(at.executor, by)));
        frames.is_none_or(|frames| !frames.iter().any(|frame| matches!(frame, Frame::Call { .. })))
    }

    /// The other executor has ended: what it has written counts.
    pub(super) fn link_ended(
        &mut self,
        worker: WorkerId,
        executor: ExecutorId,
        peer: ExecutorId,
        death: &Death,
    ) {
        self.read_ring(worker, (peer, executor));
        self.host_ended(worker, executor, peer, death);
        if let Some(at) = self.workers.get_mut(&worker) {
            at.rings.frames.remove(&(peer, executor));
            at.rings.frames.remove(&(executor, peer));
        }
    }
}
