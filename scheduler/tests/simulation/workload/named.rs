//! Actors that are found by name.

use rdist_scheduler::id::JobId;

use super::{Op, Program, Writer};

/// A name that several programs, or several tries of one, want for their actors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// No other job uses it.
    OfJob(u64),
    OfAll(u64),
}

impl Name {
    pub fn of(self, job: JobId) -> String {
        match self {
            Self::OfJob(n) => format!("{job}/{n}"),
            Self::OfAll(n) => format!("{n}"),
        }
    }
}

impl Writer {
    /// Claims a few names, some of them twice; calls whom it has made or found, and ends some.
    pub(super) fn named(&mut self, count: u64) {
        let mut known: Vec<(Name, usize)> = Vec::new();
        for _ in 0..2 + count / 2 {
            let n = self.rng.below(2);
            let name = if self.rng.one_in(2) { Name::OfJob(n) } else { Name::OfAll(n) };
            let was_claimed = known.iter().any(|(other, _)| *other == name);
            if was_claimed && self.rng.one_in(2) {
                self.ops.push(Op::LookUp(name));
            } else {
                self.ops.push(Op::Claim { name, or_get: self.rng.one_in(2) });
                self.ops.push(Op::Drop(self.slots));
                self.slots += 1;
            }
            known.push((name, self.named));
            self.named += 1;
            for _ in 0..1 + self.rng.below(4) {
                self.ops.push(Op::CallNamed(self.named - 1));
                self.ops.push(Op::Get(self.slots));
                self.slots += 1;
            }
            if self.rng.one_in(4) {
                self.terminate();
            }
            if self.rng.one_in(3) {
                let of_name = known.iter().filter(|(other, _)| *other == name);
                self.ops.extend(of_name.map(|(_, n)| Op::KillNamed(*n)));
            }
            if self.rng.one_in(4) {
                self.ops.push(Op::Detach);
            } else if self.rng.one_in(3) {
                self.find();
            }
        }
    }

    /// Calls the last one some more, which ends when it has answered.
    fn terminate(&mut self) {
        let first = self.slots;
        for _ in 0..self.rng.below(6) {
            self.ops.push(Op::CallNamed(self.named - 1));
            self.slots += 1;
        }
        self.ops.push(Op::Terminate(self.named - 1));
        self.ops.push(Op::CallNamed(self.named - 1));
        self.slots += 2;
        self.ops.extend((first..self.slots).map(Op::Get));
    }

    /// Calls a detached actor that somebody has made, if there is one, and may end it.
    fn find(&mut self) {
        self.ops.push(Op::Find(self.rng.next()));
        for _ in 0..1 + self.rng.below(4) {
            self.ops.push(Op::CallNamed(self.named));
            self.ops.push(Op::Get(self.slots));
            self.slots += 1;
        }
        if self.rng.one_in(3) {
            self.ops.push(Op::KillFound(self.named));
        }
        self.named += 1;
    }
}

/// The driver of a detached actor.
pub(super) fn detached_program() -> Program {
    let claim = Op::Claim { name: Name::OfJob(0), or_get: false };
    Program { ops: vec![claim, Op::Watch(0), Op::Get(1)], returns: Vec::new() }
}
