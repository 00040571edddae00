//! An actor: state that lives in one process, and is changed by calls, one after the other.

use rdist::prelude::*;

struct Counter {
    total: u64,
}

#[rdist::actor]
impl Counter {
    fn new(start: u64) -> Self {
        Self { total: start }
    }

    fn add(&mut self, by: u64) -> u64 {
        self.total += by;
        self.total
    }

    fn halve(&mut self) -> Result<u64, String> {
        if self.total % 2 == 1 {
            return Err(format!("{} is odd", self.total));
        }
        self.total /= 2;
        Ok(self.total)
    }
}

#[rdist::task]
fn square(x: u64) -> u64 {
    x * x
}

/// A handle is a value: tasks call the same actor.
#[rdist::task]
fn add_squares(counter: ActorHandle<Counter>, upto: u64) -> Result<()> {
    (0..upto).try_for_each(|x| counter.add(x * x).send())
}

#[rdist::main]
async fn main(cx: Driver) -> Result<()> {
    let counter = Counter::spawn(&cx, 0).await?;

    // An argument may be a result that is not there yet. `send` does not wait for the call.
    for x in 0..10 {
        counter.add(square.submit(&cx, x)).send()?;
    }
    println!("after ten squares: {}", counter.add(0).call().await?);

    add_squares.submit(&cx, &counter, 10).await?;
    println!("after ten more: {}", counter.add(0).call().await?);

    // An error goes to its caller, and the actor lives on.
    counter.add(1).send()?;
    match counter.halve().call().await {
        Ok(half) => println!("half of it: {half}"),
        Err(error) => println!("no half of it: {error}"),
    }
    println!("at the end: {}", counter.add(0).call().await?);
    Ok(())
}
