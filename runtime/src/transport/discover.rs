//! Where the head is: the file that it leaves in the state folder, and an address from outside.

use core::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::identity::{IdentityError, write_private};
use super::join::{self, Admission, JoinError};
use super::token::{Token, TokenTextError};
use super::tuning::Tuning;
use crate::config::Home;

/// What `head.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadFile {
    /// `HOST:PORT` for this machine.
    pub address: String,
    /// Where it listens.
    pub listen: String,
    /// Process id.
    pub pid: u32,
    /// Protocol version.
    pub protocol: u32,
    /// Release.
    pub version: String,
}

/// There is no head here, as far as files tell.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// No file.
    #[error("no head runs in {} (head.json is missing): start one with `rdist head start`",
            home.display())]
    NoHead {
        /// The state folder.
        home: PathBuf,
    },
    /// A file that says nothing.
    #[error("{} cannot be read ({reason}): start the head again with `rdist head start`",
            path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl HeadFile {
    /// Reads it.
    pub fn read(home: &Home) -> Result<Self, DiscoverError> {
        let path = home.head_file();
        let text = fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DiscoverError::NoHead { home: home.path().to_owned() },
            _ => DiscoverError::Unreadable { path: path.clone(), reason: error.to_string() },
        })?;
        serde_json::from_slice(&text)
            .map_err(|error| DiscoverError::Unreadable { path, reason: error.to_string() })
    }

    /// Writes it.
    pub fn write(&self, home: &Home) -> Result<(), IdentityError> {
        let text = serde_json::to_string_pretty(self).expect("plain fields become JSON");
        write_private(&home.head_file(), text.as_bytes())
    }
}

/// Where to dial.
#[derive(Debug, Clone)]
pub enum Target {
    /// There.
    Address(String),
    /// Where that says, looked up anew for each try: it may move.
    Moving(Place),
    /// Where the head of that folder says it is, looked up anew for each try.
    HeadOf(Home),
}

/// An address, `HOST:PORT`, that several share, and that changes for all of them.
#[derive(Debug, Clone)]
pub struct Place(Arc<Mutex<String>>);

impl Place {
    /// There at first.
    pub fn new(address: String) -> Self {
        Self(Arc::new(Mutex::new(address)))
    }

    /// There as of now.
    pub fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// There from now on.
    pub fn set(&self, address: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }
}

impl Target {
    /// The address as of now.
    pub fn address(&self) -> Result<String, DiscoverError> {
        match self {
            Self::Address(address) => Ok(address.clone()),
            Self::Moving(place) => Ok(place.get()),
            Self::HeadOf(home) => Ok(HeadFile::read(home)?.address),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => f.write_str(address),
            Self::Moving(place) => f.write_str(&place.get()),
            Self::HeadOf(home) => write!(f, "the head of {}", home.path().display()),
        }
    }
}

/// A worker or a client has no way into the cluster.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// No head.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// No token.
    #[error("no token to join with: give --token (made by `rdist token create` on the head's \
             machine), or run as the user of the head whose state is in {}", home.display())]
    NoToken {
        /// The state folder.
        home: PathBuf,
    },
    /// A token that is none.
    #[error(transparent)]
    Token(#[from] TokenTextError),
    /// The head said no, or nothing.
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// How somebody gets into a cluster.
#[derive(Debug, Clone)]
pub struct Entrance {
    /// The state folder.
    pub home: Home,
    /// The head, `HOST:PORT`; `None`: the one of `home`.
    pub head: Option<String>,
    /// The token's text; `None`: the one of `home`.
    pub token: Option<String>,
}

impl Entrance {
    /// Where the head is.
    pub fn target(&self) -> Target {
        match &self.head {
            Some(address) => Target::Address(address.clone()),
            None => Target::HeadOf(self.home.clone()),
        }
    }

    /// The token to show.
    pub fn token(&self) -> Result<Token, EnterError> {
        let text = match &self.token {
            Some(text) => text.clone(),
            None => fs::read_to_string(self.home.join_token())
                .map_err(|_| EnterError::NoToken { home: self.home.path().to_owned() })?,
        };
        Ok(text.parse()?)
    }

    /// Joins: gives the new identity and where to dial with it. A worker gets a new incarnation's
    /// id with it ([`Identity::worker`](super::Identity::worker)).
    pub async fn join(&self, tuning: Tuning) -> Result<(Admission, Target), EnterError> {
        let target = self.target();
        let address = target.address()?;
        let admission = join::join(&address, &self.token()?, tuning).await?;
        Ok((admission, target))
    }
}
