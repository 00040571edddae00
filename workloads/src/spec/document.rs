//! TOML read key by key, so that every complaint knows its line, what would have been right, and
//! what was probably meant.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::nearest::nearest;

/// What is wrong with a job's TOML or with a `--set`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// No TOML.
    #[error("{place}: {reason}")]
    Syntax {
        /// File and line.
        place: String,
        /// What the parser says.
        reason: String,
    },
    /// A key that means nothing.
    #[error("{place}: there is no key `{key}`{}; allowed: {}", guess(nearest), allowed.join(", "))]
    Key {
        /// File and line, or the override.
        place: String,
        /// The key, with its section.
        key: String,
        /// An allowed key much like it.
        nearest: Option<String>,
        /// All of them.
        allowed: Vec<String>,
    },
    /// A name that means nothing.
    #[error("{place}: {key} = \"{found}\" is unknown{}; allowed: {}", guess(nearest),
            allowed.join(", "))]
    Choice {
        /// File and line, or the override.
        place: String,
        /// The key, with its section.
        key: String,
        /// The name.
        found: String,
        /// An allowed name much like it.
        nearest: Option<String>,
        /// All of them.
        allowed: Vec<String>,
    },
    /// A value of another type, or out of range.
    #[error("{place}: {key} is {found}, expected {expected}")]
    Value {
        /// File and line, or the override.
        place: String,
        /// The key, with its section.
        key: String,
        /// The value.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// A `--set` that sets nothing.
    #[error("--set {given}: expected the form section.key=value, as in train.epochs=2")]
    Override {
        /// What was given.
        given: String,
    },
}

fn guess(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |nearest| format!(", did you mean `{nearest}`?"))
}

/// A value with the place that it comes from.
#[derive(Debug, Clone)]
struct Placed {
    place: String,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Text(String),
    Integer(i64),
    Float(f64),
    Flag(bool),
    Table(BTreeMap<String, Placed>),
    /// Something that no key here takes, as its type is called.
    Other(&'static str),
}

impl Content {
    fn describe(&self) -> String {
        match self {
            Self::Text(text) => format!("the text \"{text}\""),
            Self::Integer(n) => format!("the integer {n}"),
            Self::Float(n) => format!("the number {n}"),
            Self::Flag(flag) => format!("the flag {flag}"),
            Self::Table(_) => "a section".to_owned(),
            Self::Other(what) => format!("of type {what}"),
        }
    }
}

impl Display for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(n) => n.fmt(f),
            Self::Float(n) => n.fmt(f),
            Self::Flag(flag) => flag.fmt(f),
            Self::Table(_) | Self::Other(_) => f.write_str(&self.describe()),
        }
    }
}

/// One key, for the reference page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    pub key: String,
    /// Type and range.
    pub kind: String,
    /// As it would stand in the TOML; words where it depends.
    pub default: String,
    pub about: &'static str,
}

/// A whole TOML.
pub(super) struct Document {
    root: BTreeMap<String, Placed>,
    /// All keys that were asked for.
    described: RefCell<Vec<Described>>,
}

impl Document {
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, SpecError> {
        let line = |at: usize| {
            let before = &text.as_bytes()[..at.min(text.len())];
            1 + before.iter().filter(|byte| **byte == b'\n').count()
        };
        let place = |at: usize| format!("{file}, line {}", line(at));
        let table = DeTable::parse(text).map_err(|error| SpecError::Syntax {
            place: place(error.span().map_or(0, |span| span.start)),
            reason: error.message().trim().to_owned(),
        })?;
        let root = convert(table.get_ref(), &place);
        Ok(Self { root, described: RefCell::default() })
    }

    /// Puts `section.key=value` on top.
    pub(super) fn set(&mut self, given: &str) -> Result<(), SpecError> {
        let wrong = || SpecError::Override { given: given.to_owned() };
        let (path, value) = given.split_once('=').ok_or_else(wrong)?;
        let keys: Vec<&str> = path.split('.').map(str::trim).collect();
        let place = format!("--set {given}");
        let placed = Placed { place: place.clone(), content: loose(value.trim()) };
        let (section, key) = match keys[..] {
            [key] if key == "name" => (None, key),
            [section, key] if !section.is_empty() && !key.is_empty() => (Some(section), key),
            _ => return Err(wrong()),
        };
        let Some(section) = section else {
            self.root.insert(key.to_owned(), placed);
            return Ok(());
        };
        let table = || Placed { place, content: Content::Table(BTreeMap::new()) };
        let section = self.root.entry(section.to_owned()).or_insert_with(table);
        // A section that is none in the file is complained about when it is read.
        if let Content::Table(table) = &mut section.content {
            table.insert(key.to_owned(), placed);
        }
        Ok(())
    }

    pub(super) fn root(&self) -> Section<'_> {
        Section { name: "", table: Some(&self.root), asked: Vec::new(), described: &self.described }
    }

    /// Every key that was asked for: its value in words, and whether it was given.
    pub(super) fn settings(&self) -> Vec<(String, String, bool)> {
        let given = |key: &str| match key.split_once('.') {
            None => self.root.get(key),
            Some((section, key)) => match &self.root.get(section)?.content {
                Content::Table(table) => table.get(key),
                _ => None,
            },
        };
        let setting = |Described { key, default, .. }: &Described| match given(key) {
            Some(placed) => (key.clone(), placed.content.to_string(), true),
            None => (key.clone(), default.replace(['"', '`'], ""), false),
        };
        self.described.borrow().iter().map(setting).collect()
    }

    pub(super) fn described(&self) -> Vec<Described> {
        self.described.borrow().clone()
    }
}

/// The value of a `--set`: TOML where it is TOML, else text without its quotes.
fn loose(value: &str) -> Content {
    let line = format!("value = {value}");
    let place = |_: usize| String::new();
    let parsed = DeTable::parse(&line).ok();
    let content = parsed.and_then(|table| convert(table.get_ref(), &place).remove("value"));
    content.map_or_else(|| Content::Text(value.to_owned()), |placed| placed.content)
}

fn convert(table: &DeTable<'_>, place: &impl Fn(usize) -> String) -> BTreeMap<String, Placed> {
    let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let key: &toml::Spanned<std::borrow::Cow<'_, str>> = key;
        let content = match value.get_ref() {
            DeValue::String(text) => Content::Text(text.to_string()),
            DeValue::Integer(n) => {
                let parsed = i64::from_str_radix(n.as_str(), n.radix());
                parsed.map_or(Content::Other("integer of more than 64 bits"), Content::Integer)
            }
            DeValue::Float(n) => n.as_str().parse().map_or(Content::Other("float"), Content::Float),
            DeValue::Boolean(flag) => Content::Flag(*flag),
            DeValue::Table(table) => Content::Table(convert(table, place)),
            other => Content::Other(other.type_str()),
        };
        (key.get_ref().to_string(), Placed { place: place(key.span().start), content })
    };
    table.iter().map(entry).collect()
}

/// One table, while its keys are read. What was not asked for is unknown.
///
/// Each key is asked for with what the reference page says of it, so that the page cannot be
/// about other keys than those that are read.
pub(super) struct Section<'a> {
    name: &'a str,
    table: Option<&'a BTreeMap<String, Placed>>,
    asked: Vec<&'static str>,
    described: &'a RefCell<Vec<Described>>,
}

impl<'a> Section<'a> {
    fn take(&mut self, key: &'static str) -> Option<&'a Placed> {
        self.asked.push(key);
        self.table.and_then(|table| table.get(key))
    }

    fn describe(&self, key: &str, kind: String, default: impl Display, about: &'static str) {
        let (key, default) = (self.path(key), default.to_string());
        self.described.borrow_mut().push(Described { key, kind, default, about });
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn wrong(&self, key: &str, placed: &Placed, expected: &str) -> SpecError {
        let (place, found) = (placed.place.clone(), placed.content.describe());
        SpecError::Value { place, key: self.path(key), found, expected: expected.to_owned() }
    }

    /// Where a key stands; for messages.
    pub(super) fn place(&self, key: &'static str) -> String {
        let placed = self.table.and_then(|table| table.get(key));
        placed.map_or_else(|| "the job".to_owned(), |placed| placed.place.clone())
    }

    /// Whether a key was given.
    pub(super) fn is_given(&self, key: &'static str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// What is wrong with a key whose value is right by itself, but not beside the others.
    pub(super) fn unfit(&self, key: &'static str, expected: &str) -> SpecError {
        match self.table.and_then(|table| table.get(key)) {
            Some(placed) => self.wrong(key, placed, expected),
            None => SpecError::Value {
                place: self.place(key),
                key: self.path(key),
                found: "not given".to_owned(),
                expected: expected.to_owned(),
            },
        }
    }

    /// A table below.
    pub(super) fn section(&mut self, key: &'static str) -> Result<Section<'a>, SpecError> {
        let table = match self.take(key) {
            None => None,
            Some(Placed { content: Content::Table(table), .. }) => Some(table),
            Some(placed) => return Err(self.wrong(key, placed, &format!("a section [{key}]"))),
        };
        Ok(Section { name: key, table, asked: Vec::new(), described: self.described })
    }

    /// Text. `default` says in words what stands for it.
    pub(super) fn text(
        &mut self,
        key: &'static str,
        default: &'static str,
        about: &'static str,
    ) -> Result<Option<String>, SpecError> {
        self.describe(key, "text".to_owned(), default, about);
        match self.take(key) {
            None => Ok(None),
            Some(Placed { content: Content::Text(text), .. }) => Ok(Some(text.clone())),
            Some(placed) => Err(self.wrong(key, placed, "text in quotes")),
        }
    }

    /// The name of a file or folder, which is not empty: `expected` says in words of what it is.
    pub(super) fn named(
        &mut self,
        key: &'static str,
        default: &'static str,
        about: &'static str,
        expected: &str,
    ) -> Result<Option<PathBuf>, SpecError> {
        let text = self.text(key, default, about)?;
        if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
            return Err(self.unfit(key, &format!("{expected}; left out, the key is {default}")));
        }
        Ok(text.map(PathBuf::from))
    }

    /// `true` or `false`.
    pub(super) fn flag(
        &mut self,
        key: &'static str,
        default: bool,
        about: &'static str,
    ) -> Result<bool, SpecError> {
        self.describe(key, "true or false".to_owned(), default, about);
        match self.take(key) {
            None => Ok(default),
            Some(Placed { content: Content::Flag(flag), .. }) => Ok(*flag),
            Some(placed) => Err(self.wrong(key, placed, "true or false")),
        }
    }

    /// `true` or `false`, or one word that stands for neither.
    pub(super) fn flag_or(
        &mut self,
        key: &'static str,
        word: &'static str,
        default: bool,
        about: &'static str,
    ) -> Result<Option<bool>, SpecError> {
        let kind = format!("true, false, or \"{word}\"");
        self.describe(key, kind.clone(), default, about);
        match self.take(key) {
            None => Ok(Some(default)),
            Some(Placed { content: Content::Flag(flag), .. }) => Ok(Some(*flag)),
            Some(Placed { content: Content::Text(text), .. }) if text == word => Ok(None),
            Some(placed) => Err(self.wrong(key, placed, &kind)),
        }
    }

    /// An integer within bounds.
    pub(super) fn integer(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
        default: u64,
        about: &'static str,
    ) -> Result<u64, SpecError> {
        let kind = format!("an integer {}", bounds(&range));
        self.describe(key, kind.clone(), default, about);
        let Some(placed) = self.take(key) else { return Ok(default) };
        let accepted = match placed.content {
            Content::Integer(n) => u64::try_from(n).ok().filter(|n| range.contains(n)),
            _ => None,
        };
        accepted.ok_or_else(|| self.wrong(key, placed, &kind))
    }

    /// An integer within bounds, or one word that stands for none.
    pub(super) fn integer_or(
        &mut self,
        key: &'static str,
        word: &'static str,
        range: RangeInclusive<u64>,
        default: Option<u64>,
        about: &'static str,
    ) -> Result<Option<u64>, SpecError> {
        let kind = format!("an integer {}, or \"{word}\"", bounds(&range));
        let shown = default.map_or_else(|| format!("\"{word}\""), |default| default.to_string());
        self.describe(key, kind.clone(), shown, about);
        let Some(placed) = self.take(key) else { return Ok(default) };
        let count = match &placed.content {
            Content::Text(text) if text == word => return Ok(None),
            Content::Integer(n) => u64::try_from(*n).ok().filter(|n| range.contains(n)),
            _ => None,
        };
        count.map(Some).ok_or_else(|| self.wrong(key, placed, &kind))
    }

    /// A number that `accept` takes; `range` says which those are.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        range: &'static str,
        accept: impl Fn(f64) -> bool,
        default: f64,
        about: &'static str,
    ) -> Result<f64, SpecError> {
        Ok(self.number_or(key, range, accept, default, about)?.unwrap_or(default))
    }

    /// A number that may be left out; `default` says in words what that means.
    pub(super) fn number_or(
        &mut self,
        key: &'static str,
        range: &'static str,
        accept: impl Fn(f64) -> bool,
        default: impl Display,
        about: &'static str,
    ) -> Result<Option<f64>, SpecError> {
        self.describe(key, format!("a number {range}"), default, about);
        let Some(placed) = self.take(key) else { return Ok(None) };
        let number = match placed.content {
            Content::Integer(n) => Some(n as f64),
            Content::Float(n) => Some(n),
            _ => None,
        };
        let wrong = || self.wrong(key, placed, &format!("a number {range}"));
        number.filter(|n| accept(*n)).ok_or_else(wrong).map(Some)
    }

    /// One of some names.
    pub(super) fn choice<T: Copy + PartialEq>(
        &mut self,
        key: &'static str,
        names: &[(&'static str, T)],
        default: T,
        about: &'static str,
    ) -> Result<T, SpecError> {
        let named = names.iter().find(|(_, value)| *value == default);
        let shown = named.map_or_else(|| "none".to_owned(), |(name, _)| format!("\"{name}\""));
        let chosen = self.choice_or(key, names, shown, about)?;
        Ok(chosen.unwrap_or(default))
    }

    /// One of some names; may be left out, which `default` describes.
    pub(super) fn choice_or<T: Copy>(
        &mut self,
        key: &'static str,
        names: &[(&'static str, T)],
        default: impl Display,
        about: &'static str,
    ) -> Result<Option<T>, SpecError> {
        let allowed = || names.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>();
        let quoted: Vec<String> = names.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        self.describe(key, quoted.join(", "), default, about);
        let Some(placed) = self.take(key) else { return Ok(None) };
        let Content::Text(found) = &placed.content else {
            return Err(self.wrong(key, placed, &format!("one of {}", allowed().join(", "))));
        };
        if let Some((_, value)) = names.iter().find(|(name, _)| name == found) {
            return Ok(Some(*value));
        }
        let (place, found) = (placed.place.clone(), found.clone());
        let nearest = nearest(&found, names.iter().map(|(name, _)| *name));
        let (key, allowed) = (self.path(key), allowed());
        Err(SpecError::Choice { place, key, found, nearest, allowed })
    }

    /// Complains about the first key that nobody asked for.
    pub(super) fn finish(self) -> Result<(), SpecError> {
        let mut keys = self.table.into_iter().flatten();
        let Some((key, placed)) = keys.find(|(key, _)| !self.asked.contains(&key.as_str())) else {
            return Ok(());
        };
        Err(SpecError::Key {
            place: placed.place.clone(),
            key: self.path(key),
            nearest: nearest(key, self.asked.iter().copied()),
            allowed: self.asked.iter().map(|key| (*key).to_owned()).collect(),
        })
    }
}

fn bounds(range: &RangeInclusive<u64>) -> String {
    match (*range.start(), *range.end()) {
        // As much as any count here can be: no bound to speak of.
        (least, most) if most >= u32::MAX.into() => format!("of at least {least}"),
        (least, most) => format!("from {least} to {most}"),
    }
}
