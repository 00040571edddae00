//! Rules about the labels of workers, for [`Placement::labels`](crate::Placement::labels).

use rdist_scheduler::spec::{LabelRule, LabelTest};

/// A label by its name; its methods make rules of it. Workers get labels as they join:
/// `rdist worker join --label zone=a --label disk=nvme`.
///
/// ```
/// use rdist::{Placement, label};
///
/// // Where there is a fast disk, but not in zone c; rather in zone a, and on a spare machine.
/// let fast = Placement::labels([label("disk").one_of(["ssd", "nvme"]), label("zone").is_not("c")])
///     .preferring([label("zone").is("a"), label("spare").exists()]);
/// ```
pub fn label(name: &str) -> Label {
    Label { key: name.to_owned() }
}

/// A label by its name; see [`label`].
#[derive(Debug, Clone)]
#[must_use = "a label by itself is no rule"]
pub struct Label {
    key: String,
}

impl Label {
    /// It has this value.
    pub fn is(self, value: &str) -> LabelRule {
        self.one_of([value])
    }

    /// It has another value than this, or the worker does not have it.
    pub fn is_not(self, value: &str) -> LabelRule {
        self.none_of([value])
    }

    /// It has one of these values.
    pub fn one_of<'a>(self, values: impl IntoIterator<Item = &'a str>) -> LabelRule {
        LabelRule { key: self.key, test: LabelTest::In(owned(values)) }
    }

    /// It has none of these values, or the worker does not have it.
    pub fn none_of<'a>(self, values: impl IntoIterator<Item = &'a str>) -> LabelRule {
        LabelRule { key: self.key, test: LabelTest::NotIn(owned(values)) }
    }

    /// The worker has it, whatever its value.
    pub fn exists(self) -> LabelRule {
        LabelRule { key: self.key, test: LabelTest::Exists }
    }

    /// The worker does not have it.
    pub fn is_absent(self) -> LabelRule {
        LabelRule { key: self.key, test: LabelTest::Absent }
    }
}

fn owned<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    values.into_iter().map(str::to_owned).collect()
}
