//! The program of the end-to-end tests about direct calls of actors: what it does is its argument.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use rdist::prelude::*;
use rdist::scheduler::outcome::{Cause, Death};

/// Calls before which the way to an actor is settled.
const WARM_UP: u64 = 20;

/// Writes down what it is told.
struct Notes {
    numbers: Vec<u64>,
}

#[rdist::actor]
impl Notes {
    fn new() -> Self {
        Self { numbers: Vec::new() }
    }

    fn add(&mut self, number: u64) -> u64 {
        self.numbers.push(number);
        number
    }

    fn all(&mut self) -> Vec<u64> {
        self.numbers.clone()
    }

    fn large(&mut self, len: u64) -> Vec<u64> {
        (0..len).collect()
    }

    fn inside(&mut self, cx: &Context, number: u64) -> Result<Vec<ObjectRef<u64>>> {
        Ok(vec![cx.put(&number)?, cx.put(&(number + 1))?])
    }

    fn fail(&mut self) -> Result<u64> {
        Err(Error::Refused("on purpose".to_owned()))
    }

    /// Calls itself through another actor's process.
    fn relay(&mut self, to: ActorHandle<Notes>, number: u64) -> Result<u64> {
        to.add(number).call().get()
    }

    fn die(&mut self) {
        // Safety: a signal to this very process.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }

    fn dawdle(&mut self, cx: &Context) -> Result<()> {
        while !cx.is_cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(Error::Cancelled)
    }
}

/// Lets calls through when it is opened.
struct Gate {
    open: std::sync::atomic::AtomicBool,
}

#[rdist::actor(max_concurrency = 8)]
impl Gate {
    fn new() -> Self {
        Self { open: false.into() }
    }

    fn pass(&self, number: u64) -> u64 {
        while number > 0 && !self.open.load(std::sync::atomic::Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        number
    }

    fn open(&self) {
        self.open.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

#[rdist::task]
fn later(number: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(30));
    number
}

#[rdist::task]
fn sum(numbers: Vec<ObjectRef<u64>>, more: u64) -> Result<u64> {
    numbers.iter().map(ObjectRef::get).try_fold(more, |so_far, number| Ok(so_far + number?))
}

#[rdist::task]
fn adds(notes: ActorHandle<Notes>, from: u64, count: u64) -> Result<()> {
    (from..from + count).try_for_each(|number| notes.add(number).send())
}

/// A result that is passed on before it is there, by a task that ends.
#[rdist::task]
fn passes(gate: ActorHandle<Gate>, number: u64) -> Result<Vec<ObjectRef<u64>>> {
    for _ in 0..WARM_UP {
        gate.pass(0).call().get()?;
    }
    Ok(vec![gate.pass(number).submit()])
}

fn notes(cx: &Context, own: bool) -> Result<ActorHandle<Notes>> {
    let notes = if own {
        Notes::with().own_process().cpus(0.0).spawn(cx).get()?
    } else {
        Notes::with().cpus(0.0).spawn(cx).get()?
    };
    for _ in 0..WARM_UP {
        notes.add(0).call().get()?;
    }
    Ok(notes)
}

fn after_warm_up(numbers: &[u64]) -> &[u64] {
    &numbers[WARM_UP as usize..]
}

/// Calls of all kinds, one after the other.
fn order(cx: &Driver) -> Result<()> {
    for own in [true, false] {
        let notes = notes(cx, own)?;
        let mut number = 0;
        let mut next = || {
            number += 1;
            number
        };
        for _ in 0..20 {
            for _ in 0..30 {
                notes.add(next()).send()?;
            }
            notes.add(later.submit(cx, next())).send()?;
            for _ in 0..30 {
                notes.add(next()).send()?;
            }
            assert_eq!(notes.add(next()).call().get()?, number_of(&notes)?);
        }
        let all = notes.all().call().get()?;
        assert_eq!(after_warm_up(&all), (1..=all.len() as u64 - WARM_UP).collect::<Vec<_>>());
        // What a task has sent is there when the task has ended.
        for round in 0..50 {
            let before = notes.all().call().get()?.len();
            adds.submit(cx, &notes, round * 10, 10).get()?;
            assert_eq!(notes.all().call().get()?.len(), before + 10, "round {round}");
        }
    }
    println!("in order");
    Ok(())
}

fn number_of(notes: &ActorHandle<Notes>) -> Result<u64> {
    Ok(*notes.all().call().get()?.last().unwrap())
}

/// References to results go everywhere, before and after the results are there.
fn passed(cx: &Driver) -> Result<()> {
    let (notes, other) = (notes(cx, true)?, notes(cx, false)?);
    let gate = Gate::with().own_process().cpus(0.0).spawn(cx).get()?;
    for _ in 0..WARM_UP {
        gate.pass(0).call().get()?;
    }
    let there = notes.add(5).submit();
    there.get()?;
    let pending: Vec<_> = (1..=3).map(|number| gate.pass(number).submit()).collect();
    let refs = vec![there.clone(), pending[0].clone()];
    let total = sum.submit(cx, &refs, &pending[1]);
    let kept = cx.put(&refs)?;
    let noted = other.add(&pending[2]).submit();
    let through = passes.submit(cx, &gate, 7);
    let (ready, rest) = cx.wait(vec![there.clone(), pending[0].clone()], 1, None)?;
    assert_eq!((ready, rest), (vec![there.clone()], vec![pending[0].clone()]));
    gate.open().call().get()?;
    assert_eq!(total.get()?, 5 + 1 + 2);
    assert_eq!(noted.get()?, 3);
    assert_eq!(kept.get()?[1].get()?, 1);
    assert_eq!(through.get()?[0].get()?, 7);
    drop(pending);
    // Errors are passed on, and values that go by the worker.
    let failed = notes.fail().submit();
    let error = other.add(&failed).call().get().unwrap_err().to_string();
    assert!(error.contains("on purpose"), "{error}");
    let error = other.add(&failed).call().get().unwrap_err().to_string();
    assert!(error.contains("on purpose"), "{error}");
    for round in 0..20 {
        let large = notes.large(20_000).submit();
        notes.add(round).send()?;
        assert_eq!(large.get()?.len(), 20_000);
        let inside = notes.inside(round).call().get()?;
        assert_eq!(sum.submit(cx, &inside, 0).get()?, 2 * round + 1);
    }
    for number in 0..100 {
        assert_eq!(other.relay(&notes, number).call().get()?, number);
        assert_eq!(notes.relay(&other, number).call().get()?, number);
    }
    println!("passed on");
    Ok(())
}

/// Processes that die under direct calls, and actors that are ended.
fn ends(cx: &Driver) -> Result<()> {
    let is_dead = |error: Error| match error {
        Error::Task(error) => matches!(error.cause, Cause::ActorDied(_)),
        _ => false,
    };
    // Lost calls fail, or are made again.
    let notes = Notes::with().own_process().cpus(0.0).max_restarts(100).spawn(cx).get()?;
    for round in 0..10 {
        for _ in 0..WARM_UP {
            notes.add(0).call().get()?;
        }
        let before: Vec<_> = (0..100).map(|number| notes.add(number).submit()).collect();
        notes.die().send()?;
        let lost: Vec<_> = (0..100).map(|number| notes.add(number).submit()).collect();
        let again: Vec<_> =
            (0..100).map(|number| notes.add(1_000 + number).retries(3).submit()).collect();
        let passed_on = notes.add(round).retries(3).submit();
        let total = sum.submit(cx, vec![passed_on], 1);
        for call in before {
            // Its answer may have been on its way.
            assert!(call.get().map_or_else(is_dead, |_| true));
        }
        for call in lost {
            assert!(call.get().map_or_else(is_dead, |_| true), "round {round}");
        }
        for (number, call) in (1_000..).zip(again) {
            assert_eq!(call.get()?, number, "round {round}");
        }
        assert_eq!(total.get()?, round + 1);
        let all = notes.all().call().get()?;
        let again: Vec<_> = all.into_iter().filter(|number| *number >= 1_000).collect();
        assert_eq!(again, (1_000..1_100).collect::<Vec<_>>(), "round {round}");
    }
    for own in [true, false] {
        let notes = self::notes(cx, own)?;
        let running = notes.dawdle().submit();
        let waiting: Vec<_> = (0..50).map(|number| notes.add(number).submit()).collect();
        notes.kill()?;
        for error in waiting.iter().map(|call| call.get().unwrap_err()) {
            assert!(
                matches!(&error, Error::Task(error)
                if error.cause == Cause::ActorDied(Death::Ended)),
                "{error}"
            );
        }
        assert!(is_dead(running.get().unwrap_err()));
        assert!(is_dead(notes.add(1).call().get().unwrap_err()));
    }
    // A call is cancelled, and the actor goes on.
    let notes = self::notes(cx, true)?;
    let running = notes.dawdle().submit();
    let waiting = notes.add(9).submit();
    cx.cancel(&running, false);
    assert!(running.get().is_err());
    assert_eq!(waiting.get()?, 9);
    // The calls before its end count.
    (0..100).try_for_each(|number| notes.add(number).send())?;
    let last = notes.all().submit();
    notes.terminate().get()?;
    assert_eq!(last.get()?.len() as u64, WARM_UP + 1 + 100);
    println!("ended");
    Ok(())
}

#[rdist::main]
async fn main(cx: Driver) -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["order"] => order(&cx),
        ["passed"] => passed(&cx),
        ["ends"] => ends(&cx),
        other => Err(Error::Refused(format!("unknown arguments {other:?}"))),
    }
}
