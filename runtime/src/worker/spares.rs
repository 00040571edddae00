//! Spare processes: started ahead of need, for jobs of plain commands.
//!
//! Such a job is often one short command, and half of its time would go into starting two
//! processes, its driver's and its pool's. So when a job of this kind has ended, as many processes
//! of the same program are started, which wait before they do anything. The next job of that
//! program hands them over what makes them its executors ([`SocketMessage::Begin`]): variables,
//! folder, output, limits, and the socket with their welcome. A spare process knows of no job until
//! then, begins once, and is ended when nobody has wanted it for a while.

use std::cell::RefCell;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rdist_scheduler::id::JobId;

use super::limits::{Lease, Limit, Limits};
use super::process::{Child, c_string, nothing, spare_environment};
use crate::spawn::{Leads, Start, start};
use crate::store::LocalSocket;
use crate::wire::executor::SocketMessage;

/// A job of plain commands starts a driver and a pool.
const SPARES: usize = 2;

/// How long they wait for the next job.
const KEPT: Duration = Duration::from_secs(60);

/// The spare processes of a worker; all are of the program that ran last.
#[derive(Debug, Default)]
pub(super) struct Spares(Rc<RefCell<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// A job that runs, and what it runs: the program and its arguments, its own name first.
    expected: Option<(JobId, Vec<CString>)>,
    /// What all in `waiting` run.
    arguments: Vec<CString>,
    waiting: Vec<Spare>,
    started: u64,
    /// Counts renewals: whose time is over, if there was none since.
    renewals: u64,
}

/// A process that waits to begin.
#[derive(Debug)]
struct Spare {
    child: Child,
    /// It is in its control groups already: to make them takes a while.
    lease: Lease,
    socket: LocalSocket,
}

impl Spares {
    /// `job` is of plain commands: more like it may come.
    pub(super) fn expect(&self, job: JobId, program: &Path, arguments: &[String]) {
        let words = [program.as_os_str()].into_iter().chain(arguments.iter().map(OsStr::new));
        // What cannot be an argument has not started either.
        let Ok(arguments) = words.map(c_string).collect() else { return };
        self.0.borrow_mut().expected = Some((job, arguments));
    }

    /// `job` has ended: starts what the next one like it will want.
    pub(super) fn renew(&self, job: JobId, limits: &Limits) {
        let inner = &mut *self.0.borrow_mut();
        let Some((_, arguments)) = inner.expected.take_if(|(expected, _)| *expected == job) else {
            return;
        };
        if arguments != inner.arguments {
            inner.waiting.clear();
            inner.arguments = arguments;
        }
        while inner.waiting.len() < SPARES {
            inner.started += 1;
            let lease = limits.lease(&format!("spare-{}", inner.started), Limit::default());
            // Without one, the next job starts its processes itself.
            let Ok(spare) = Spare::start(&inner.arguments, lease) else { break };
            inner.waiting.push(spare);
        }
        inner.renewals += 1;
        let (renewals, later) = (inner.renewals, Rc::downgrade(&self.0));
        tokio::task::spawn_local(async move {
            tokio::time::sleep(KEPT).await;
            if let Some(inner) = later.upgrade()
                && inner.borrow().renewals == renewals
            {
                inner.borrow_mut().waiting.clear();
            }
        });
    }

    /// Lets a spare process begin as `order` has it, if there is one of its program.
    pub(super) fn begin(
        &self,
        order: &Start<'_>,
        limits: (&Limits, Limit),
    ) -> Option<(Child, Lease)> {
        let mut inner = self.0.borrow_mut();
        if inner.arguments != order.arguments {
            return None;
        }
        // One that has died meanwhile cannot be told.
        std::iter::from_fn(|| inner.waiting.pop()).find_map(|spare| spare.begin(order, limits))
    }

    /// Ends them.
    pub(super) fn end(&self) {
        self.0.borrow_mut().waiting.clear();
    }
}

impl Spare {
    /// The calling thread is its parent: when that ends, so does the process.
    fn start(arguments: &[CString], lease: Lease) -> io::Result<Self> {
        let program = arguments.first().ok_or(io::ErrorKind::InvalidInput)?;
        let (socket, theirs) = LocalSocket::pair().map_err(io::Error::other)?;
        let theirs: OwnedFd = theirs.into_fd();
        let environment = spare_environment(theirs.as_fd())?;
        let nothing = nothing()?;
        let started = start(&Start {
            program,
            arguments,
            environment: &environment.iter().map(CString::as_c_str).collect::<Vec<_>>(),
            folder: None,
            streams: [nothing.as_fd(); 3],
            leads: Leads::Session,
            inherited: Some(theirs.as_fd()),
            doors: &lease.doors(),
            data_limit: None,
        })?;
        Ok(Self { child: Child::new(started)?, lease, socket })
    }

    /// `None`: it has died, or cannot be told so much at once.
    fn begin(
        mut self,
        order: &Start<'_>,
        (limits, limit): (&Limits, Limit),
    ) -> Option<(Child, Lease)> {
        limits.change(&mut self.lease, limit);
        let message = SocketMessage::Begin {
            environment: order.environment.iter().map(|text| text.to_bytes().to_vec()).collect(),
            folder: order.folder.map(|folder| folder.to_bytes().to_vec()),
            data_limit: self.lease.data_limit(),
        };
        let [_, output, error] = order.streams;
        let sent = self.socket.try_send(&message, &[order.inherited?, output, error]);
        matches!(sent, Ok(true)).then_some((self.child, self.lease))
    }
}
