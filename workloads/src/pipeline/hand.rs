//! An actor of the pipeline. Each one can do the work of every stage, so that it can go from one
//! to another without being made anew; what a stage needs (buffers, the model) is made with its
//! first call.
//!
//! What goes from stage to stage lies in the object store: it is written there in place and read
//! there in place; calls carry references.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use rdist::prelude::*;

use crate::data::augment::{Change, Normal, show};
use crate::data::picture::Decoder;
use crate::data::stored::Chunk;
use crate::data::{Images, Shape};
use crate::device::Processor;
use crate::metric::Answers;
use crate::model::ready::Ready;
use crate::model::{Architecture, Input};
use crate::tensor;
use crate::train::replica::INPUT_LOST;
use crate::train::trainer::answers_of;

/// Larger files are no pictures.
const MAX_FILE_BYTES: u64 = 48 << 20;

/// What all actors of a pipeline know.
#[rdist::value]
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Duty {
    pub architecture: Architecture,
    pub input: Input,
    pub normal: Normal,
    /// Of those that predict.
    pub processor: Processor,
    /// Of the model.
    pub parameters: ObjectRef<Vec<f32>>,
}

/// Where pixels lie.
#[rdist::value]
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "rkyv copies variants without their docs")]
pub enum Pixels {
    /// Image after image.
    Bytes(ObjectRef<Vec<u8>>),
    /// A part of a data set.
    Chunk(ObjectRef<Chunk>),
}

/// Images of an object, for a batch.
#[rdist::value]
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Part {
    pub pixels: Pixels,
    /// Position of the first one.
    pub first: u32,
    pub count: u32,
}

/// What came of a call.
#[rdist::value]
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Product {
    /// `None`: nothing was of use.
    pub object: Option<ObjectRef<Vec<u8>>>,
    /// The rows in it.
    pub rows: Vec<u32>,
    /// Of files: where each ends.
    pub ends: Vec<u32>,
    /// Rows that are no use, and why.
    pub failed: Vec<(u32, String)>,
    /// What the model says of them.
    pub answers: Answers,
    /// Time that it took.
    pub nanos: u64,
}

impl Product {
    fn of(object: Option<ObjectRef<Vec<u8>>>, started: Instant) -> Self {
        Self {
            object,
            rows: Vec::new(),
            ends: Vec::new(),
            failed: Vec::new(),
            answers: Answers::default(),
            nanos: started.elapsed().as_nanos() as u64,
        }
    }
}

/// See the module.
pub(super) struct Hand {
    duty: Duty,
    decoder: Decoder,
    model: Option<Ready>,
}

#[rdist::actor]
impl Hand {
    pub(super) fn new(duty: Duty) -> Self {
        // One thread: there are other actors for the other CPUs.
        tch::set_num_threads(1);
        let decoder = Decoder::new(duty.input.shape);
        Self { duty, decoder, model: None }
    }

    /// The worker that it is on.
    pub(super) fn place(&self, cx: &Context) -> String {
        format!("{:?}", cx.worker_id())
    }

    /// Reads files, each by its row and its path's bytes.
    pub(super) fn read(
        &mut self,
        cx: &Context,
        files: Vec<(u32, Vec<u8>)>,
    ) -> Result<Product, String> {
        let started = Instant::now();
        let (mut open, mut failed, mut total) = (Vec::with_capacity(files.len()), Vec::new(), 0);
        for (row, path) in files {
            match opened(OsStr::from_bytes(&path)) {
                Ok((file, len)) => {
                    open.push((row, file, total..total + len));
                    total += len;
                }
                Err(error) => failed.push((row, error.to_string())),
            }
        }
        let mut target = cx.create(total).map_err(text)?;
        let (mut rows, mut ends) = (Vec::with_capacity(open.len()), Vec::new());
        let mut at = 0;
        for (row, mut file, range) in open {
            // One that could not be read leaves its room to the next one.
            let range = at..at + range.len();
            match file.read_exact(&mut target[range.clone()]) {
                Ok(()) => {
                    at = range.end;
                    rows.push(row);
                    ends.push(at as u32);
                }
                Err(error) => failed.push((row, error.to_string())),
            }
        }
        target[at..].fill(0);
        let object = (!rows.is_empty()).then(|| target.seal());
        Ok(Product { rows, ends, failed, ..Product::of(object, started) })
    }

    /// Decodes files, the first of which starts at byte `first`, and makes them the model's size.
    pub(super) fn decode(
        &mut self,
        cx: &Context,
        bytes: View<Vec<u8>>,
        first: u32,
        rows: Vec<u32>,
        ends: Vec<u32>,
    ) -> Result<Product, String> {
        let started = Instant::now();
        let size = self.duty.input.shape.len();
        let mut target = cx.create(rows.len() * size).map_err(text)?;
        let (mut good, mut failed) = (Vec::with_capacity(rows.len()), Vec::new());
        let (bytes, mut from): (&[u8], usize) = (&bytes, first as usize);
        for (row, end) in rows.into_iter().zip(ends) {
            let file = bytes.get(from..end as usize).unwrap_or_default();
            from = end as usize;
            let at = good.len() * size;
            match self.decoder.decode_into(file, &mut target[at..at + size]) {
                Ok(()) => good.push(row),
                Err(error) => failed.push((row, error.to_string())),
            }
        }
        let object = (!good.is_empty()).then(|| target.seal());
        Ok(Product { rows: good, failed, ..Product::of(object, started) })
    }

    /// Pixels to numbers; what is of several objects becomes one.
    pub(super) fn normalise(&mut self, cx: &Context, parts: Vec<Part>) -> Result<Product, String> {
        let started = Instant::now();
        let shape = self.duty.input.shape;
        let count: usize = parts.iter().map(|part| part.count as usize).sum();
        let mut target = cx.create(count * shape.len() * size_of::<f32>()).map_err(text)?;
        let values = tensor::floats_mut(&mut target).ok_or("the batch's memory is not aligned")?;
        let mut targets = values.chunks_exact_mut(shape.len().max(1));
        for Part { pixels, first, count } in &parts {
            let range = *first as usize..(*first + *count) as usize;
            match pixels {
                Pixels::Bytes(object) => {
                    let view = object.read().map_err(lost)?;
                    let images = view.chunks_exact(shape.len().max(1));
                    let images = images.skip(range.start).take(range.len());
                    images.zip(&mut targets).for_each(|(image, target)| {
                        self.normalise_one(image, shape, target);
                    });
                }
                Pixels::Chunk(object) => {
                    let view = object.read().map_err(lost)?;
                    range.zip(&mut targets).for_each(|(at, target)| {
                        self.normalise_one(view.images.image(at), shape, target);
                    });
                }
            }
        }
        Ok(Product::of(Some(target.seal()), started))
    }

    /// What the model says of a batch's images from `first` on; their `labels` are for the loss.
    pub(super) fn predict(
        &mut self,
        batch: View<Vec<u8>>,
        first: u32,
        labels: Vec<u32>,
    ) -> Result<Product, String> {
        if self.model.is_none() {
            self.model = Some(self.duty.ready()?);
        }
        let started = Instant::now();
        let model = self.model.as_ref().ok_or("there is no model")?;
        let Input { shape, classes, .. } = self.duty.input;
        let [from, to] = [first as usize, first as usize + labels.len()]
            .map(|image| image * shape.len() * size_of::<f32>());
        let images = batch.get(from..to).ok_or("the batch has fewer images than it should")?;
        let scores = tensor::scores_in_place(model, images, shape);
        let scores = scores.ok_or("the batch's memory is not aligned")?;
        let labels: Vec<i64> = labels.into_iter().map(i64::from).collect();
        if scores.size() != [labels.len() as i64, classes] {
            let text = format!("scores of {:?} for {} images", scores.size(), labels.len());
            return Err(text);
        }
        let answers = answers_of(&scores, &labels, classes);
        Ok(Product { answers, ..Product::of(None, started) })
    }
}

impl Hand {
    fn normalise_one(&self, image: &[u8], shape: Shape, target: &mut [f32]) {
        show(image, shape, &self.duty.normal, &Change::NONE, target);
    }
}

impl Duty {
    /// The model with its parameters.
    fn ready(&self) -> Result<Ready, String> {
        let parameters = self.parameters.read().map_err(lost)?;
        let model = self.architecture.build(&self.input);
        let device = self.processor.device()?;
        let ready = Ready::on(device, model, tensor::floats(&parameters));
        ready.ok_or_else(|| "the parameters are of another model".to_owned())
    }
}

fn opened(path: &OsStr) -> io::Result<(File, usize)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("no file of at most {MAX_FILE_BYTES} bytes")));
    }
    Ok((file, metadata.len() as usize))
}

fn lost(error: Error) -> String {
    format!("{INPUT_LOST}: {error}")
}

fn text(error: Error) -> String {
    error.to_string()
}
