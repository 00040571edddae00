//! A sum over large arrays, pair by pair. No array is copied and none passes through the driver:
//! tasks read them in place in shared memory, and it handles references alone.

use rdist::prelude::*;

const ARRAYS: u32 = 16;
const LEN: u32 = 1 << 20;

#[rdist::task]
fn make(number: u32) -> Vec<f32> {
    (0..LEN).map(|x| (x % 1000 * number) as f32).collect()
}

/// A `View` reads an argument where it lies; a `Vec<f32>` here would copy it.
#[rdist::task]
fn add(a: View<Vec<f32>>, b: View<Vec<f32>>) -> Vec<f32> {
    a.iter().zip(b.iter()).map(|(a, b)| a.to_native() + b.to_native()).collect()
}

#[rdist::main]
async fn main(cx: Driver) -> Result<()> {
    let start = std::time::Instant::now();
    let mut level: Vec<ObjectRef<Vec<f32>>> =
        (0..ARRAYS).map(|number| make.submit(&cx, number)).collect();

    // The whole tree is submitted at once. Each task starts when both of its arguments are there,
    // and an array's memory is used again when the last reference to it is gone.
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| add.submit(&cx, &pair[0], &pair[1])).collect();
    }

    let total = level.remove(0).read()?;
    let mib = ARRAYS * (LEN >> 18);
    println!("summed {mib} MiB in {:.2?}; element 999 is {}", start.elapsed(), total[999]);
    Ok(())
}
