//! Tasks that are cancelled: before they start, while they run, or when they have ended.

use rdist_scheduler::message::CancelMode;

use super::trouble::ENDLESS;
use super::{Child, Op, Placing, Slot, Trouble, Writer};

impl Writer {
    /// Some tasks of each kind, of which some are cancelled, soon or later, once or twice.
    pub(super) fn cancels(&mut self, count: u64) {
        let first = self.slots;
        let mut last = None;
        for _ in 0..1 + count / 2 {
            let (depth, dependencies) = match self.rng.below(6) {
                0 => (1 + self.rng.below(2) as u8, Vec::new()),
                1 => (0, last.into_iter().collect()),
                _ => (0, Vec::new()),
            };
            let hangs = if depth == 0 && self.rng.one_in(2) { ENDLESS } else { 0 };
            last = Some(self.cancellable(depth, hangs, dependencies, Vec::new()));
            if hangs > 0 || self.rng.one_in(3) {
                self.soon();
                self.cancel(self.slots - 1);
            }
        }
        if self.rng.one_in(3) {
            // Somebody else cancels it, and then this one too.
            let endless = self.cancellable(0, ENDLESS, Vec::new(), Vec::new());
            self.cancellable(0, 0, Vec::new(), vec![endless]);
            self.soon();
            self.cancel(endless);
        }
        if self.rng.one_in(3) {
            self.kill();
        }
        if self.what.leases {
            // Where one has just ended, the next one may go by a lease.
            for _ in 0..1 + count / 4 {
                let short = self.short();
                self.ops.push(Op::Get(short));
                let hangs = if self.rng.one_in(3) { 0 } else { ENDLESS };
                let leased = self.alone(hangs);
                self.soon();
                self.cancel(leased);
            }
        }
        self.ops.extend((first..self.slots).map(Op::Get));
    }

    fn soon(&mut self) {
        let most = if self.rng.one_in(2) { 100_000 } else { 10_000_000 };
        if self.rng.one_in(2) {
            let time = self.rng.below(most);
            self.ops.push(Op::Compute(time));
        }
    }

    fn cancel(&mut self, slot: Slot) {
        let force = self.what.forces && self.rng.one_in(6);
        let mode = CancelMode { force, children: !self.rng.one_in(3) };
        self.ops.push(Op::Cancel(slot, mode));
        if self.rng.one_in(6) {
            self.soon();
            self.ops.push(Op::Cancel(slot, mode));
        }
    }

    /// An actor ends for good, with what it has been called and what it will be.
    fn kill(&mut self) {
        self.actor();
        let actor = self.actors - 1;
        let calls = 1 + self.rng.below(12);
        let end = self.rng.below(calls);
        for n in 0..calls {
            let result = self.call(actor, Vec::new());
            if self.rng.one_in(4) {
                self.ops.push(Op::Get(result));
            }
            if self.rng.one_in(8) {
                self.cancel(result);
            }
            if n == end {
                self.soon();
                self.ops.push(Op::Kill(actor));
            }
        }
        self.ended.push(actor);
    }

    /// A task that may go by a lease.
    fn alone(&mut self, hangs: u8) -> Slot {
        let slot = self.cancellable(0, hangs, Vec::new(), Vec::new());
        if let Some(Op::Submit(child)) = self.ops.last_mut() {
            (child.cpus, child.place) = (1.0, Placing::Default);
        }
        slot
    }

    fn cancellable(
        &mut self,
        depth: u8,
        hangs: u8,
        dependencies: Vec<Slot>,
        borrowed: Vec<Slot>,
    ) -> Slot {
        let cancels = !borrowed.is_empty();
        self.ops.push(Op::Submit(Child {
            seed: self.rng.next(),
            depth,
            dependencies,
            borrowed,
            cpus: [1.0, 1.0, 1.0, 0.5][self.rng.below(4) as usize],
            place: if self.rng.one_in(4) { Placing::Spread } else { Placing::Default },
            inline: self.rng.one_in(2),
            priority: 0,
            items: 0,
            trouble: Trouble { hangs, ..Trouble::default() },
            calls: None,
            cancels,
            returns: 1,
        }));
        self.slots += 1;
        self.slots - 1
    }
}
