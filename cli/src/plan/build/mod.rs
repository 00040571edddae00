//! From the text of a TOML to a checked plan.

mod limits;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use toml::Spanned;

use super::document::{ArrayText, CommandText, Document, InputText, Task};
use super::range::indices;
use super::{Input, InputSource, Invocation, MAX_STEPS, Plan, PlanError, Step, with_index};

/// Most pairs of a step and one that it comes after.
const MAX_PAIRS: usize = 5_000_000;

/// The plan that `text`, the content of `file`, describes. Files of the client are relative to the
/// file's folder, and must be there.
pub(crate) fn build(file: &Path, text: &str) -> Result<Plan, PlanError> {
    let shown = file.display().to_string();
    let document: Document = toml::from_str(text).map_err(|error| PlanError {
        place: place(&shown, text, error.span().unwrap_or_default()),
        what: error.message().trim().to_owned(),
    })?;
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let builder = Builder {
        shown,
        text,
        folder: file.parent().unwrap_or(Path::new("")).to_owned(),
        document: &document,
        tasks: Vec::new(),
        by_name: HashMap::new(),
        files: Vec::new(),
    };
    let mut plan = builder.build()?;
    plan.name = document.name.clone().unwrap_or(stem);
    plan.results = document.results.clone().map(PathBuf::from);
    Ok(plan)
}

fn place(file: &str, text: &str, span: Range<usize>) -> String {
    let before = &text.as_bytes()[..span.start.min(text.len())];
    format!("{file}, line {}", 1 + before.iter().filter(|byte| **byte == b'\n').count())
}

/// A task of the file, with its place in the plan.
struct Known<'a> {
    name: String,
    task: &'a Spanned<Task>,
    /// The index of each element; `None` for a task that is no array.
    indices: Option<Vec<u64>>,
    /// The place of its first step.
    first: usize,
}

impl Known<'_> {
    fn len(&self) -> usize {
        self.indices.as_ref().map_or(1, Vec::len)
    }
}

struct Builder<'a> {
    shown: String,
    text: &'a str,
    folder: PathBuf,
    document: &'a Document,
    tasks: Vec<Known<'a>>,
    by_name: HashMap<String, usize>,
    files: Vec<PathBuf>,
}

impl Builder<'_> {
    fn build(mut self) -> Result<Plan, PlanError> {
        self.check_defaults()?;
        self.name_tasks()?;
        let mut steps = Vec::new();
        for at in 0..self.tasks.len() {
            for element in 0..self.tasks[at].len() {
                steps.push(self.step(at, element)?);
            }
        }
        self.connect(&mut steps)?;
        self.refuse_cycles(&steps)?;
        let quota = self.quota()?;
        Ok(Plan { name: String::new(), results: None, quota, files: self.files, steps })
    }

    fn error<T>(&self, span: Range<usize>, what: impl Into<String>) -> Result<T, PlanError> {
        Err(PlanError { place: place(&self.shown, self.text, span), what: what.into() })
    }

    fn check_defaults(&self) -> Result<(), PlanError> {
        let Task { name, command, after, array, inputs, outputs, .. } = &self.document.defaults;
        let given = [
            ("name", name.is_some()),
            ("command", command.is_some()),
            ("after", !after.is_empty()),
            ("array", array.is_some()),
            ("inputs", !inputs.is_empty()),
            ("outputs", !outputs.is_empty()),
        ];
        match given.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((key, _)) => {
                let at = self.text.find("[defaults]").unwrap_or(0);
                let what = format!("[defaults] has `{key}`, which each task has for itself");
                self.error(at..at, format!("{what}; move it to a [[task]]"))
            }
        }
    }

    fn name_tasks(&mut self) -> Result<(), PlanError> {
        if self.document.task.is_empty() {
            return self.error(0..0, "there is no [[task]]; add one with a `command`");
        }
        let mut first = 0;
        for task in &self.document.task {
            let name = self.name(task)?;
            let indices = match &task.get_ref().array {
                None => None,
                Some(array) => Some(match array.get_ref() {
                    ArrayText::Single(index) => vec![*index],
                    ArrayText::Range(range) => match indices(range) {
                        Ok(indices) => indices,
                        Err(what) => return self.error(array.span(), what),
                    },
                }),
            };
            if let Some(other) = self.by_name.get(&name) {
                let line = place(&self.shown, self.text, self.tasks[*other].task.span());
                let what = format!("another task is named `{name}` ({line}); give each its `name`");
                return self.error(task.span(), what);
            }
            self.by_name.insert(name.clone(), self.tasks.len());
            let known = Known { name, task, indices, first };
            first += known.len();
            self.tasks.push(known);
            if first > MAX_STEPS {
                let what = format!("{first} tasks, where a job has at most {MAX_STEPS}");
                return self.error(task.span(), what);
            }
        }
        Ok(())
    }

    /// The task's name, or that of its program.
    fn name(&self, task: &Spanned<Task>) -> Result<String, PlanError> {
        let name = match (&task.get_ref().name, &task.get_ref().command) {
            (Some(name), _) => name.clone(),
            (None, Some(CommandText::Line(line))) => {
                program_name(line.split_whitespace().next().unwrap_or_default())
            }
            (None, Some(CommandText::Words(words))) => {
                program_name(words.first().map_or("", String::as_str))
            }
            (None, None) => String::new(),
        };
        let is_plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        match name.as_str() {
            "" => self.error(task.span(), "a task without `command`; say what it is to run"),
            plain if plain.chars().all(is_plain) => Ok(name),
            _ => {
                let what = format!("`{name}` is no name; set `name` to letters, digits, - _ and .");
                self.error(task.span(), what)
            }
        }
    }

    fn step(&mut self, at: usize, element: usize) -> Result<Step, PlanError> {
        let known = &self.tasks[at];
        let (span, name) = (known.task.span(), known.name.clone());
        let task = known.task.get_ref();
        let index = known.indices.as_ref().map(|indices| indices[element]);
        let shown = index.map_or_else(|| name.clone(), |index| format!("{name}[{index}]"));
        let filled = |text: &str| with_index(text, index);
        let command = match &task.command {
            Some(CommandText::Line(line)) if !line.trim().is_empty() => {
                Invocation::Line(filled(line))
            }
            Some(CommandText::Words(words)) if words.first().is_some_and(|one| !one.is_empty()) => {
                Invocation::Words(words.iter().map(|word| filled(word)).collect())
            }
            _ => {
                let what = format!("task `{name}` has no `command`; say what it is to run");
                return self.error(span, what);
            }
        };
        let mut environment = self.document.defaults.env.clone();
        environment.extend(task.env.clone());
        if let Some(wrong) = environment.keys().find(|name| !is_variable(name)) {
            let what = format!("task `{name}`: `{wrong}` cannot name a variable in `env`");
            return self.error(span, what);
        }
        let environment =
            environment.into_iter().map(|(name, value)| (name, filled(&value))).collect();
        let mut outputs = Vec::new();
        for output in &task.outputs {
            let path = filled(output.get_ref());
            self.check_path(&path, output.span(), "an output")?;
            if outputs.contains(&path) {
                let what = format!("`{path}` is there twice among the outputs of `{shown}`");
                return self.error(output.span(), what);
            }
            outputs.push(path);
        }
        Ok(Step {
            name: shown,
            element: index.map(|index| (name, index)),
            command,
            folder: task.dir.as_ref().or(self.document.defaults.dir.as_ref()).map(|t| filled(t)),
            environment,
            inputs: Vec::new(),
            outputs,
            after: Vec::new(),
            limits: self.limits(task)?,
        })
    }

    /// A file of a step must lie in its folder.
    fn check_path(&self, path: &str, span: Range<usize>, what: &str) -> Result<(), PlanError> {
        let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if !path.is_empty() && Path::new(path).components().all(inside) && !path.contains('\0') {
            return Ok(());
        }
        let what = format!(
            "{what} is a path inside of the task's folder, which `{path}` is not; write a relative \
             path without `..`, or name an input with `as`"
        );
        self.error(span, what)
    }

    /// Fills in what each step comes after, and its inputs.
    fn connect(&mut self, steps: &mut [Step]) -> Result<(), PlanError> {
        let (document, mut pairs) = (self.document, 0);
        for (at, task) in document.task.iter().enumerate() {
            let (first, len) = (self.tasks[at].first, self.tasks[at].len());
            for place in first..first + len {
                let index = steps[place].element.as_ref().map(|(_, index)| *index);
                let mut after = Vec::new();
                for name in &task.get_ref().after {
                    after.extend(self.resolve(name.get_ref(), name.span(), index)?);
                }
                let mut inputs = Inputs::default();
                for input in &task.get_ref().inputs {
                    self.input(input, index, steps, &mut inputs)?;
                }
                after.extend(inputs.after);
                after.sort_unstable();
                after.dedup();
                pairs += after.len();
                if pairs > MAX_PAIRS {
                    let what = "too many tasks come after too many others; write \
                                after = [\"name[{index}]\"], or put one task between them";
                    return self.error(task.span(), what);
                }
                (steps[place].after, steps[place].inputs) = (after, inputs.all);
            }
        }
        Ok(())
    }

    /// The places of the steps that `name`, `name[5]` or `name[{index}]` names.
    fn resolve(
        &self,
        text: &str,
        span: Range<usize>,
        index: Option<u64>,
    ) -> Result<Range<usize>, PlanError> {
        let text = with_index(text, index);
        let (name, element) = match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
            Some((name, element)) => (name, Some(element)),
            None => (text.as_str(), None),
        };
        let Some(known) = self.by_name.get(name).map(|at| &self.tasks[*at]) else {
            let mut names: Vec<&str> =
                self.tasks.iter().take(20).map(|known| known.name.as_str()).collect();
            names.sort_unstable();
            let what = format!("there is no task `{name}`; there are {}", names.join(", "));
            return self.error(span, what);
        };
        let (first, len) = (known.first, known.len());
        let Some(element) = element else { return Ok(first..first + len) };
        let at = match (&known.indices, element.parse::<u64>()) {
            (Some(indices), Ok(wanted)) => indices.binary_search(&wanted).ok(),
            _ => None,
        };
        match at {
            Some(at) => Ok(first + at..first + at + 1),
            None if known.indices.is_none() => {
                self.error(span, format!("`{name}` is no array; write `{name}` without an index"))
            }
            None => self.error(span, format!("`{name}` has no element {element}")),
        }
    }

    fn input(
        &mut self,
        input: &Spanned<InputText>,
        index: Option<u64>,
        steps: &[Step],
        inputs: &mut Inputs,
    ) -> Result<(), PlanError> {
        let span = input.span();
        let filled = |text: &str| with_index(text, index);
        match input.get_ref() {
            InputText::Path(path) => {
                let path = filled(path);
                let source = InputSource::File(self.file(&path, span.clone())?);
                self.add(inputs, path, source, span)
            }
            InputText::File(text) => {
                let source = InputSource::File(self.file(&filled(&text.file), span.clone())?);
                self.add(inputs, filled(&text.name), source, span)
            }
            InputText::Output(text) => {
                let path = text.path.as_deref().map(filled);
                let producers = self.resolve(&text.from, span.clone(), index)?;
                inputs.after.extend(producers.clone());
                let before = inputs.all.len();
                for step in producers {
                    for (output, name) in steps[step].outputs.iter().enumerate() {
                        if path.as_ref().is_some_and(|path| path != name) {
                            continue;
                        }
                        let place = text.name.as_deref().map_or_else(|| name.clone(), filled);
                        let source = InputSource::Output { step, output };
                        self.add(inputs, place, source, span.clone())?;
                    }
                }
                if inputs.all.len() > before {
                    return Ok(());
                }
                let what = match path {
                    Some(path) => format!("`{}` has no output `{path}`", text.from),
                    None => format!("`{}` has no outputs", text.from),
                };
                self.error(span, format!("{what}; add it to the `outputs` there"))
            }
        }
    }

    fn add(
        &self,
        inputs: &mut Inputs,
        path: String,
        source: InputSource,
        span: Range<usize>,
    ) -> Result<(), PlanError> {
        self.check_path(&path, span.clone(), "an input")?;
        if !inputs.paths.insert(path.clone()) {
            let what =
                format!("two inputs would lie at `{path}`; give one another place with `as`");
            return self.error(span, what);
        }
        inputs.all.push(Input { path, source });
        Ok(())
    }

    /// The place of a file of the client in the plan's list.
    fn file(&mut self, name: &str, span: Range<usize>) -> Result<usize, PlanError> {
        let path = self.folder.join(name);
        if let Some(at) = self.files.iter().position(|other| *other == path) {
            return Ok(at);
        }
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => {
                self.files.push(path);
                Ok(self.files.len() - 1)
            }
            Ok(_) => self.error(span, format!("the input {} is no file", path.display())),
            Err(error) => {
                let what = format!("cannot read the input {}: {error}", path.display());
                self.error(span, format!("{what}; for the output of a task, name it with `from`"))
            }
        }
    }

    /// Every step must come after steps that can end before it starts.
    fn refuse_cycles(&self, steps: &[Step]) -> Result<(), PlanError> {
        let mut missing: Vec<usize> = steps.iter().map(|step| step.after.len()).collect();
        let mut followers = vec![Vec::new(); steps.len()];
        for (at, step) in steps.iter().enumerate() {
            step.after.iter().for_each(|before| followers[*before].push(at));
        }
        let mut ready: Vec<usize> = (0..steps.len()).filter(|at| missing[*at] == 0).collect();
        let mut done = 0;
        while let Some(at) = ready.pop() {
            done += 1;
            for follower in &followers[at] {
                missing[*follower] -= 1;
                if missing[*follower] == 0 {
                    ready.push(*follower);
                }
            }
        }
        if done == steps.len() {
            return Ok(());
        }
        // From any step that waits, going back to one that waits too, the way comes around.
        let Some(mut at) = (0..steps.len()).find(|at| missing[*at] > 0) else { return Ok(()) };
        let mut way = Vec::new();
        while !way.contains(&at) {
            way.push(at);
            let before = steps[at].after.iter().find(|before| missing[**before] > 0);
            at = before.copied().unwrap_or(at);
        }
        let mut names: Vec<&str> =
            way.iter().skip_while(|other| **other != at).map(|at| &*steps[*at].name).collect();
        names.push(&steps[at].name);
        let what = format!(
            "these tasks wait for each other: {}; take one `after` or `from` away",
            names.join(" after ")
        );
        let task = self.tasks.iter().rfind(|known| known.first <= at);
        self.error(task.map_or(0..0, |known| known.task.span()), what)
    }
}

/// A step's inputs as they are found.
#[derive(Default)]
struct Inputs {
    all: Vec<Input>,
    paths: HashSet<String>,
    after: Vec<usize>,
}

fn program_name(word: &str) -> String {
    Path::new(word).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod tests;
