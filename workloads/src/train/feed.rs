//! Batches of images as numbers, made beside the steps that use them.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

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
#[derive(Clone, Copy)]
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

/// Hands the batches of `positions`, so many images each, to `learn` in their order. Where they
/// take time to make, another thread makes them meanwhile.
pub(super) fn each_batch(
    images: &dyn Images,
    look: &Look,
    positions: &[u32],
    size: usize,
    mut learn: impl FnMut(&Batch),
) {
    if look.augment.is_none() && images.shape().len() < LARGE_IMAGE {
        let mut batch = Batch::default();
        for chunk in positions.chunks(size.max(1)) {
            batch.fill(images, look, chunk);
            learn(&batch);
        }
        return;
    }
    std::thread::scope(|scope| {
        let (full, filled) = sync_channel(AHEAD);
        let (used, empty) = channel();
        scope.spawn(move || make(images, look, positions.chunks(size.max(1)), &full, &empty));
        take(&filled, &used, &mut learn);
    });
}

fn make<'a>(
    images: &dyn Images,
    look: &Look,
    chunks: impl Iterator<Item = &'a [u32]>,
    full: &SyncSender<Batch>,
    empty: &Receiver<Batch>,
) {
    for chunk in chunks {
        let mut batch = empty.try_recv().unwrap_or_default();
        batch.fill(images, look, chunk);
        if full.send(batch).is_err() {
            return;
        }
    }
}

/// Until there are no more.
fn take(filled: &Receiver<Batch>, used: &Sender<Batch>, learn: &mut impl FnMut(&Batch)) {
    while let Ok(batch) = filled.recv() {
        learn(&batch);
        // The other end is gone when it has made the last batch.
        let _ = used.send(batch);
    }
}
