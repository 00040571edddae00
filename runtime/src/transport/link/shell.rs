//! The tokio task of a link: finds connections, moves bytes, asks `state` what they mean.

use std::time::Duration;

use quinn::{ConnectionError, ReadExactError, RecvStream, SendStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until, timeout};

use super::state::{Decoder, HELLO_BYTES, Hello, LinkState, Meeting};
use super::{LinkEvent, Opening};
use crate::transport::discover::Target;
use crate::transport::identity::Peer;
use crate::transport::quic::{ConnectError, Connection, Endpoint, close};

/// An acknowledgement waits so long for company.
const ACK_DELAY: Duration = Duration::from_millis(20);
/// Pauses between a dialler's tries.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// A closed link waits so long for its last acknowledgements.
const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// A peer that does not finish its hello within this time is hung up on.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that are encoded at once.
const BATCH_BYTES: usize = 256 << 10;
/// Above this many unacknowledged bytes a connected link takes nothing more from its channel, and
/// a disconnected one starts over.
const MAX_UNACKED_BYTES: usize = 256 << 20;
/// Of which so many bytes of lasting frames are kept.
const KEEP_BYTES: usize = MAX_UNACKED_BYTES / 4;

#[derive(Debug)]
pub(super) enum Command {
    Send { frame: Vec<u8>, lasting: bool },
    Begin { meeting: u64, frame: Vec<u8> },
    Close,
}

/// A peer that has opened the link's stream and said hello.
#[derive(Debug)]
pub struct Caller {
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    hello: Hello,
}

impl Caller {
    /// Who it is.
    pub fn peer(&self) -> Peer {
        self.connection.peer()
    }

    /// Its connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

/// A peer that does not open a link as it should.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// It said nothing for too long.
    #[error("it did not open a link in time")]
    Slow,
    /// It went.
    #[error("it hung up: {0}")]
    Connection(#[from] ConnectionError),
    /// It went in the middle of its hello.
    #[error("it hung up: {0}")]
    Stream(#[from] ReadExactError),
    /// It said something else.
    #[error("its first stream is no link")]
    NoLink,
}

/// Waits for the link's stream on a connection that was accepted.
pub async fn receive_caller(connection: Connection) -> Result<Caller, CallerError> {
    let receive = async {
        let (send, mut receive) = connection.accept_bi().await?;
        let mut bytes = [0; HELLO_BYTES];
        receive.read_exact(&mut bytes).await?;
        let hello = Hello::decode(&bytes).ok_or(CallerError::NoLink)?;
        Ok((send, receive, hello))
    };
    match timeout(HELLO_TIMEOUT, receive).await {
        Ok(Ok((send, receive, hello))) => Ok(Caller { connection, send, receive, hello }),
        Ok(Err(error)) => {
            connection.close(close::VIOLATION, "a link was expected");
            Err(error)
        }
        Err(_) => {
            connection.close(close::VIOLATION, "a link was expected");
            Err(CallerError::Slow)
        }
    }
}

pub(super) enum Source {
    Dial { endpoint: Endpoint, target: Target, peer: Peer },
    Accept { callers: UnboundedReceiver<Caller> },
}

/// A connection with the link's stream, after both hellos.
struct Wire {
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    meeting: Meeting,
}

/// Why a connection is not used any longer.
enum End {
    Broken { reason: String, silent: bool },
    Replaced(Box<Caller>),
    Closed,
}

pub(super) struct Shell {
    source: Source,
    opening: Opening,
    state: LinkState,
    commands: UnboundedReceiver<Command>,
    /// The owner closed the link, or dropped its handles.
    closing: Option<Instant>,
    sink: Box<dyn FnMut(LinkEvent) + Send>,
}

fn new_life() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system's random numbers do not fail after start");
    u128::from_le_bytes(bytes).max(1)
}

impl Shell {
    pub(super) fn new(
        source: Source,
        opening: Opening,
        commands: UnboundedReceiver<Command>,
        sink: Box<dyn FnMut(LinkEvent) + Send>,
    ) -> Self {
        let state = LinkState::new(new_life(), opening == Opening::Announced);
        Self { source, opening, state, commands, closing: None, sink }
    }

    pub(super) async fn run(mut self) {
        let mut waiting = None;
        while let Some(wire) = self.connection(waiting.take()).await {
            let fresh = wire.meeting == Meeting::Fresh;
            if fresh && self.opening == Opening::Plain && self.dials() && self.state.meeting() > 1 {
                (self.sink)(LinkEvent::Forgotten);
                wire.connection.close(close::DONE, "the link is over");
                return;
            }
            (self.sink)(LinkEvent::Connected {
                fresh,
                meeting: self.state.meeting(),
                connection: wire.connection.clone(),
            });
            let connection = wire.connection.clone();
            match self.pump(wire).await {
                End::Broken { reason, silent } => {
                    (self.sink)(LinkEvent::Disconnected { reason, silent });
                }
                End::Replaced(caller) => {
                    connection.close(close::REPLACED, "a newer connection took over");
                    let reason = "it called again".to_owned();
                    (self.sink)(LinkEvent::Disconnected { reason, silent: false });
                    waiting = Some(*caller);
                }
                End::Closed => {
                    connection.close(close::DONE, "the link is over");
                    break;
                }
            }
        }
        let told = self.state.unacked_bytes() == 0;
        (self.sink)(LinkEvent::Closed { told });
    }

    fn dials(&self) -> bool {
        matches!(self.source, Source::Dial { .. })
    }

    /// The next connection; `None`: the link was closed meanwhile.
    async fn connection(&mut self, waiting: Option<Caller>) -> Option<Wire> {
        let mut waiting = waiting;
        let mut pause = FIRST_PAUSE;
        loop {
            if self.closing.is_some() {
                return None;
            }
            match &mut self.source {
                Source::Accept { callers } => {
                    let caller = match waiting.take() {
                        Some(caller) => caller,
                        None => tokio::select! {
                            caller = callers.recv() => caller?,
                            closing = idle(&mut self.commands, &mut self.state) => {
                                self.closing = Some(closing);
                                return None;
                            }
                        },
                    };
                    if let Some(wire) = self.greet(caller).await {
                        return Some(wire);
                    }
                }
                Source::Dial { endpoint, target, peer } => {
                    let hello = self.state.hello();
                    let dialled = tokio::select! {
                        dialled = dial(endpoint, target, *peer, hello) => dialled,
                        closing = idle(&mut self.commands, &mut self.state) => {
                            self.closing = Some(closing);
                            return None;
                        }
                    };
                    match self.meet(dialled, hello) {
                        Ok(wire) => return Some(wire),
                        Err(error) => (self.sink)(LinkEvent::Unreachable(error)),
                    }
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        closing = idle(&mut self.commands, &mut self.state) => {
                            self.closing = Some(closing);
                        }
                    }
                    pause = (pause * 2).min(LAST_PAUSE);
                }
            }
        }
    }

    /// The dialled side's half of a meeting.
    async fn greet(&mut self, mut caller: Caller) -> Option<Wire> {
        let meeting = match self.state.called(caller.hello) {
            Ok(meeting) => meeting,
            // The two memories do not fit: this side starts a new life, so that both start over.
            Err(violation) => {
                tracing::warn!(peer = %caller.peer(), %violation, "a link starts over");
                self.state.forget(new_life(), KEEP_BYTES);
                self.state.called(caller.hello).ok()?
            }
        };
        let answer = self.state.hello().encode();
        match timeout(HELLO_TIMEOUT, caller.send.write_all(&answer)).await {
            Ok(Ok(())) => {}
            _ => return None,
        }
        let Caller { connection, send, receive, .. } = caller;
        Some(Wire { connection, send, receive, meeting })
    }

    /// The dialler's half.
    fn meet(
        &mut self,
        dialled: Result<(Connection, SendStream, RecvStream, Hello), ConnectError>,
        said: Hello,
    ) -> Result<Wire, ConnectError> {
        let (connection, send, receive, answer) = dialled?;
        // Frames that piled up during the dial may have begun a new life.
        if said != self.state.hello() {
            connection.close(close::DONE, "the link starts over");
            return Err(ConnectError::Silent {
                address: connection.remote_address().to_string(),
                reason: "too much piled up while dialling".to_owned(),
            });
        }
        match self.state.answered(answer) {
            Ok(meeting) => Ok(Wire { connection, send, receive, meeting }),
            Err(violation) => {
                self.state.forget(new_life(), KEEP_BYTES);
                connection.close(close::VIOLATION, &violation.to_string());
                Err(ConnectError::Refused {
                    address: connection.remote_address().to_string(),
                    reason: violation.to_string(),
                })
            }
        }
    }

    /// Moves records both ways until the connection ends.
    async fn pump(&mut self, wire: Wire) -> End {
        let Wire { connection, mut send, mut receive, .. } = wire;
        let mut decoder = Decoder::default();
        let (mut out, mut written) = (Vec::new(), 0);
        let mut ack_at: Option<Instant> = None;
        loop {
            if written == out.len() {
                out.clear();
                written = 0;
                let flush = ack_at.is_some_and(|at| at <= Instant::now());
                self.state.transmit(&mut out, BATCH_BYTES, flush);
            }
            ack_at = match (self.state.owes_ack(), ack_at) {
                (false, _) => None,
                (true, None) => Some(Instant::now() + ACK_DELAY),
                (true, at) => at,
            };
            if let Some(since) = self.closing
                && (self.state.is_settled() || since.elapsed() >= CLOSE_GRACE)
                && written == out.len()
            {
                return End::Closed;
            }
            let room = self.state.unacked_bytes() < MAX_UNACKED_BYTES && self.closing.is_none();
            let closing_at = self.closing.map(|since| since + CLOSE_GRACE);
            tokio::select! {
                result = send.write(&out[written..]), if written < out.len() => match result {
                    Ok(count) => written += count,
                    Err(error) => return broken(&connection, &error),
                },
                chunk = receive.read_chunk(BATCH_BYTES, true) => match chunk {
                    Ok(Some(chunk)) => {
                        decoder.feed(&chunk.bytes);
                        if let Err(end) = self.deliver(&mut decoder, &connection) {
                            return end;
                        }
                    }
                    Ok(None) => return broken(&connection, &"the link's stream ended"),
                    Err(error) => return broken(&connection, &error),
                },
                command = self.commands.recv(), if room => self.take(command),
                caller = next_caller(&mut self.source) => {
                    return End::Replaced(Box::new(caller));
                }
                () = until(ack_at) => {}
                () = until(closing_at) => {}
            }
        }
    }

    fn deliver(&mut self, decoder: &mut Decoder, connection: &Connection) -> Result<(), End> {
        let mut next = || -> Result<bool, super::state::Violation> {
            let Some(record) = decoder.next()? else { return Ok(false) };
            if let Some(frame) = self.state.handle(record)? {
                (self.sink)(LinkEvent::Frame(frame));
            }
            Ok(true)
        };
        loop {
            match next() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(violation) => {
                    let reason = violation.to_string();
                    connection.close(close::VIOLATION, &reason);
                    return Err(End::Broken { reason, silent: false });
                }
            }
        }
    }

    /// Takes one command and, to write larger batches, all that wait behind it.
    fn take(&mut self, first: Option<Command>) {
        let mut next = first;
        loop {
            match next {
                Some(command) => {
                    if apply(command, &mut self.state) {
                        self.closing = Some(Instant::now());
                        return;
                    }
                }
                None => {
                    self.closing = Some(Instant::now());
                    return;
                }
            }
            if self.state.unacked_bytes() >= MAX_UNACKED_BYTES {
                return;
            }
            match self.commands.try_recv() {
                Ok(command) => next = Some(command),
                Err(_) => return,
            }
        }
    }
}

/// Whether the link is to be closed.
fn apply(command: Command, state: &mut LinkState) -> bool {
    match command {
        Command::Send { frame, lasting } => state.send(frame, lasting),
        Command::Begin { meeting, frame } => state.begin(meeting, frame),
        Command::Close => return true,
    }
    false
}

/// Takes commands while there is no connection, until the link is to be closed.
async fn idle(commands: &mut UnboundedReceiver<Command>, state: &mut LinkState) -> Instant {
    while let Some(command) = commands.recv().await {
        if apply(command, state) {
            break;
        }
        if state.unacked_bytes() > MAX_UNACKED_BYTES {
            tracing::warn!("too much waits for a peer that is away: the link starts over");
            state.forget(new_life(), KEEP_BYTES);
        }
    }
    Instant::now()
}

async fn dial(
    endpoint: &Endpoint,
    target: &Target,
    peer: Peer,
    hello: Hello,
) -> Result<(Connection, SendStream, RecvStream, Hello), ConnectError> {
    let address = target.address().map_err(|error| ConnectError::Address {
        address: target.to_string(),
        reason: error.to_string(),
    })?;
    let connection = endpoint.connect(&address, peer).await?;
    let exchange = async {
        let (mut send, mut receive) = connection.open_bi().await.map_err(|e| e.to_string())?;
        send.write_all(&hello.encode()).await.map_err(|e| e.to_string())?;
        let mut bytes = [0; HELLO_BYTES];
        receive.read_exact(&mut bytes).await.map_err(|e| e.to_string())?;
        let answer = Hello::decode(&bytes).ok_or("it answered no link")?;
        Ok::<_, String>((send, receive, answer))
    };
    let failed = match timeout(HELLO_TIMEOUT, exchange).await {
        Ok(Ok((send, receive, answer))) => return Ok((connection, send, receive, answer)),
        Ok(Err(reason)) => reason,
        Err(_) => "it did not answer in time".to_owned(),
    };
    let version = endpoint.tuning().version;
    Err(match connection.quinn().close_reason() {
        Some(reason) => ConnectError::of(&address, peer, version, &reason),
        None => {
            connection.close(close::VIOLATION, &failed);
            ConnectError::Refused { address, reason: failed }
        }
    })
}

fn broken(connection: &Connection, error: &dyn core::fmt::Display) -> End {
    match connection.quinn().close_reason() {
        Some(ConnectionError::TimedOut) => {
            End::Broken { reason: "it was silent for too long".to_owned(), silent: true }
        }
        Some(reason) => End::Broken { reason: reason.to_string(), silent: false },
        None => {
            let reason = error.to_string();
            connection.close(close::VIOLATION, &reason);
            End::Broken { reason, silent: false }
        }
    }
}

async fn next_caller(source: &mut Source) -> Caller {
    if let Source::Accept { callers } = source
        && let Some(caller) = callers.recv().await
    {
        return caller;
    }
    core::future::pending().await
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => core::future::pending().await,
    }
}
