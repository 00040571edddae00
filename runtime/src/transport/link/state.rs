//! The link without its connection: numbers, acknowledgements, what to repeat. Sans-IO.
//!
//! ```text
//! dialler                          dialled
//!    │ Hello{mine, yours, received}  │   yours = 0: never met
//!    ├──────────────────────────────►│
//!    │ Hello{mine, yours, received}  │   both drop what the other has, repeat the rest
//!    │◄──────────────────────────────┤
//!    │ Data{seq} Ack{received} ...   │   both ways until the connection breaks
//! ```
//! Each side's life is a random number. When the other side's number is not the remembered one,
//! it has lost its memory of this link: the meeting is *fresh* and numbers start again at 1.
//!
//! Invariants, checked by the property test:
//! - `LK-1` every frame is handed out at most once, in the order of sending.
//! - `LK-2` as long as no meeting is fresh, every frame is handed out in the end.
//! - `LK-3` a frame stays in memory until the other side has acknowledged it.

use std::collections::VecDeque;

use crate::wire::cluster::MAX_LINK_FRAME_BYTES;

/// Bytes of an encoded [`Hello`].
pub(super) const HELLO_BYTES: usize = 44;
/// First bytes of a [`Hello`].
const HELLO_MAGIC: [u8; 4] = *b"link";
/// Bytes in front of a record: length, kind.
const HEADER_BYTES: usize = 5;
/// Kinds of records.
const DATA: u8 = 0;
const ACK: u8 = 1;
/// So many frames, or bytes, are acknowledged at once; fewer wait for a while.
const ACK_FRAMES: u64 = 64;
const ACK_BYTES: usize = 256 << 10;

/// How the two sides meet on a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hello {
    /// The sender's life.
    pub(super) mine: u128,
    /// The receiver's life as the sender remembers it; 0: it remembers none.
    pub(super) yours: u128,
    /// The last frame that the sender has.
    pub(super) received: u64,
}

impl Hello {
    pub(super) fn encode(self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..4].copy_from_slice(&HELLO_MAGIC);
        bytes[4..20].copy_from_slice(&self.mine.to_le_bytes());
        bytes[20..36].copy_from_slice(&self.yours.to_le_bytes());
        bytes[36..].copy_from_slice(&self.received.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HELLO_BYTES]) -> Option<Self> {
        let mine = u128::from_le_bytes(bytes[4..20].try_into().ok()?);
        let yours = u128::from_le_bytes(bytes[20..36].try_into().ok()?);
        let received = u64::from_le_bytes(bytes[36..].try_into().ok()?);
        (bytes[..4] == HELLO_MAGIC && mine != 0).then_some(Self { mine, yours, received })
    }
}

/// What the two sides find when they meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meeting {
    /// Both go on where they were.
    Resumed,
    /// The other side remembers nothing of this link.
    Fresh,
}

/// The other side did what no honest peer does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("it answered a hello that was not sent")]
    NotMine,
    #[error("it has {received} frames of {sent}")]
    Received { received: u64, sent: u64 },
    #[error("frame {seq} came after frame {received}")]
    Gap { seq: u64, received: u64 },
    #[error("a record of kind {kind} with {len} bytes")]
    Record { kind: u8, len: usize },
}

/// What a stream carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Data { seq: u64, frame: Vec<u8> },
    Ack { received: u64 },
}

#[derive(Debug)]
struct Queued {
    frame: Vec<u8>,
    /// Outlives a fresh meeting.
    lasting: bool,
}

/// One side of a link.
#[derive(Debug)]
pub(super) struct LinkState {
    mine: u128,
    theirs: u128,
    /// After a fresh meeting nothing is sent before [`Self::begin`].
    announced: bool,
    open: bool,
    /// Counts meetings, so that a late `begin` is known.
    meeting: u64,
    /// Frames `acked + 1 ..` that the other side may lack.
    unacked: VecDeque<Queued>,
    unacked_bytes: usize,
    acked: u64,
    /// The next frame to write on this connection.
    next: u64,
    received: u64,
    ack_sent: u64,
    ack_bytes: usize,
}

impl LinkState {
    /// A new life. `announced`: every fresh meeting waits for [`Self::begin`].
    pub(super) fn new(mine: u128, announced: bool) -> Self {
        Self {
            mine,
            theirs: 0,
            announced,
            open: !announced,
            meeting: 0,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            acked: 0,
            next: 1,
            received: 0,
            ack_sent: 0,
            ack_bytes: 0,
        }
    }

    /// What to say first on a new connection, or in answer.
    pub(super) fn hello(&self) -> Hello {
        Hello { mine: self.mine, yours: self.theirs, received: self.received }
    }

    /// The dialler has the answer to its hello.
    pub(super) fn answered(&mut self, hello: Hello) -> Result<Meeting, Violation> {
        if hello.yours != self.mine {
            return Err(Violation::NotMine);
        }
        if hello.mine == self.theirs {
            self.resume(hello.received)?;
            return Ok(Meeting::Resumed);
        }
        if hello.received != 0 {
            return Err(Violation::Received { received: hello.received, sent: 0 });
        }
        let met_before = self.theirs != 0;
        self.start_over(hello.mine, met_before);
        Ok(Meeting::Fresh)
    }

    /// The dialled side has a hello. Answer with [`Self::hello`] after it.
    pub(super) fn called(&mut self, hello: Hello) -> Result<Meeting, Violation> {
        let known = hello.mine == self.theirs;
        if known && hello.yours == self.mine {
            self.resume(hello.received)?;
            return Ok(Meeting::Resumed);
        }
        // It never saw the answer to its first hello, so that nothing can have gone either way.
        let unseen = known && self.acked == 0 && self.received == 0;
        self.start_over(hello.mine, !unseen);
        Ok(Meeting::Fresh)
    }

    fn resume(&mut self, received: u64) -> Result<(), Violation> {
        self.meeting += 1;
        let sent = self.acked + self.unacked.len() as u64;
        if received > sent || received < self.acked {
            return Err(Violation::Received { received, sent });
        }
        self.drop_acked(received);
        self.next = self.acked + 1;
        self.ack_sent = self.received;
        self.ack_bytes = 0;
        Ok(())
    }

    fn start_over(&mut self, theirs: u128, forget: bool) {
        self.meeting += 1;
        self.theirs = theirs;
        (self.acked, self.next) = (0, 1);
        (self.received, self.ack_sent, self.ack_bytes) = (0, 0, 0);
        if forget || self.announced {
            self.unacked.retain(|queued| queued.lasting);
            self.unacked_bytes = self.unacked.iter().map(|queued| queued.frame.len()).sum();
        }
        self.open = !self.announced;
    }

    /// A new life, after too much has piled up: all but the newest lasting frames are dropped.
    pub(super) fn forget(&mut self, mine: u128, keep_bytes: usize) {
        self.mine = mine;
        self.start_over(0, true);
        while self.unacked_bytes > keep_bytes {
            let Some(dropped) = self.unacked.pop_front() else { break };
            self.unacked_bytes -= dropped.frame.len();
        }
    }

    /// Number of this meeting.
    pub(super) fn meeting(&self) -> u64 {
        self.meeting
    }

    /// The first frame of a fresh meeting; lasting frames follow. Ignored for an older meeting.
    pub(super) fn begin(&mut self, meeting: u64, frame: Vec<u8>) {
        if meeting == self.meeting && !self.open {
            self.open = true;
            self.unacked_bytes += frame.len();
            self.unacked.push_front(Queued { frame, lasting: false });
        }
    }

    /// Takes a frame. What is not lasting is dropped between a fresh meeting and `begin`.
    pub(super) fn send(&mut self, frame: Vec<u8>, lasting: bool) {
        if self.open || lasting {
            self.unacked_bytes += frame.len();
            self.unacked.push_back(Queued { frame, lasting });
        }
    }

    /// Bytes that wait for an acknowledgement.
    pub(super) fn unacked_bytes(&self) -> usize {
        self.unacked_bytes
    }

    /// Whether all that was sent has been acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        self.unacked.is_empty() || !self.open
    }

    /// Whether an acknowledgement waits for company.
    pub(super) fn owes_ack(&self) -> bool {
        self.received > self.ack_sent
    }

    /// Appends records that are due to `out`, up to about `limit` bytes. An acknowledgement goes
    /// with data, or when many are due, or when `flush` says that it has waited long enough.
    pub(super) fn transmit(&mut self, out: &mut Vec<u8>, limit: usize, flush: bool) {
        let sent = self.acked + self.unacked.len() as u64;
        let data = self.open && self.next <= sent;
        let many = self.received - self.ack_sent >= ACK_FRAMES || self.ack_bytes >= ACK_BYTES;
        if self.owes_ack() && (data || many || flush) {
            Record::Ack { received: self.received }.encode(out);
            self.ack_sent = self.received;
            self.ack_bytes = 0;
        }
        while self.open && self.next <= sent && out.len() < limit {
            let at = (self.next - self.acked - 1) as usize;
            encode_data(self.next, &self.unacked[at].frame, out);
            self.next += 1;
        }
    }

    /// Takes a record; gives the frame that it carries, if that is new.
    pub(super) fn handle(&mut self, record: Record) -> Result<Option<Vec<u8>>, Violation> {
        match record {
            Record::Data { seq, .. } if seq <= self.received => Ok(None),
            Record::Data { seq, frame } if seq == self.received + 1 => {
                self.received = seq;
                self.ack_bytes += frame.len();
                Ok(Some(frame))
            }
            Record::Data { seq, .. } => Err(Violation::Gap { seq, received: self.received }),
            Record::Ack { received } if received < self.next => {
                self.drop_acked(received);
                Ok(None)
            }
            Record::Ack { received } => Err(Violation::Received { received, sent: self.next - 1 }),
        }
    }

    fn drop_acked(&mut self, received: u64) {
        while self.acked < received {
            let Some(queued) = self.unacked.pop_front() else { break };
            self.unacked_bytes -= queued.frame.len();
            self.acked += 1;
        }
    }
}

fn encode_data(seq: u64, frame: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&((frame.len() + 8) as u32).to_le_bytes());
    out.push(DATA);
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(frame);
}

impl Record {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Data { seq, frame } => encode_data(*seq, frame, out),
            Self::Ack { received } => {
                out.extend_from_slice(&8_u32.to_le_bytes());
                out.push(ACK);
                out.extend_from_slice(&received.to_le_bytes());
            }
        }
    }
}

/// Cuts the bytes of a stream into records.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Appends bytes as they come.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole record.
    pub(super) fn next(&mut self) -> Result<Option<Record>, Violation> {
        let rest = &self.buffer[self.start..];
        let Some((header, body)) = rest.split_at_checked(HEADER_BYTES) else { return Ok(None) };
        let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = header[4];
        let sound = match kind {
            DATA => (8..=MAX_LINK_FRAME_BYTES + 8).contains(&len),
            ACK => len == 8,
            _ => false,
        };
        if !sound {
            return Err(Violation::Record { kind, len });
        }
        let Some((number, frame)) = body.get(..len).and_then(|body| body.split_first_chunk())
        else {
            return Ok(None);
        };
        let number = u64::from_le_bytes(*number);
        let record = match kind {
            ACK => Record::Ack { received: number },
            _ => Record::Data { seq: number, frame: frame.to_vec() },
        };
        self.start += HEADER_BYTES + len;
        Ok(Some(record))
    }
}
