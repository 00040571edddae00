//! Placement groups, and what runs in them.

use rdist_scheduler::spec::GroupStrategy;

use super::{Child, Op, Placing, Slot, Writer};

impl Writer {
    /// A group, work in it that waits for nothing outside of it, and its end. Together with what
    /// actors hold, the groups of three jobs leave no job without a way to go on: who has a group
    /// waits for nobody, and the largest group fits on the smallest worker.
    pub(super) fn group(&mut self, count: u64) {
        let mut bundles = Vec::new();
        for _ in 0..1 + self.rng.below(4) {
            let cpus = [0.5, 1.0][self.rng.below(2) as usize];
            if bundles.iter().sum::<f64>() + cpus <= 2.0 {
                bundles.push(cpus);
            }
        }
        let mut strategies =
            vec![GroupStrategy::Pack, GroupStrategy::Spread, GroupStrategy::StrictPack];
        if self.what.strict_spread {
            strategies.push(GroupStrategy::StrictSpread);
        }
        let strategy = strategies[self.rng.below(strategies.len() as u64) as usize];
        if strategy == GroupStrategy::StrictSpread {
            bundles.truncate(2);
        }
        let sizes = bundles.clone();
        self.ops.push(Op::Reserve { bundles, strategy });
        let group = self.groups;
        let ready = self.slots;
        (self.groups, self.slots) = (self.groups + 1, self.slots + 1);
        if self.rng.one_in(2) {
            self.ops.push(Op::Get(ready));
        }
        let input = self.put(Vec::new());
        let first = self.slots;
        for _ in 0..count {
            let bundle = self.rng.below(sizes.len() as u64) as usize;
            let any = self.rng.one_in(3);
            let cpus = if any { 0.5 } else { sizes[bundle] };
            let place = Placing::Group(group, (!any).then_some(bundle as u32));
            self.placed(cpus, place, input);
        }
        self.ops.extend((first..self.slots).map(Op::Get));
        if self.rng.one_in(3) {
            // What it holds is in others' way; it gives it back with the group.
            let bundle = self.rng.below(sizes.len() as u64) as u32;
            let place = Placing::Group(group, Some(bundle));
            let own_process = self.rng.one_in(2);
            let cpus = [0.0, 0.5][self.rng.below(2) as usize];
            self.ops.push(Op::Spawn { own_process, cpus, named: false, place });
            let result = self.call(self.actors, vec![input]);
            self.ended.push(self.actors);
            self.ops.push(Op::Get(result));
            self.actors += 1;
        }
        if self.rng.one_in(4) {
            let early = self.rng.below(3_000_000);
            self.ops.push(Op::Compute(early));
        }
        self.ops.push(Op::Return(group));
    }

    fn placed(&mut self, cpus: f64, place: Placing, input: Slot) {
        self.ops.push(Op::Submit(Child {
            seed: self.rng.next(),
            depth: 0,
            dependencies: if self.rng.one_in(2) { vec![input] } else { Vec::new() },
            borrowed: if self.rng.one_in(3) { vec![input] } else { Vec::new() },
            cpus,
            place,
            inline: self.rng.one_in(2),
            returns: 1,
            ..Child::default()
        }));
        self.slots += 1;
    }
}
