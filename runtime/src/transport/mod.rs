//! How processes on different machines reach each other: who they are ([`identity`], [`token`],
//! [`join`]), the port and its connections ([`quic`]), messages on streams ([`frame`]), and links
//! that outlive connections ([`link`]).
//!
//! ```text
//! Identity ── Endpoint ── Connection ─┬─ stream 0: link (LinkState inside)
//!                                     └─ streams 1..: StreamRequest, StreamReply, bytes
//! ```
//! Not here: what is said (`wire`), and by whom to whom (`head`, `worker`, `client`).

mod congestion;
pub mod discover;
mod error;
pub mod frame;
pub mod identity;
pub mod join;
pub mod link;
pub mod quic;
mod reset;
mod tls;
pub mod token;
mod tuning;

pub use discover::{Entrance, HeadFile, Place, Target};
pub use identity::{Authority, Fingerprint, Identity, Peer};
pub use join::{Admission, Registrar};
pub use quic::{Arrival, ConnectError, Connection, Endpoint};
pub use token::{Token, TokenRecord, TokenTerms};
pub use tuning::{Tuning, event_loop};
