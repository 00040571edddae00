//! Actors, and who calls them.

use super::{Child, Op, Placing, Program, Slot, Trouble, Writer};
use crate::network::Rng;

impl Writer {
    pub(super) fn actors(&mut self, count: u64) {
        self.actor();
        for _ in 0..count {
            let argument = self.rng.one_in(4).then(|| self.child(0, Vec::new(), Vec::new()));
            let actor = self.some_actor();
            let dependencies = argument.into_iter().collect();
            self.call(actor, dependencies);
        }
    }

    pub(super) fn actor(&mut self) {
        let own_process = self.rng.one_in(2);
        // Actors hold what they ask for as long as the job lasts: with three jobs, what is left
        // of the smallest worker must be enough for the largest task.
        let cpus = if self.actors == 0 && self.what.actors_hold {
            [0.0, 0.25, 0.5][self.rng.below(3) as usize]
        } else {
            0.0
        };
        let named = self.rng.one_in(3);
        let place = match self.what.scatters {
            true => Placing::Near(self.rng.next()),
            false => Placing::Default,
        };
        self.ops.push(Op::Spawn { own_process, cpus, named, place });
        self.actors += 1;
    }

    pub(super) fn call(&mut self, actor: usize, dependencies: Vec<Slot>) -> Slot {
        self.call_with(actor, dependencies, Vec::new())
    }

    fn call_with(&mut self, actor: usize, dependencies: Vec<Slot>, borrowed: Vec<Slot>) -> Slot {
        self.ops.push(Op::Call { actor, dependencies, borrowed });
        self.slots += 1;
        self.slots - 1
    }

    /// Calls whose arguments are still to come between others, and calls that wait while they run:
    /// for tasks, and for what has been called before, so that no two wait for each other.
    pub(super) fn waiting(&mut self, count: u64) {
        self.actor();
        if self.rng.one_in(2) {
            self.actor();
        }
        let first = self.slots;
        for _ in 0..1 + count / 2 {
            let actor = self.some_actor();
            let argument = match self.rng.below(5) {
                0 | 1 => self.child(0, Vec::new(), Vec::new()),
                2 => self.child(1, Vec::new(), Vec::new()),
                3 => {
                    let other = self.some_actor();
                    self.call(other, Vec::new())
                }
                _ => self.put(Vec::new()),
            };
            match self.rng.below(4) {
                0 => self.call_with(actor, Vec::new(), vec![argument]),
                1 => self.call_with(actor, vec![argument], vec![argument]),
                _ => self.call(actor, vec![argument]),
            };
            for _ in 0..self.rng.below(4) {
                self.call(actor, Vec::new());
            }
        }
        self.ops.extend((first..self.slots).map(Op::Get));
    }

    /// Bursts of calls of an actor that lives, from here and from tasks: what routes are for.
    pub(super) fn bursts(&mut self, count: u64) {
        if self.actors == 0 || self.ended.contains(&(self.actors - 1)) || self.rng.one_in(2) {
            self.actor();
        }
        let mut open = 0;
        for _ in 0..4 * count {
            let actor = self.some_actor();
            if open == 0 {
                open = 1 + self.rng.below(30);
                let first = self.call(actor, Vec::new());
                self.ops.push(Op::Get(first));
            }
            open -= 1;
            match self.rng.below(12) {
                0 => self.calling(actor),
                1 => {
                    let argument = self.child(0, Vec::new(), Vec::new());
                    self.call(actor, vec![argument]);
                }
                _ => {
                    let result = self.call(actor, Vec::new());
                    self.use_result(result);
                }
            }
        }
    }

    /// One that has not gone with its group.
    fn some_actor(&mut self) -> usize {
        let actor = self.rng.below(self.actors as u64) as usize;
        if self.ended.contains(&actor) { self.actors - 1 } else { actor }
    }

    /// A task that calls an actor.
    fn calling(&mut self, actor: usize) {
        let times = 1 + self.rng.below(20) as u8;
        self.ops.push(Op::Submit(Child {
            seed: self.rng.next(),
            depth: 0,
            dependencies: Vec::new(),
            borrowed: Vec::new(),
            cpus: 1.0,
            place: if self.rng.one_in(4) { Placing::Spread } else { Placing::Default },
            inline: self.rng.one_in(2),
            priority: 0,
            items: 0,
            trouble: Trouble::default(),
            calls: Some((actor, times)),
            cancels: false,
            returns: 1,
        }));
        self.slots += 1;
    }

    /// What a call returns is read, or passed on before that is there, or later.
    fn use_result(&mut self, result: Slot) {
        match self.rng.below(16) {
            0 => drop(self.child(0, vec![result], Vec::new())),
            1 => drop(self.child(0, Vec::new(), vec![result])),
            2 => drop(self.put(vec![result])),
            3 => self.ops.push(Op::Drop(result)),
            4 => {
                self.ops.push(Op::Get(result));
                self.child(0, vec![result], Vec::new());
            }
            5 | 6 => self.ops.push(Op::Get(result)),
            _ => {}
        }
    }
}

/// Calls the only actor that a task knows; what that returns is passed on, or read, or neither.
pub(super) fn call_actor(rng: &mut Rng, program: &mut Program, first: Slot, calls: usize) {
    program.ops.extend((0..calls).map(|_| {
        let (dependencies, borrowed) = (Vec::new(), Vec::new());
        Op::Call { actor: 0, dependencies, borrowed }
    }));
    let last = first + calls - 1;
    if rng.one_in(4) {
        program.ops.push(Op::Submit(Child {
            seed: rng.next(),
            depth: 0,
            dependencies: vec![last],
            borrowed: Vec::new(),
            cpus: 1.0,
            place: if rng.one_in(3) { Placing::Spread } else { Placing::Default },
            inline: true,
            returns: 1,
            ..Child::default()
        }));
        program.ops.push(Op::Get(last + 1));
    } else if rng.one_in(4) {
        program.ops.push(Op::Put { seed: rng.next(), inline: true, contains: vec![last] });
        program.returns.push(last + 1);
    }
    program.ops.extend((first..last).map(Op::Get));
}
