//! Batches of images as numbers, made beside the steps that use them, also between two calls: a
//! strategy that has replicas take one step at a time says which images are likely to be next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::data::Images;
use crate::data::augment::{Augment, Change, Normal, show};
use crate::data::random::Random;

/// Batches that are made before they are asked for.
const AHEAD: usize = 2;
/// Images of fewer bytes are made faster than a thread is told to.
const LARGE_IMAGE: usize = 4_096;

/// Images, ready to be shown.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Pixel by pixel; see [`tensor::batch`](crate::tensor::batch).
    pub(super) values: Vec<f32>,
    /// Their classes.
    pub(super) labels: Vec<i64>,
}

/// How images are shown.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Look {
    pub(super) normal: Normal,
    /// With the seed and the number of the epoch; `None`: images as they are.
    pub(super) augment: Option<(Augment, u64, u64)>,
}

impl Batch {
    /// Fills it with the images of these indices.
    pub(super) fn fill(&mut self, images: &dyn Images, look: &Look, indices: &[u32]) {
        const PURPOSE: u64 = 0xa43e17;
        let shape = images.shape();
        let size = shape.len();
        self.labels.clear();
        self.values.resize(indices.len() * size, 0.0);
        for (index, target) in indices.iter().zip(self.values.chunks_exact_mut(size.max(1))) {
            let at = *index as usize;
            let change = look.augment.map_or(Change::NONE, |(augment, seed, epoch)| {
                let mut random = Random::new(&[seed, PURPOSE, epoch, u64::from(*index)]);
                augment.draw(shape, &mut random)
            });
            show(images.image(at), shape, &look.normal, &change, target);
            self.labels.push(i64::from(images.label(at)));
        }
    }
}

/// Indices of images, so many to a batch.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    /// Those to learn from.
    pub(super) now: &'a [u32],
    /// Those that are likely to come after them.
    pub(super) next: &'a [u32],
    pub(super) size: usize,
}

/// See the module.
#[derive(Default)]
pub(super) struct Feed {
    maker: Option<Maker>,
    /// What the maker was asked for and has not handed over, in order.
    asked: VecDeque<Arc<Wanted>>,
    /// Batches whose memory is free.
    spare: Vec<Batch>,
}

/// All that a batch depends on.
struct Wanted {
    images: Arc<dyn Images>,
    look: Look,
    indices: Vec<u32>,
}

/// The thread; it ends when nobody asks any more.
struct Maker {
    wanted: Sender<(Arc<Wanted>, Batch)>,
    made: Receiver<Batch>,
}

impl Feed {
    /// Hands the batches of `run.now` to `learn` in their order. Where they take time to make,
    /// another thread makes the following ones meanwhile, and goes on with those of `run.next`.
    pub(super) fn each<I: Images + 'static>(
        &mut self,
        images: &Arc<I>,
        look: &Look,
        run: Run<'_>,
        mut learn: impl FnMut(&Batch),
    ) {
        let size = run.size.max(1);
        if look.augment.is_none() && images.shape().len() < LARGE_IMAGE {
            let mut batch = self.spare.pop().unwrap_or_default();
            for chunk in run.now.chunks(size) {
                batch.fill(&**images, look, chunk);
                learn(&batch);
            }
            self.spare.push(batch);
            return;
        }
        let next = run.next.chunks(size).take(AHEAD);
        let chunks: Vec<Arc<Wanted>> = run
            .now
            .chunks(size)
            .chain(next)
            .map(|chunk| Wanted::new(images, look, chunk))
            .collect();
        // What was asked for in time comes; what was guessed wrong is in the way.
        if self.asked.iter().zip(&chunks).any(|(asked, chunk)| asked != chunk) {
            while let Some(batch) = self.take() {
                self.spare.push(batch);
            }
        }
        for at in 0..run.now.len().div_ceil(size) {
            self.ask(&chunks[at..]);
            let Some(batch) = self.take() else { return };
            self.ask(&chunks[at + 1..]);
            learn(&batch);
            self.spare.push(batch);
        }
    }

    /// Has the maker work `AHEAD` batches ahead; `chunks` begin with those that it knows of.
    fn ask(&mut self, chunks: &[Arc<Wanted>]) {
        for chunk in chunks.iter().take(AHEAD).skip(self.asked.len()) {
            let maker = self.maker.get_or_insert_with(Maker::start);
            let batch = self.spare.pop().unwrap_or_default();
            // A maker that panicked takes nothing; `take` makes the batch itself.
            let _ = maker.wanted.send((chunk.clone(), batch));
            self.asked.push_back(chunk.clone());
        }
    }

    /// The first batch that was asked for.
    fn take(&mut self) -> Option<Batch> {
        let wanted = self.asked.pop_front()?;
        let made = self.maker.as_ref().and_then(|maker| maker.made.recv().ok());
        Some(made.unwrap_or_else(|| wanted.make(Batch::default())))
    }
}

impl Wanted {
    fn new<I: Images + 'static>(images: &Arc<I>, look: &Look, indices: &[u32]) -> Arc<Self> {
        Arc::new(Self { images: images.clone(), look: *look, indices: indices.to_vec() })
    }

    fn make(&self, mut batch: Batch) -> Batch {
        batch.fill(&*self.images, &self.look, &self.indices);
        batch
    }
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.images, &other.images)
            && self.look == other.look
            && self.indices == other.indices
    }
}

impl Maker {
    fn start() -> Self {
        let ((wanted, asked), (full, made)) = (channel::<(Arc<Wanted>, Batch)>(), channel());
        thread::spawn(move || {
            for (wanted, batch) in asked {
                if full.send(wanted.make(batch)).is_err() {
                    return;
                }
            }
        });
        Self { wanted, made }
    }
}
