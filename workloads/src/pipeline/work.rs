//! What goes in and out of a [`Flow`](super::flow::Flow): calls, what came of them, and what they
//! took.

use std::time::Duration;

use super::stage::Stage;

/// Images that lie in one object, one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block<O> {
    /// Which ones.
    pub rows: Vec<u32>,
    /// Where.
    pub object: O,
    /// Position of the first one in the object; of files, the byte where it starts.
    pub first: u32,
    /// Of files: where each ends; else empty.
    pub ends: Vec<u32>,
}

impl<O: Clone> Block<O> {
    /// Keeps the first `count` images (at least one), and gives back the others.
    pub fn split_off(&mut self, count: usize) -> Self {
        let rows = self.rows.split_off(count);
        let (first, ends) = match self.ends.get(count.saturating_sub(1)).copied() {
            Some(end) => (end, self.ends.split_off(count)),
            None => (self.first + count as u32, Vec::new()),
        };
        Self { rows, object: self.object.clone(), first, ends }
    }
}

/// What a call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work<O> {
    /// Read these rows' files.
    Read(Vec<u32>),
    /// Decode these files.
    Decode(Block<O>),
    /// Make these images one batch.
    Normalise(Vec<Block<O>>),
    /// Predict this batch.
    Predict(Block<O>),
}

impl<O> Work<O> {
    /// Whose work it is.
    pub fn stage(&self) -> Stage {
        match self {
            Self::Read(_) => Stage::Read,
            Self::Decode(_) => Stage::Decode,
            Self::Normalise(_) => Stage::Normalise,
            Self::Predict(_) => Stage::Predict,
        }
    }

    /// Its images.
    pub fn rows(&self) -> Vec<u32> {
        match self {
            Self::Read(rows) => rows.clone(),
            Self::Decode(block) | Self::Predict(block) => block.rows.clone(),
            Self::Normalise(blocks) => {
                blocks.iter().flat_map(|block| block.rows.iter().copied()).collect()
            }
        }
    }
}

/// A call to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call<O> {
    /// Its number.
    pub id: u64,
    /// On which actor.
    pub actor: u32,
    /// What it is to do.
    pub work: Work<O>,
}

/// What came of a call.
#[derive(Debug, Clone)]
pub struct Made<O> {
    /// The images that it got through (all of them, in a batch); `None` behind the last stage, or
    /// when there is none.
    pub block: Option<Block<O>>,
    /// Those that are no use.
    pub failed: Vec<u32>,
    /// How long the actor worked on it.
    pub busy: Duration,
}

/// Why a call came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Its actor is gone; what it was to work on is still there.
    Actor,
    /// What it was to work on is gone.
    Input,
}

/// What a stage has done.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Done {
    /// Calls that ended well.
    pub calls: u32,
    /// Images in them.
    pub images: u64,
    /// Time of all its actors.
    pub busy: Duration,
    /// Most images that waited for it at once.
    pub most_waiting: usize,
    /// Seconds for an image in the latest calls.
    pub(super) recent: f64,
}

impl Done {
    /// Seconds for an image.
    pub fn cost(&self) -> f64 {
        self.busy.as_secs_f64() / self.images.max(1) as f64
    }
}
