//! What the head says twice, at once or after something else, counts once.

use rdist::scheduler::id::{JobId, TaskId, WorkerId};
use rdist::scheduler::message::{FromHead, ToHead};
use rdist::scheduler::spec::{Assignment, TaskKind, TaskSpec};
use rdist::wire::cluster::{HeadToWorker, Output, Query, Said, Things, WorkerToHead};
use rdist::wire::executor::Detached;

use crate::head::Head;
use crate::program::SAYS;
use crate::within;

const JOB: JobId = JobId(1);
const ME: WorkerId = WorkerId(1);
const NEXT: WorkerId = WorkerId(2);

/// The messages of a life that ends by draining, one after the other. A new one does not compile
/// until it has its place.
fn after(message: &HeadToWorker, head: &Head) -> Option<HeadToWorker> {
    let driver = TaskId::driver(JOB);
    Some(match message {
        HeadToWorker::Registered { .. } => {
            HeadToWorker::Member { worker: NEXT, address: "127.0.0.1:9".to_owned() }
        }
        HeadToWorker::Member { .. } => {
            let spec = TaskSpec { kind: TaskKind::Driver, ..TaskSpec::plain(driver, driver) };
            let message = FromHead::Assigned(vec![Assignment::new(spec, 0, WorkerId::HEAD)]);
            HeadToWorker::Core { number: 1, message }
        }
        HeadToWorker::Core { message: FromHead::Assigned(_), .. } => {
            HeadToWorker::Job(head.job(JOB))
        }
        HeadToWorker::Job(_) => {
            let answer = Detached::Refused { reason: "it was refused".to_owned() };
            HeadToWorker::Detached { task: driver.child(0), answer }
        }
        HeadToWorker::Detached { .. } => {
            let query = Query::List { what: Things::Tasks, limit: 10 };
            HeadToWorker::Query { request: 1, query }
        }
        HeadToWorker::Query { .. } => {
            HeadToWorker::Core { number: 2, message: FromHead::JobEnded { job: JOB } }
        }
        HeadToWorker::Core { .. } => HeadToWorker::Drain,
        HeadToWorker::Drain => return None,
        // The ends of other lives.
        HeadToWorker::Shutdown | HeadToWorker::GivenUp => return None,
    })
}

/// What a worker says for itself, without reports that come when they are due.
fn words(message: WorkerToHead) -> Vec<String> {
    match message {
        WorkerToHead::Usage(_) | WorkerToHead::Core { message: ToHead::Load(_), .. } => Vec::new(),
        WorkerToHead::Core { message, .. } => vec![format!("{message:?}")],
        // It says where it listens and how it is called.
        WorkerToHead::Register(_) => vec!["Register".to_owned()],
        WorkerToHead::Said { said: Said::Output(Output { text, .. }), .. } => {
            text.lines().filter(|line| line.starts_with(SAYS)).map(str::to_owned).collect()
        }
        other => vec![format!("{other:?}")],
    }
}

/// How messages are said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Once,
    Twice,
    /// And again after each one that follows.
    Late,
}

/// What the worker has said when it says what `wanted` wants.
async fn hear(head: &mut Head, heard: &mut Vec<String>, wanted: &str) {
    loop {
        let words = words(head.next().await.1);
        let is_wanted = words.iter().any(|word| word.contains(wanted));
        heard.extend(words);
        if is_wanted {
            return;
        }
    }
}

/// Everything that a worker says in a life that ends by draining, sorted: what its processes print
/// has a way of its own.
async fn drained_life(how: How) -> Vec<String> {
    let mut head = Head::start();
    let worker = head.start_worker();
    let mut heard = Vec::new();
    hear(&mut head, &mut heard, "Register").await;
    let first = HeadToWorker::Registered { epoch: 1 };
    let all = std::iter::successors(Some(first), |message| after(message, &head));
    let mut former = Vec::new();
    for message in Vec::from_iter(all) {
        if matches!(&message, HeadToWorker::Core { message: FromHead::JobEnded { .. }, .. }) {
            std::fs::write(head.go(), "").unwrap();
            hear(&mut head, &mut heard, "DriverFinished").await;
        }
        head.send(ME, &message);
        match how {
            How::Twice => head.send(ME, &message),
            // One that drains and has nothing to do is gone at once.
            How::Late if message == HeadToWorker::Drain => {}
            How::Once => {}
            How::Late => former.iter().for_each(|former| head.send(ME, former)),
        }
        // What it comes to, so that the next one finds what it is about.
        let comes = match &message {
            HeadToWorker::Core { message: FromHead::Assigned(_), .. } => Some("JobWanted"),
            HeadToWorker::Job(_) => Some("Detach"),
            HeadToWorker::Detached { .. } => Some("refused"),
            HeadToWorker::Query { .. } => Some("Answer"),
            _ => None,
        };
        if let Some(comes) = comes {
            hear(&mut head, &mut heard, comes).await;
        }
        former.push(message);
    }
    hear(&mut head, &mut heard, "Leaving").await;
    let worker = within(worker).await.unwrap();
    within(tokio::task::spawn_blocking(move || worker.wait(|_| {}))).await.unwrap().unwrap();
    assert_eq!(head.admitted(), 1);
    heard.extend(head.rest().into_iter().flat_map(words));
    heard.sort_unstable();
    heard
}

#[tokio::test]
async fn what_the_head_says_to_a_worker_that_drains_twice_counts_once() {
    let once = drained_life(How::Once).await;
    for word in [&format!("{SAYS}begins"), "DriverFinished", "Leaving"] {
        assert_eq!(once.iter().filter(|words| words.contains(word)).count(), 1, "{once:#?}");
    }
    for how in [How::Twice, How::Late] {
        let mut again = drained_life(how).await;
        // A question is answered again, by what is true then.
        let answers = again.iter().filter(|words| words.starts_with("Answer")).count();
        assert_eq!(answers, 2, "{how:?}: {again:#?}");
        again.retain(|words| !words.starts_with("Answer") || once.contains(words));
        again.dedup_by(|next, word| next.starts_with("Answer") && next == word);
        assert_eq!(again, once, "{how:?}");
    }
}

#[tokio::test]
async fn a_worker_that_is_given_up_and_shut_down_twice_comes_back_once_and_ends_once() {
    let mut head = Head::start();
    let worker = head.start_worker();
    let mut heard = Vec::new();
    hear(&mut head, &mut heard, "Register").await;
    let twice = |head: &Head, to, message| {
        head.send(to, &message);
        head.send(to, &message);
    };
    twice(&head, ME, HeadToWorker::Registered { epoch: 1 });
    let worker = within(worker).await.unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        let mut names = Vec::new();
        worker.wait(|name| names.push(name)).map(|()| names)
    });
    twice(&head, ME, HeadToWorker::GivenUp);
    hear(&mut head, &mut heard, "Register").await;
    twice(&head, NEXT, HeadToWorker::Registered { epoch: 1 });
    twice(&head, NEXT, HeadToWorker::Shutdown);
    assert_eq!(within(ended).await.unwrap().unwrap(), [NEXT]);
    assert_eq!(head.admitted(), 2);
    heard.extend(head.rest().into_iter().flat_map(words));
    assert_eq!(heard, ["Register", "Register"]);
}
