//! Metrics, one per file, each with its unit and its direction. They are pure functions of what a
//! model said of images whose classes are known; scikit-learn's values on the same data are their
//! tests.

pub mod accuracy;
pub mod confusion;
pub mod f1;
pub mod loss;
pub mod precision;
pub mod recall;
pub mod roc_auc;

use rkyv::{Archive, Deserialize, Serialize};

pub use confusion::Confusion;

/// What is counted while images are shown to a model in training.
#[derive(Debug, Clone, Copy, Default, PartialEq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Tally {
    /// Images shown.
    pub images: u64,
    /// Of them, classified rightly.
    pub correct: u64,
    /// Sum of the images' losses.
    pub loss: f64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.images += other.images;
        self.correct += other.correct;
        self.loss += other.loss;
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |mut sum, tally| {
            sum += tally;
            sum
        })
    }
}

impl Tally {
    /// The mean loss; `None` where nothing was shown.
    pub fn mean_loss(&self) -> Option<f64> {
        (self.images > 0).then(|| self.loss / self.images as f64)
    }

    /// The share that was classified rightly.
    pub fn accuracy(&self) -> Option<f64> {
        (self.images > 0).then(|| self.correct as f64 / self.images as f64)
    }
}

/// Most classes whose probabilities are all kept: of more, they would take more room than the
/// images.
pub const MOST_SCORED: u32 = 100;

/// How many probabilities are kept of an image.
pub fn scores_of(classes: u32) -> usize {
    match classes {
        2 => 1,
        3..=MOST_SCORED => classes as usize,
        _ => 0,
    }
}

/// What a model said of images; parts of a set are joined in the order of the set.
#[derive(Debug, Clone, Default, PartialEq, Archive, Serialize, Deserialize)]
#[allow(missing_docs, reason = "rkyv copies fields without their docs")]
pub struct Answers {
    /// The likeliest class of each image.
    pub classes: Vec<u32>,
    /// Its probability.
    pub certainty: Vec<f32>,
    /// Image by image: with two classes the probability of class 1, with [`MOST_SCORED`] at most
    /// that of each class; with more, or with one, empty.
    pub scores: Vec<f32>,
    /// Sum of the losses of images with a label.
    pub loss: f64,
}

impl Answers {
    /// Adds those of the images that follow.
    pub fn extend(&mut self, other: Self) {
        self.classes.extend(other.classes);
        self.certainty.extend(other.certainty);
        self.scores.extend(other.scores);
        self.loss += other.loss;
    }
}

/// What metrics are computed from. Images without a label are left out.
#[derive(Debug, Clone)]
pub struct Seen {
    /// True and seen class of each image.
    pub pairs: Vec<(u32, u32)>,
    /// As in [`Answers`].
    pub scores: Vec<f32>,
    /// Sum of the losses.
    pub loss: f64,
    /// How many classes there are.
    pub classes: u32,
}

impl Seen {
    /// Joins answers with the true `labels`, of as many images.
    pub fn new(answers: &Answers, labels: &[u32], classes: u32) -> Self {
        let known = |index: &usize| labels[*index] < classes;
        let indices: Vec<usize> = (0..labels.len()).filter(known).collect();
        let pairs = indices.iter().map(|index| (labels[*index], answers.classes[*index])).collect();
        let width = scores_of(classes);
        let scores = match answers.scores.len() == labels.len() * width {
            true => indices.iter().flat_map(|index| &answers.scores[index * width..][..width]),
            false => return Self { pairs, scores: Vec::new(), loss: answers.loss, classes },
        };
        Self { pairs, scores: scores.copied().collect(), loss: answers.loss, classes }
    }

    /// Whether it tells two classes apart; then precision, recall and F1 are of class 1, else the
    /// mean over all classes.
    pub fn is_binary(&self) -> bool {
        self.classes == 2
    }
}

/// A figure that tells how good a model is.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name in events, tables and the TOML.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// The figure; `None` where it means nothing, for instance when nothing was shown.
    pub of: fn(&Seen) -> Option<f64>,
}

impl PartialEq for Metric {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Metric {
    /// Every one, in the order of tables.
    pub const ALL: [Self; 7] = [
        loss::LOSS,
        accuracy::ACCURACY,
        precision::PRECISION,
        recall::RECALL,
        f1::F1,
        f1::MACRO_F1,
        roc_auc::ROC_AUC,
    ];

    /// The one of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name == name)
    }

    /// Whether `new` is better than `old`; anything is better than nothing.
    pub fn is_better(&self, new: Option<f64>, old: Option<f64>) -> bool {
        match (new, old) {
            (Some(new), Some(old)) if self.higher_is_better => new > old,
            (Some(new), Some(old)) => new < old,
            (Some(new), None) => new.is_finite(),
            (None, _) => false,
        }
    }
}

#[cfg(test)]
mod tests;
