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
        ["gpus", n] => {
            let n: f64 = n.parse().unwrap();
            println!("{}", gpu_only.with().gpus(n).submit(&cx, 1).await?);
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
