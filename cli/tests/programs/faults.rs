//! The program that the end-to-end tests submit: well-behaved or not, as its argument says.

#![allow(clippy::unwrap_used, missing_docs)]

use rdist::prelude::*;

#[rdist::task]
fn square(x: u64) -> u64 {
    x * x
}

#[rdist::task]
fn panics(x: u64) -> u64 {
    assert!(x > 1_000, "x is only {x}");
    x
}

#[rdist::task]
fn returns_an_error(x: u64) -> Result<u64, String> {
    Err(format!("cannot work with {x}"))
}

#[rdist::task]
fn exits(status: u64) -> u64 {
    std::process::exit(i32::try_from(status).unwrap())
}

/// Prints where it runs, and waits until the file is there.
#[rdist::task]
fn waits_for(file: String) -> u64 {
    println!("task-pid {}", std::process::id());
    while !std::path::Path::new(&file).exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    7
}

/// Prints its own id on both streams, again and again.
#[rdist::task]
fn prints(cx: &Context, times: u64) {
    for _ in 0..times {
        println!("I am {}", cx.task_id());
        eprintln!("I am {}", cx.task_id());
    }
}

/// Where shared memory of that name is mapped writable.
fn mapped(name: &str) -> std::ops::Range<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.contains(name) && line.contains(" rw-s ")).unwrap();
    let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
    let number = |text| usize::from_str_radix(text, 16).unwrap();
    number(from)..number(to)
}

/// Fills memory with noise, as a wild pointer does.
fn spoil(place: std::ops::Range<usize>, seed: u64) {
    let mut word = seed;
    for at in place.step_by(8) {
        word = (word ^ word >> 30).wrapping_add(0x9e37_79b9_7f4a_7c15).rotate_left(17);
        // SAFETY: the range is mapped, writable and aligned. That others read there meanwhile is
        // what this program is for: nobody else runs in this process but the library, whose
        // reads there are of atomics and bytes.
        unsafe { (at as *mut u64).write_volatile(word) };
    }
}

/// Writes noise where its worker reads what it says, until it is killed for that.
#[rdist::task]
fn spoils_its_ring(cx: &Context, what: String, seed: u64) -> Result<u64> {
    let both = mapped("rdist-rings");
    // The second ring leads to the worker: a page with the indices, then frames.
    let second = both.start + both.len() / 2;
    let place = if what == "tail" { second..second + 8 } else { second + 4096..both.end };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    std::thread::spawn(move || {
        for round in 0.. {
            spoil(place.clone(), seed + round);
        }
    });
    let mut said = 0;
    while std::time::Instant::now() < end {
        said += cx.put(&seed)?.get()?;
    }
    Ok(said)
}

/// Values of which nothing is left but noise.
#[rdist::task]
fn spoils_its_values(cx: &Context, seed: u64) -> Result<Vec<ObjectRef<Vec<String>>>> {
    let values: Vec<_> = (0..4)
        .map(|_| cx.put(&vec!["text that is long enough to lie apart".repeat(9); 100]))
        .collect::<Result<_>>()?;
    spoil(mapped("rdist-segment"), seed);
    Ok(values)
}

/// The text of a file in the folder where it runs, and that folder.
#[rdist::task]
fn reads(file: String) -> Result<(String, String), std::io::Error> {
    let folder = std::env::current_dir()?.display().to_string();
    Ok((std::fs::read_to_string(file)?, folder))
}

#[rdist::task]
fn gpu_only(x: u64) -> u64 {
    x
}

#[rdist::main]
async fn main(cx: Driver) -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["squares", n] => {
            let n: u64 = n.parse().unwrap();
            let squares: Vec<_> = (0..n).map(|x| square.submit(&cx, x)).collect();
            let mut sum = 0;
            for object in squares {
                sum += object.await?;
            }
            println!("sum {sum}");
        }
        ["print", tasks] => {
            let tasks: u64 = tasks.parse().unwrap();
            let all: Vec<_> = (0..tasks).map(|_| prints.submit(&cx, 200)).collect();
            cx.get_all(&all)?;
            println!("I am {}", cx.task_id());
        }
        ["panic"] => println!("{}", panics.submit(&cx, 3).await?),
        ["error"] => println!("{}", returns_an_error.submit(&cx, 4).await?),
        ["exit", status] => {
            let status: u64 = status.parse().unwrap();
            println!("{}", exits.with().retries(0).submit(&cx, status).await?);
        }
        ["driver-panic"] => panic!("the driver gives up"),
        ["driver-exit"] => std::process::exit(3),
        ["wait", file] => {
            println!("driver-pid {}", std::process::id());
            let value = waits_for.with().retries(3).submit(&cx, (*file).to_owned()).await?;
            println!("value {value}");
        }
        ["read", file, workers @ ..] => {
            for worker in workers {
                let placement = Placement::on(worker.parse().unwrap());
                let task = reads.with().strategy(placement);
                let (text, folder) = task.submit(&cx, (*file).to_owned()).await?;
                println!("{folder}: {}", text.trim());
            }
        }
        ["spoil", "values", times] => {
            for seed in 0..times.parse().unwrap() {
                // Whether one is noise or no value at all, reading it is safe.
                for value in spoils_its_values.submit(&cx, seed).await? {
                    match value.get() {
                        Ok(texts) => println!("{} texts", texts.len()),
                        Err(error) => println!("no value: {error}"),
                    }
                }
            }
        }
        ["spoil", what, times] => {
            for seed in 0..times.parse().unwrap() {
                let task = spoils_its_ring.with().retries(0);
                match task.submit(&cx, (*what).to_owned(), seed).await {
                    Ok(said) => println!("nobody minded: {said}"),
                    Err(error) => println!("{error}"),
                }
                assert_eq!(square.submit(&cx, 3).await?, 9);
            }
        }
        ["gpus", n] => {
            let n: f64 = n.parse().unwrap();
            println!("{}", gpu_only.with().gpus(n).submit(&cx, 1).await?);
        }
        ["stuck", count] => {
            let stuck = |x| gpu_only.with().gpus(1.0).submit(&cx, x);
            let all: Vec<_> = (0..count.parse().unwrap()).map(stuck).collect();
            cx.get_all(&all)?;
        }
        ["environment", names @ ..] => {
            for name in names {
                println!("{name}={}", std::env::var(name).unwrap_or_else(|_| "(not set)".into()));
            }
            println!("folder={}", std::env::current_dir().unwrap().display());
        }
        ["events"] => {
            cx.emit(&serde_json::json!({"event": "lap", "lap": 1, "metrics": {"loss": 2.0}}));
            cx.emit(&serde_json::json!({"event": "lap", "lap": 2, "metrics": {"loss": 1.0}}));
            println!("to standard output");
            eprintln!("to standard error");
        }
        other => return Err(Error::Refused(format!("unknown arguments {other:?}"))),
    }
    Ok(())
}
