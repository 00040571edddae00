//! Runs of tasks and calls: what they do, and how they begin.

use std::collections::VecDeque;
use std::sync::Arc;

use rdist_scheduler::id::{ActorId, ExecutorId, GroupId, TaskId, WorkerId};
use rdist_scheduler::spec::{Reference, TaskKind, TaskSpec};

use super::At;
use super::named::{Claim, Named};
use super::stream::Reading;
use crate::cluster::Simulation;
use crate::network::mix;
use crate::workload::{
    ENDLESS, FOR_EVER, Op, Program, driver_program, stream_program, task_program,
};

#[derive(Debug)]
pub struct Run {
    pub spec: Arc<TaskSpec>,
    pub attempt: u32,
    pub(super) given: Given,
    pub(super) program: Program,
    pub(super) next: usize,
    pub(super) slots: Vec<Reference>,
    /// Those that it has made, or was given to call.
    pub(super) actors: Vec<Handle>,
    pub(super) groups: Vec<GroupId>,
    /// Those that it has claimed a name for, or looked up, in order.
    pub(super) named: Vec<Named>,
    pub(super) claim: Option<Claim>,
    /// What it has read so far.
    pub(super) read: u64,
    pub(super) children: u64,
    pub(super) puts: u32,
    /// Still to be read for the current `Get`; the first one refers to the others.
    pub(super) wants: VecDeque<Reference>,
    pub(super) inner: bool,
    pub(super) blocked: bool,
    pub(super) failed: bool,
    /// It waits for a lease, to submit this.
    pub(super) unsent: Option<Box<TaskSpec>>,
    /// The stream that it reads.
    pub stream: Option<Reading>,
    /// What it has yielded, and how many of that were taken, as far as it knows.
    pub(super) yielded: u32,
    pub(super) taken: u32,
    /// It waits until so many are.
    pub(super) credit: Option<u32>,
}

/// An actor that a program may call.
#[derive(Debug, Clone, Copy)]
pub struct Handle {
    pub actor: ActorId,
    /// Its supervisor.
    pub owner: WorkerId,
    /// It is in a group of its maker, who calls nobody else meanwhile.
    pub is_grouped: bool,
}

/// Who gave a run to its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    ByWorker,
    Leased(ExecutorId),
    Called { caller: ExecutorId, token: u64 },
}

impl Run {
    pub(super) fn new(
        spec: Arc<TaskSpec>,
        attempt: u32,
        given: Given,
        program: Program,
        actors: Vec<Handle>,
        read: u64,
    ) -> Self {
        let taken = spec.stream().map_or(0, |stream| stream.consumed);
        Self {
            slots: spec.borrowed.clone(),
            spec,
            attempt,
            given,
            program,
            next: 0,
            actors,
            groups: Vec::new(),
            named: Vec::new(),
            claim: None,
            read,
            children: 0,
            puts: 0,
            wants: VecDeque::new(),
            inner: false,
            blocked: false,
            failed: false,
            unsent: None,
            stream: None,
            yielded: 0,
            taken,
            credit: None,
        }
    }

    /// Whether its value fits into a message.
    pub(super) fn is_inline(&self) -> bool {
        self.spec.body.get(9).is_none_or(|inline| *inline == 1)
    }

    /// What the ids of its children and puts derive from.
    pub(super) fn root(&self) -> TaskId {
        self.spec.id.root(self.attempt)
    }
}

impl Simulation {
    pub(super) fn run_task(
        &mut self,
        (worker, executor): (WorkerId, ExecutorId),
        spec: Arc<TaskSpec>,
        attempt: u32,
        given: Given,
    ) -> Option<At> {
        let program = self.program_of(&spec, attempt);
        let mut read = word(&spec, 0);
        for dependency in &spec.dependencies {
            let value = self.given_value(worker, &spec, dependency.object);
            if self.oracle.get(dependency.object).is_some() {
                read = mix(read, value);
            }
        }
        self.next_run += 1;
        let at = At { worker, executor, run: self.next_run };
        for reference in &spec.borrowed {
            self.hold(at, *reference, true);
        }
        let actor = match spec.kind {
            TaskKind::ActorCall { actor, .. } => Some(actor),
            _ => None,
        };
        let actors = self.handles.get(&spec.id).copied().into_iter().collect();
        let process = self.process(worker, executor)?;
        process.runs.insert(at.run, Run::new(spec, attempt, given, program, actors, read));
        match actor {
            None => self.step_soon(at, 0),
            Some(actor) => self.call_comes(at, actor),
        }
        Some(at)
    }

    /// What a try of a task does.
    fn program_of(&self, spec: &TaskSpec, attempt: u32) -> Program {
        match &spec.kind {
            TaskKind::Driver => driver_program(word(spec, 0), self.mix_of(spec.id.job())),
            TaskKind::Plain if spec.stream().is_some() && spec.body[12] == ENDLESS => {
                stream_program(word(spec, 0), spec.body[10].into(), true)
            }
            TaskKind::Plain if attempt < u32::from(spec.body[12]) => {
                Program { ops: vec![Op::Compute(FOR_EVER)], returns: Vec::new() }
            }
            TaskKind::Plain if spec.stream().is_some() => {
                stream_program(word(spec, 0), spec.body[10].into(), false)
            }
            TaskKind::Plain => {
                let more = (spec.body[14], spec.body[15] == 1);
                task_program(word(spec, 0), spec.body[8], spec.borrowed.len(), more)
            }
            TaskKind::ActorCreate(_) | TaskKind::ActorCall { .. } => {
                let mut ops = vec![Op::Compute(mix(word(spec, 0), 5) % 200_000)];
                ops.extend((0..spec.borrowed.len()).map(Op::Get));
                Program { ops, returns: Vec::new() }
            }
            TaskKind::GroupCreate(_) | TaskKind::Bundle { .. } => {
                panic!("{:?} runs, and has no code", spec.id)
            }
        }
    }
}

/// A number in a task's body.
pub(super) fn word(spec: &TaskSpec, at: usize) -> u64 {
    let bytes = spec.body.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    u64::from_le_bytes(bytes.expect("a body of this simulation"))
}
