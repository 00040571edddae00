//! `rdist head start` and `rdist head stop`.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use rdist::config::{HeadConfig, Home};
use rdist::head::Head;
use rdist::transport::HeadFile;
use serde_json::{Value, json};

use super::session;
use crate::arguments::{HeadStart, HeadStop};
use crate::daemon::{self, Serving, Start, Started};
use crate::local::{LocalWorker, Process};

/// How long daemons may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts the head, here or in the background.
pub(super) fn start(start: &HeadStart, json: bool) -> anyhow::Result<()> {
    let home = Home::from_environment();
    if start.daemon.foreground {
        return daemon::serve(&start.daemon, json, describe, || serve(home, start));
    }
    let listen = format!("--listen={}", start.listen);
    let dead_after = format!("--dead-after={}ms", start.dead_after.as_millis());
    let keep_jobs = format!("--keep-jobs={}", start.keep_jobs);
    let started = daemon::start_in_background(Start {
        name: "head",
        home: &home,
        arguments: vec![
            "head".to_owned(),
            "start".to_owned(),
            listen,
            dead_after,
            keep_jobs,
            start.daemon.rotate_argument(),
        ],
        input: None,
        log: Some("head"),
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

fn serve(home: Home, start: &HeadStart) -> anyhow::Result<Serving> {
    let mut config = HeadConfig::new(home);
    config.listen = start.listen;
    config.dead_after = start.dead_after;
    config.kept_jobs = start.keep_jobs;
    config.rotate_every = start.daemon.rotate_every;
    let handle = Head::start(config)?;
    let ready = json!({
        "event": "head_ready",
        "address": handle.address(),
        "reachable_at": reachable_at(start.listen, handle.address()),
        "pid": std::process::id(),
        "token": handle.join_token(),
    });
    let stopper = handle.stopper();
    Ok(Serving {
        ready,
        stop: Arc::new(move || stopper.stop()),
        wait: Box::new(move || Ok(handle.wait()?)),
    })
}

/// The address that other machines should dial: that of the interface that leads outside, when
/// the head listens on all.
fn reachable_at(listens: SocketAddr, address: &str) -> String {
    let port = address.rsplit(':').next().unwrap_or_default();
    if !listens.ip().is_unspecified() {
        return address.to_owned();
    }
    let outside = || -> std::io::Result<IpAddr> {
        // Nothing is sent: connecting a UDP socket only looks up the route. The address is one of
        // those set aside for documentation.
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect("192.0.2.1:9")?;
        Ok(socket.local_addr()?.ip())
    };
    outside().map_or_else(|_| address.to_owned(), |ip| format!("{ip}:{port}"))
}

/// What people read when the head is ready.
fn describe(ready: &Value) -> String {
    let text = |name: &str| ready[name].as_str().unwrap_or_default();
    let mut lines = format!(
        "head ready at {} (process {})\n\n  \
         a worker on this machine   rdist worker join\n  \
         on another machine         rdist worker join {} --token {}\n  \
         a job                      rdist submit FILE\n  \
         the end                    rdist head stop",
        text("address"),
        ready["pid"],
        text("reachable_at"),
        text("token"),
    );
    if let Some(log) = ready["log"].as_str() {
        lines.push_str(&format!("\n\nlog: {log}"));
    }
    lines
}

/// Ends the head and, unless told otherwise, its workers; returns when those of this machine are
/// gone.
pub(super) fn stop(options: &HeadStop, json: bool) -> anyhow::Result<()> {
    let home = Home::from_environment();
    let here = options.client.head.is_none();
    let file = if here { Some(HeadFile::read(&home)?) } else { None };
    let pid = file.as_ref().and_then(|file| i32::try_from(file.pid).ok());
    // Held from before the question on, so that its end is seen whenever it comes.
    let head = pid.and_then(|pid| Process::find(pid, None));
    let asked = session::run(&options.client, async |client| {
        Ok(client.shutdown_head(!options.keep_workers).await?)
    });
    match (&head, asked) {
        (_, Ok(())) => {}
        // A head that does not answer is ended all the same, but only if that is what runs there.
        (Some(head), Err(_)) if pid.is_some_and(is_head) => head.terminate()?,
        (_, Err(error)) => return Err(error),
    }
    if let Some(head) = &head
        && !head.wait(PATIENCE)?
    {
        bail!("the head (process {}) still runs after {PATIENCE:?}", pid.unwrap_or_default());
    }
    if here && !options.keep_workers {
        for worker in LocalWorker::all(&home) {
            worker.end(PATIENCE)?;
        }
    }
    if json {
        println!("{}", json!({"event": "head_stopped"}))
    } else {
        println!("head stopped")
    }
    Ok(())
}

/// Whether that process is a head: a process id in a file may be somebody else's by now.
fn is_head(pid: i32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0).skip(1);
    words.any(|word| word == b"head")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_dial_is_never_all_of_them() {
        let all = SocketAddr::from(([0, 0, 0, 0], 0));
        let dial: SocketAddr = reachable_at(all, "127.0.0.1:7421").parse().unwrap();
        assert!(!dial.ip().is_unspecified());
        assert_eq!(dial.port(), 7421);
        let one = SocketAddr::from(([10, 0, 0, 5], 0));
        assert_eq!(reachable_at(one, "10.0.0.5:7421"), "10.0.0.5:7421");
    }

    #[test]
    fn people_read_how_to_join() {
        let ready = json!({
            "address": "0.0.0.0:7420", "reachable_at": "10.0.0.5:7420", "pid": 7, "token": "T",
        });
        assert!(describe(&ready).contains("rdist worker join 10.0.0.5:7420 --token T\n"));
    }
}
