//! Programs: what drivers, tasks and actors do, and what their results must be.
//!
//! A program follows from its seed and depth alone, so that a task that runs again does the same,
//! and so that an oracle, which runs nothing, knows every value. A value is a hash of the seed and
//! of all that the task read.

mod actors;
mod cancels;
mod groups;
mod mix;
mod named;
mod one_by_one;
mod oracle;
mod several;
mod streams;
mod trouble;

use rdist_scheduler::id::{ObjectId, TaskId};
use rdist_scheduler::message::CancelMode;
use rdist_scheduler::spec::GroupStrategy;

use super::network::Rng;

use actors::call_actor;
pub use mix::Mix;
pub use named::Name;
pub use oracle::{Oracle, nth};
use streams::stream;
pub use streams::{Ending, FOR_EVER, stream_program};
pub use trouble::{ENDLESS, Trouble};

/// Where a program keeps its references: those in its arguments first, then its own in order.
pub type Slot = usize;

#[derive(Debug, Clone)]
pub enum Op {
    /// Takes time.
    Compute(u64),
    Submit(Child),
    /// Makes a value with these references inside.
    Put {
        seed: u64,
        inline: bool,
        contains: Vec<Slot>,
    },
    /// Waits for a value, and reads it and those that it refers to.
    Get(Slot),
    Drop(Slot),
    /// Submits a task that yields, takes so many of its values, and drops the stream; one more
    /// than there are is its end. `keep`: each taken one takes a slot.
    Stream {
        child: Child,
        take: u32,
        keep: bool,
        ending: Ending,
    },
    /// Yields a value with these references inside.
    Yield {
        seed: u64,
        inline: bool,
        contains: Vec<Slot>,
    },
    /// Makes an actor; it takes no slot.
    Spawn {
        own_process: bool,
        cpus: f64,
        named: bool,
        place: Placing,
    },
    /// Reserves a placement group, of these CPUs for each bundle.
    Reserve {
        bundles: Vec<f64>,
        strategy: GroupStrategy,
    },
    /// Gives the n-th group of this program back.
    Return(usize),
    /// Wants the task ended that makes a value.
    Cancel(Slot, CancelMode),
    /// Ends the n-th actor of this program.
    Kill(usize),
    /// Calls the n-th actor of this program. What is borrowed the call waits for while it runs.
    Call {
        actor: usize,
        dependencies: Vec<Slot>,
        borrowed: Vec<Slot>,
    },
    /// Makes an actor with that name, or finds out who has it.
    Claim {
        name: Name,
        or_get: bool,
    },
    LookUp(Name),
    /// Calls, or ends, the n-th that was claimed or looked up.
    CallNamed(usize),
    KillNamed(usize),
    /// Asks for a detached actor, which is a job of its own.
    Detach,
    /// Looks up some detached actor, of whomever.
    Find(u64),
    /// Ends the n-th that was looked up, whoever has made it.
    KillFound(usize),
    /// Calls the n-th that was claimed, which answers never.
    Watch(usize),
    /// Has the n-th end itself when it has done what it was called for before.
    Terminate(usize),
}

#[derive(Debug, Clone, Default)]
pub struct Child {
    pub seed: u64,
    pub depth: u8,
    pub dependencies: Vec<Slot>,
    pub borrowed: Vec<Slot>,
    pub cpus: f64,
    pub place: Placing,
    pub inline: bool,
    pub priority: i32,
    /// What it yields; 0: it returns a value.
    pub items: u32,
    pub trouble: Trouble,
    /// It calls the n-th actor of its parent, so often.
    pub calls: Option<(usize, u8)>,
    /// It has the tasks ended that make what it borrows, instead of reading that.
    pub cancels: bool,
    /// How many values it returns.
    pub returns: u8,
}

impl Child {
    /// What the task has to know of itself.
    pub fn body(&self) -> Vec<u8> {
        let Trouble { fails, hangs, stubborn } = self.trouble;
        let mut body = self.seed.to_le_bytes().to_vec();
        body.extend([self.depth, u8::from(self.inline), self.items as u8]);
        let calls = self.calls.map_or(0, |(_, times)| times);
        body.extend([fails, hangs, u8::from(stubborn), calls, u8::from(self.cancels)]);
        body.push(self.returns);
        body
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Placing {
    #[default]
    Default,
    Spread,
    /// To the n-th member that lives, softly.
    Near(u64),
    /// To the n-th member that lives, and to no other.
    Only(u64),
    /// Where there is the label that the n-th member has.
    Labelled(u64),
    /// Into the n-th group of this program, in that bundle or any.
    Group(usize, Option<u32>),
}

/// A program and the references that its value contains.
#[derive(Debug, Clone, Default)]
pub struct Program {
    pub ops: Vec<Op>,
    pub returns: Vec<Slot>,
}

/// The function whose runs are short, but for a few.
const SHORT: u64 = 1;

impl Op {
    /// Whether it submits something.
    pub fn submits(&self) -> bool {
        matches!(
            self,
            Self::Submit(_)
                | Self::Stream { .. }
                | Self::Spawn { .. }
                | Self::Reserve { .. }
                | Self::Call { .. }
                | Self::Cancel(..)
                | Self::Kill(_)
                | Self::Claim { .. }
                | Self::LookUp(_)
                | Self::CallNamed(_)
                | Self::KillNamed(_)
                | Self::KillFound(_)
                | Self::Watch(_)
                | Self::Terminate(_)
                | Self::Find(_)
        )
    }
}

pub fn is_short(function: u64) -> bool {
    function == SHORT
}

/// Which function a task runs.
pub fn function_of(seed: u64) -> u64 {
    seed >> 7 & 1
}

/// The object that a task puts; some are kept in several copies.
pub fn put_id(task: TaskId, index: u32, seed: u64, inline: bool) -> ObjectId {
    match !inline && seed.is_multiple_of(3) {
        true => task.put_replicated(index),
        false => task.put(index),
    }
}

/// A task's own program: borrowed references are its first slots. `calls`: so often it calls an
/// actor; `cancels`: it has what it borrows ended.
pub fn task_program(
    seed: u64,
    depth: u8,
    borrowed: usize,
    (calls, cancels): (u8, bool),
) -> Program {
    let mut rng = Rng(seed);
    let mut program = Program::default();
    program.ops.push(Op::Compute(match function_of(seed) {
        SHORT if rng.one_in(60) => 20_000_000,
        SHORT => rng.below(40_000),
        _ => rng.below(3_000_000),
    }));
    let mode = CancelMode { force: false, children: true };
    let takes = |slot| if cancels { Op::Cancel(slot, mode) } else { Op::Get(slot) };
    program.ops.extend((0..borrowed).map(takes));
    let mut slots = borrowed;
    if depth > 0 {
        let children = 1 + rng.below(3);
        for _ in 0..children {
            let borrowed = if borrowed > 0 && rng.one_in(2) { vec![0] } else { Vec::new() };
            program.ops.push(Op::Submit(Child {
                seed: rng.next(),
                depth: depth - 1,
                dependencies: if slots > 0 && rng.one_in(3) { vec![slots - 1] } else { Vec::new() },
                borrowed,
                cpus: [0.5, 1.0][rng.below(2) as usize],
                place: if rng.one_in(5) { Placing::Spread } else { Placing::Default },
                inline: rng.one_in(2),
                returns: 1,
                ..Child::default()
            }));
            slots += 1;
        }
        if rng.one_in(4) {
            let (op, kept) = stream(&mut rng, Trouble::default());
            program.ops.push(op);
            program.ops.extend((slots..slots + kept).map(Op::Get));
            slots += kept;
        }
        program.ops.extend((borrowed..borrowed + children as usize).map(Op::Get));
        program.ops.push(Op::Compute(rng.below(1_000_000)));
    }
    if rng.one_in(4) {
        program.ops.push(Op::Put { seed: rng.next(), inline: rng.one_in(2), contains: Vec::new() });
        program.returns.push(slots);
        slots += 1;
    }
    if calls > 0 {
        call_actor(&mut rng, &mut program, slots, calls.into());
    }
    program
}

/// A driver's program: rounds of the shapes that real jobs have.
pub fn driver_program(seed: u64, what: Mix) -> Program {
    if what.detached {
        return named::detached_program();
    }
    let mut driver = Writer {
        rng: Rng(seed),
        ops: Vec::new(),
        slots: 0,
        actors: 0,
        ended: Vec::new(),
        groups: 0,
        named: 0,
        what,
    };
    let mut more: Vec<Shape> = Vec::new();
    more.resize(if what.leases { 6 } else { 0 }, Writer::one_by_one);
    more.resize(more.len() + if what.routes { 4 } else { 0 }, Writer::bursts);
    more.resize(more.len() + if what.cancels { 4 } else { 0 }, Writer::cancels);
    more.resize(more.len() + if what.several { 4 } else { 0 }, Writer::several);
    more.resize(more.len() + if what.names { 4 } else { 0 }, Writer::named);
    more.resize(more.len() + if what.lets_go { 2 } else { 0 }, Writer::cut_short);
    more.resize(more.len() + if what.waits { 2 } else { 0 }, Writer::waiting);
    let mut left = what.tasks;
    while left > 0 {
        let count = (1 + driver.rng.below(20)).min(left);
        left -= count;
        match driver.rng.below(if what.plain { 1 } else { 10 + more.len() as u64 }) {
            0 | 1 => driver.independent(count),
            2 => driver.chain(count),
            3 => driver.fan(count),
            4 => driver.nested(count),
            5 => driver.actors(count),
            6 | 7 => driver.group(count),
            8 => driver.streams(count),
            9 => driver.references(count),
            n => more[n as usize - 10](&mut driver, count),
        }
        if driver.rng.one_in(3) {
            let time = driver.rng.below(5_000_000);
            driver.ops.push(Op::Compute(time));
        }
    }
    // What is left open is read in the end.
    let open = driver.open();
    driver.ops.extend(open.into_iter().flat_map(|slot| [Op::Get(slot), Op::Drop(slot)]));
    Program { ops: driver.ops, returns: Vec::new() }
}

/// Writes work of so many tasks.
type Shape = fn(&mut Writer, u64);

struct Writer {
    rng: Rng,
    ops: Vec<Op>,
    slots: Slot,
    actors: usize,
    /// Actors that went with their group.
    ended: Vec<usize>,
    groups: usize,
    /// Those that were claimed or looked up.
    named: usize,
    what: Mix,
}

impl Writer {
    fn child(&mut self, depth: u8, dependencies: Vec<Slot>, borrowed: Vec<Slot>) -> Slot {
        let place = match self.rng.below(if self.what.plain { 1 } else { 9 }) {
            6 => Placing::Spread,
            7 => Placing::Near(self.rng.next()),
            8 => Placing::Only(self.rng.next()),
            _ => Placing::Default,
        };
        // What waits for others must not be short of time.
        let may_hang = depth == 0 && borrowed.is_empty();
        let trouble = Trouble::some(&mut self.rng, self.what, may_hang);
        self.ops.push(Op::Submit(Child {
            seed: self.rng.next(),
            depth,
            dependencies,
            borrowed,
            cpus: [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 2.0][self.rng.below(8) as usize],
            place,
            inline: self.rng.one_in(2),
            priority: if self.rng.one_in(8) { 1 } else { 0 },
            items: 0,
            trouble,
            calls: None,
            cancels: false,
            returns: 1,
        }));
        self.slots += 1;
        self.slots - 1
    }

    /// Slots that were never read or dropped.
    fn open(&self) -> Vec<Slot> {
        let mut open: Vec<bool> = vec![true; self.slots];
        for op in &self.ops {
            if let Op::Get(slot) | Op::Drop(slot) = op {
                open[*slot] = false;
            }
        }
        (0..self.slots).filter(|slot| open[*slot]).collect()
    }

    fn independent(&mut self, count: u64) {
        let first = self.slots;
        for _ in 0..count {
            self.child(0, Vec::new(), Vec::new());
        }
        if self.rng.one_in(2) {
            // Some results nobody wants.
            let drop = self.rng.below(count) as Slot;
            self.ops.push(Op::Drop(first + drop));
        }
    }

    fn chain(&mut self, count: u64) {
        let mut last = self.child(0, Vec::new(), Vec::new());
        for _ in 1..count {
            let next = self.child(0, vec![last], Vec::new());
            self.ops.push(Op::Drop(last));
            last = next;
        }
        self.ops.push(Op::Get(last));
    }

    fn fan(&mut self, count: u64) {
        let source = self.child(0, Vec::new(), Vec::new());
        let middle: Vec<Slot> =
            (1..count).map(|_| self.child(0, vec![source], Vec::new())).collect();
        let sink = self.child(0, middle, Vec::new());
        self.ops.push(Op::Get(sink));
    }

    fn nested(&mut self, count: u64) {
        let depth = 1 + self.rng.below(2) as u8;
        for _ in 0..1 + count / 4 {
            self.child(depth, Vec::new(), Vec::new());
        }
    }

    fn references(&mut self, count: u64) {
        let inner = self.put(Vec::new());
        let outer = self.put(vec![inner]);
        self.ops.push(Op::Drop(inner));
        for n in 0..count {
            let depth = (n % 2) as u8;
            match self.rng.below(3) {
                0 => self.child(depth, vec![outer], Vec::new()),
                1 => self.child(depth, Vec::new(), vec![outer]),
                _ => {
                    let source = self.child(0, Vec::new(), Vec::new());
                    self.child(depth, Vec::new(), vec![source, outer])
                }
            };
        }
        self.ops.push(Op::Drop(outer));
    }

    fn put(&mut self, contains: Vec<Slot>) -> Slot {
        let (seed, inline) = (self.rng.next(), self.rng.one_in(2));
        self.ops.push(Op::Put { seed, inline, contains });
        self.slots += 1;
        self.slots - 1
    }
}
