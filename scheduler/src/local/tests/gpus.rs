//! GPUs by number: what asks for some has a process to itself, which sees those alone.

use super::bench::*;
use crate::id::{ActorId, ExecutorId};
use crate::local::{ExecutorRole, LocalAction, LocalEvent};
use crate::outcome::{Death, Outcome};
use crate::resource::{Amount, Resources};
use crate::spec::ActorOptions;

impl Bench {
    fn with_gpus(gpus: u64) -> (Self, ExecutorId) {
        let mut total = Resources::cpus(4.0);
        total.gpu = Amount::whole(gpus);
        Self::with_driver_and(total)
    }

    #[track_caller]
    fn claim_start_with(&mut self, wanted: ExecutorRole, numbers: &[u32]) -> ExecutorId {
        match self.claim() {
            LocalAction::StartExecutor { executor, role, gpus, .. } if role == wanted => {
                assert_eq!(gpus, numbers);
                executor
            }
            other => panic!("not the start of a {wanted:?}: {other:?}"),
        }
    }

    /// An actor with one GPU is made, and sees that one.
    #[track_caller]
    fn make_actor(&mut self, driver: ExecutorId, index: u64, gpu: u32) -> ExecutorId {
        // It did not ask for a process of its own.
        let options = ActorOptions::default();
        self.submit(driver, TaskBuilder::new(index).cpus(0.0).gpus(1).actor(options));
        let role = ExecutorRole::Actor(ActorId(task(index)));
        let executor = self.claim_start_with(role, &[gpu]);
        self.handle(LocalEvent::ExecutorStarted { executor });
        self.claim_run(executor);
        self.finish(executor, index, inline());
        executor
    }
}

#[test]
fn actors_see_a_gpu_each_until_they_end() {
    let (mut bench, driver) = Bench::with_gpus(2);
    let first = bench.make_actor(driver, 1, 0);
    bench.make_actor(driver, 2, 1);
    let actor = ActorId(task(1));
    bench.handle(LocalEvent::ActorKillRequested { actor, owner: ME });
    bench.claim_exactly(LocalAction::StopExecutor { executor: first, force: true });
    bench.make_actor(driver, 3, 0);
    bench.handle(LocalEvent::ExecutorDied { executor: first, death: killed() });
}

#[test]
fn a_task_with_gpus_has_a_process_that_ends_with_it() {
    let (mut bench, driver) = Bench::with_gpus(2);
    for index in 1..3 {
        bench.submit(driver, TaskBuilder::new(index).gpus(2));
        let alone = bench.claim_start_with(ExecutorRole::Alone, &[0, 1]);
        bench.handle(LocalEvent::ExecutorStarted { executor: alone });
        bench.claim_run(alone);
        bench.finish(alone, index, inline());
        bench.claim_exactly(LocalAction::StopExecutor { executor: alone, force: false });
        bench.handle(LocalEvent::ExecutorDied { executor: alone, death: Death::Ended });
    }
    // What all tasks of the job share sees none.
    bench.submit(driver, TaskBuilder::new(3));
    bench.claim_start_with(ExecutorRole::Pool, &[]);
}

#[test]
fn a_process_that_dies_or_never_starts_gives_its_gpu_back() {
    let (mut bench, driver) = Bench::with_gpus(1);
    bench.submit(driver, TaskBuilder::new(1).gpus(1).retries(1));
    let mut alone = bench.claim_start_with(ExecutorRole::Alone, &[0]);
    bench.handle(LocalEvent::ExecutorDied { executor: alone, death: killed() });
    alone = bench.claim_start_with(ExecutorRole::Alone, &[0]);
    bench.handle(LocalEvent::ExecutorStarted { executor: alone });
    bench.claim_run(alone);
    bench.handle(LocalEvent::ExecutorDied { executor: alone, death: killed() });
    alone = bench.claim_start_with(ExecutorRole::Alone, &[0]);
    bench.handle(LocalEvent::ExecutorStarted { executor: alone });
    bench.claim_run(alone);
    bench.finish_attempt(alone, 1, 1, Outcome::Failed(panicked(1)));
    bench.claim_exactly(LocalAction::StopExecutor { executor: alone, force: false });
}
