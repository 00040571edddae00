//! `rdist worker join`, `leave` and `drain`.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rdist::config::{Home, WorkerConfig};
use rdist::machine::Machine;
use rdist::scheduler::id::WorkerId;
use rdist::scheduler::resource::{Amount, Resources};
use rdist::worker::Worker;
use serde_json::{Value, json};

use super::session;
use crate::arguments::{WorkerDrain, WorkerJoin, WorkerLeave};
use crate::daemon::{self, Serving, Start, Started};
use crate::local::LocalWorker;
use crate::units;

/// How long a worker may take to end its executors.
const PATIENCE: Duration = Duration::from_secs(30);

/// Joins, here or in the background.
pub(super) fn join(join: &WorkerJoin, json: bool) -> anyhow::Result<()> {
    let home = Home::from_environment();
    let token = read_token(join.token.as_deref())?;
    // Checked before anything is started, so that a mistake shows here.
    let config = configure(join, home.clone(), token.clone())?;
    if join.daemon.foreground {
        return daemon::serve(&join.daemon, json, describe, || serve(config));
    }
    let started = daemon::start_in_background(Start {
        name: "worker",
        home: &home,
        arguments: background_arguments(join, token.is_some()),
        input: token,
        log: None,
    })?;
    let Started { mut ready, log } = started;
    ready["log"] = log.display().to_string().into();
    if json {
        println!("{ready}")
    } else {
        println!("{}", describe(&ready))
    }
    Ok(())
}

/// The options again, but for the token: what a process is called with, everybody can see.
fn background_arguments(join: &WorkerJoin, token: bool) -> Vec<String> {
    let mut arguments = vec!["worker".to_owned(), "join".to_owned()];
    arguments.extend(join.head.clone());
    let mut option = |name: &str, value: Option<String>| {
        arguments.extend(value.map(|value| format!("--{name}={value}")));
    };
    option("token", token.then(|| "-".to_owned()));
    option("listen", Some(join.listen.to_string()));
    option("advertise", join.advertise.clone());
    option("cpus", join.cpus.map(|number| number.to_string()));
    option("gpus", join.gpus.map(|number| number.to_string()));
    option("memory", join.memory.map(|bytes| bytes.to_string()));
    option("store-memory", join.store_memory.map(|bytes| bytes.to_string()));
    let folder = join.spill_dir.as_ref().map(std::path::absolute);
    let folder = folder.and_then(Result::ok).map(|folder| folder.display().to_string());
    option("spill-dir", folder);
    option("spill-limit", join.spill_limit.map(|bytes| bytes.to_string()));
    join.resources.iter().for_each(|pair| option("resource", Some(pair.to_string())));
    join.labels.iter().for_each(|pair| option("label", Some(pair.to_string())));
    arguments.push(join.daemon.rotate_argument());
    arguments
}

fn read_token(given: Option<&str>) -> anyhow::Result<Option<String>> {
    /// Longer than any token.
    const MOST_BYTES: u64 = 4096;
    match given {
        Some("-") => {
            let mut token = String::new();
            let read = std::io::stdin().take(MOST_BYTES).read_to_string(&mut token);
            read.context("cannot read the token from standard input")?;
            Ok(Some(token.trim().to_owned()))
        }
        given => Ok(given.map(str::to_owned)),
    }
}

/// What to offer: what the options say, else what this machine has.
fn configure(join: &WorkerJoin, home: Home, token: Option<String>) -> anyhow::Result<WorkerConfig> {
    let machine = Machine::detect();
    let store_bytes = join.store_memory.unwrap_or_else(|| machine.store_bytes());
    let mut resources: Resources = machine.resources(store_bytes);
    if let Some(cpus) = join.cpus {
        resources.cpu = Amount::from_f64(cpus);
    }
    if let Some(gpus) = join.gpus {
        resources.gpu = Amount::from_f64(gpus);
    }
    if let Some(memory) = join.memory {
        resources.memory = Amount::whole(memory);
    }
    for pair in &join.resources {
        let amount = units::amount(&pair.value)
            .map_err(|error| anyhow::anyhow!("--resource {pair}: {error}"))?;
        let name = pair.name.as_str();
        if ["cpu", "cpus", "gpu", "gpus", "memory"].contains(&name.to_lowercase().as_str()) {
            bail!(
                "--resource {pair}: {name} has an option of its own; see `rdist worker join --help`"
            );
        }
        resources.set(name, Amount::from_f64(amount));
    }
    let labels = join.labels.iter().map(|pair| (pair.name.clone(), pair.value.clone())).collect();
    let (head, listen) = (join.head.clone(), join.listen);
    // A daemon in the background runs in another folder.
    let spill_folder = join.spill_dir.as_ref().map(std::path::absolute).transpose()?;
    let spill_limit = join.spill_limit;
    Ok(WorkerConfig {
        home,
        head,
        token,
        listen,
        advertise: join.advertise.clone(),
        resources,
        labels,
        store_bytes,
        spill_folder,
        spill_limit,
        rotate_every: join.daemon.rotate_every,
    })
}

fn serve(config: WorkerConfig) -> anyhow::Result<Serving> {
    let home = config.home.clone();
    let mut ready = json!({
        "event": "worker_ready",
        "pid": std::process::id(),
        "resources": config.resources.to_string(),
        "store_bytes": config.store_bytes,
    });
    let handle = Worker::start(config).context("cannot join")?;
    ready["worker"] = handle.id().to_string().into();
    ready["address"] = handle.address().to_string().into();
    let mut entry = Some(LocalWorker::register(&home, handle.id().to_string())?);
    let stopper = handle.stopper();
    Ok(Serving {
        ready,
        stop: Arc::new(move || stopper.stop()),
        wait: Box::new(move || {
            let renamed = |worker: WorkerId| {
                // One after the other: both are the file of this process.
                drop(entry.take());
                match LocalWorker::register(&home, worker.to_string()) {
                    Ok(next) => entry = Some(next),
                    Err(error) => tracing::warn!("`rdist worker leave` misses {worker}: {error:#}"),
                }
            };
            handle.wait(renamed).context("cannot join again")
        }),
    })
}

/// What people read when a worker has joined.
fn describe(ready: &Value) -> String {
    let text = |name: &str| ready[name].as_str().unwrap_or_default();
    let store = units::show_bytes(ready["store_bytes"].as_u64().unwrap_or_default());
    let mut lines = format!(
        "{} joined (process {}): {}, object store {store}",
        text("worker"),
        ready["pid"],
        text("resources"),
    );
    if let Some(log) = ready["log"].as_str() {
        lines.push_str(&format!("\nlog: {log}"));
    }
    lines
}

/// Ends workers now.
pub(super) fn leave(leave: &WorkerLeave, json: bool) -> anyhow::Result<()> {
    let home = Home::from_environment();
    let local = LocalWorker::all(&home);
    for worker in chosen(&leave.workers, &local)? {
        match local.iter().find(|entry| entry.worker == worker.to_string()) {
            Some(entry) => entry.end(PATIENCE)?,
            None => session::run(&leave.client, async |client| {
                Ok(client.remove_worker(worker).await?)
            })?,
        }
        say(json, "worker_left", worker, "has left");
    }
    Ok(())
}

/// Lets workers end what they run, then leave.
pub(super) fn drain(drain: &WorkerDrain, json: bool) -> anyhow::Result<()> {
    let local = LocalWorker::all(&Home::from_environment());
    let workers = chosen(&drain.workers, &local)?;
    session::run(&drain.client, async |client| {
        for worker in workers {
            client.drain_worker(worker).await?;
            say(json, "worker_draining", worker, "takes nothing new and leaves when it is idle");
        }
        Ok(())
    })
}

/// Those that are named, or all of this machine.
fn chosen(named: &[String], local: &[LocalWorker]) -> anyhow::Result<Vec<WorkerId>> {
    let mut texts: Vec<&str> = named.iter().map(String::as_str).collect();
    if texts.is_empty() {
        texts = local.iter().map(|entry| entry.worker.as_str()).collect();
    }
    if texts.is_empty() {
        let home = Home::from_environment();
        bail!(
            "no worker of this machine runs in {}; name one that `rdist list workers` shows, or \
             start one with `rdist worker join`",
            home.path().display()
        );
    }
    let parse = |text: &str| {
        let parsed = text.parse();
        parsed.with_context(|| format!("{text:?}; `rdist list workers` shows their names"))
    };
    texts.into_iter().map(parse).collect()
}

fn say(json: bool, event: &str, worker: WorkerId, text: &str) {
    if json {
        println!("{}", json!({"event": event, "worker": worker.to_string()}));
    } else {
        println!("{worker} {text}");
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::{Arguments, Command, WorkerCommand};

    fn parse(line: &str) -> Box<WorkerJoin> {
        match Arguments::parse_from(line.split(' ')).command {
            Command::Worker(WorkerCommand::Join(join)) => join,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_replace_what_the_machine_has() {
        let line = "rdist worker join --cpus 1.5 --gpus 2 --memory 1GiB --store-memory 64MiB \
                    --resource tpu=2 --label zone=a";
        let config = configure(&parse(line), Home::at("/h"), None).unwrap();
        assert_eq!(config.resources.to_string(), "1.5 CPU, 2 GPU, 1024.0 MiB, 2 tpu");
        assert_eq!(config.store_bytes, 64 << 20);
        assert_eq!(config.labels, [("zone".to_owned(), "a".to_owned())]);
        for wrong in ["tpu=two", "cpu=2"] {
            let line = format!("rdist worker join --resource {wrong}");
            assert!(configure(&parse(&line), Home::at("/h"), None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_background_gets_the_same_options_and_no_secret() {
        let line = "rdist worker join 10.0.0.5:7420 --token secret --cpus 1.5 --memory 1GiB \
                    --resource tpu=2 --label zone=a --label b=c";
        let first = parse(line);
        let arguments = background_arguments(&first, true);
        assert!(!arguments.iter().any(|argument| argument.contains("secret")));
        let again = format!("rdist {}", arguments.join(" "));
        let second = parse(&again);
        assert_eq!(second.token.as_deref(), Some("-"));
        assert_eq!(second.head, first.head);
        assert_eq!(second.labels, first.labels);
        assert_eq!((second.cpus, second.memory), (first.cpus, first.memory));
    }

    #[test]
    fn workers_are_named_or_all_local_ones() {
        assert!(chosen(&[], &[]).is_err());
        assert!(chosen(&["elephant".to_owned()], &[]).is_err());
        assert_eq!(chosen(&["worker-7".to_owned()], &[]).unwrap(), [WorkerId(7)]);
    }
}
