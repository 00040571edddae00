//! What `torch.save` makes of a state dict: a ZIP archive with a pickle that names tensors, and a
//! file for the memory of each. libtorch's own reader takes no `OrderedDict`, which state dicts
//! are. Nothing that a pickle says is run: tensors in a dict are known, all else is refused.

use std::collections::HashMap;
use std::rc::Rc;

use safetensors::tensor::Dtype;

use super::weights::{Named, floats_of};

/// How deep tuples may lie in each other; a shape lies in the arguments of a tensor.
const DEEPEST: usize = 8;

/// The tensors of a file that are numbers with fractions.
pub(crate) fn read(bytes: &[u8]) -> Result<Vec<Named>, String> {
    tensors(bytes, pickle(bytes)?)
}

/// The program of a file.
pub(crate) fn pickle(bytes: &[u8]) -> Result<&[u8], String> {
    Archive::open(bytes)?.file("data.pkl")
}

/// The tensors that a pickle finds in a file.
pub(crate) fn tensors(bytes: &[u8], pickle: &[u8]) -> Result<Vec<Named>, String> {
    let archive = Archive::open(bytes)?;
    let Item::Dict(tensors) = Machine::default().run(pickle)? else {
        return Err("its pickle is no state dict".to_owned());
    };
    let mut all = Vec::new();
    for (name, tensor) in tensors.iter() {
        all.extend(archive.tensor(name, tensor)?);
    }
    Ok(all)
}

/// A tensor in the memory of a storage.
#[derive(Debug, Clone)]
struct Tensor {
    storage: Storage,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

/// The name of a file, and what is in it; `None`: nothing that weights are.
#[derive(Debug, Clone)]
struct Storage {
    key: Rc<str>,
    kind: Option<Dtype>,
}

/// The files of an archive by their names, without the folder that all of them are in.
struct Archive<'a>(HashMap<String, &'a [u8]>);

fn number(bytes: &[u8], at: usize, len: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

impl<'a> Archive<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, String> {
        Self::list(bytes).ok_or_else(|| "it is no archive of torch.save".to_owned())
    }

    /// The central directory, which the end of the file says the place of.
    fn list(bytes: &'a [u8]) -> Option<Self> {
        let end = bytes.windows(4).rposition(|window| window == b"PK\x05\x06")?;
        let (count, mut at) = (number(bytes, end + 10, 2)?, number(bytes, end + 16, 4)?);
        let mut files = HashMap::new();
        for _ in 0..count {
            if bytes.get(at..at.checked_add(4)?)? != b"PK\x01\x02" {
                return None;
            }
            let [name, extra, comment] =
                [28, 30, 32].map(|field| number(bytes, at + field, 2).unwrap_or_default());
            let path = std::str::from_utf8(bytes.get(at + 46..at + 46 + name)?).ok()?;
            let (packed, len) = (number(bytes, at + 10, 2)?, number(bytes, at + 24, 4)?);
            let local = number(bytes, at + 42, 4)?;
            let before = 30 + number(bytes, local + 26, 2)? + number(bytes, local + 28, 2)?;
            let content = bytes.get(local + before..(local + before).checked_add(len)?)?;
            // torch.save packs nothing.
            if packed == 0 {
                let (_, path) = path.split_once('/').unwrap_or(("", path));
                files.insert(path.to_owned(), content);
            }
            at += 46 + name + extra + comment;
        }
        Some(Self(files))
    }

    fn file(&self, name: &str) -> Result<&'a [u8], String> {
        self.0.get(name).copied().ok_or_else(|| format!("it has no {name}"))
    }

    /// `None`: it is of whole numbers.
    fn tensor(&self, name: &str, tensor: &Tensor) -> Result<Option<Named>, String> {
        let Tensor { storage, offset, shape, strides } = tensor;
        let Some(kind) = storage.kind else { return Ok(None) };
        if self.0.get("byteorder").is_some_and(|order| *order != b"little") {
            return Err("its numbers are of another byte order".to_owned());
        }
        let memory = self.file(&format!("data/{}", storage.key))?;
        let all = floats_of(kind, memory).unwrap_or_default();
        let count = shape.iter().try_fold(1_usize, |count, side| count.checked_mul(*side));
        let wrong = || format!("its tensor `{name}` does not lie in its memory");
        // A side of stride 0 would be more than there is.
        let count = count.filter(|count| *count <= all.len()).ok_or_else(wrong)?;
        let mut values = Vec::with_capacity(count);
        let mut index = vec![0; shape.len()];
        for _ in 0..count {
            let steps = index.iter().zip(strides);
            let at = steps.fold(*offset, |at, (index, stride): (&usize, _)| {
                at.saturating_add(index.saturating_mul(*stride))
            });
            values.push(*all.get(at).ok_or_else(wrong)?);
            for (index, side) in index.iter_mut().zip(shape).rev() {
                *index += 1;
                if *index < *side {
                    break;
                }
                *index = 0;
            }
        }
        Ok(Some(Named { name: name.to_owned(), shape: shape.clone(), values }))
    }
}

/// What a pickle is about.
#[derive(Debug, Clone)]
enum Item {
    Mark,
    Number(usize),
    Text(Rc<str>),
    /// A name in a module.
    Global(Rc<str>),
    /// With how deep others lie in it.
    Tuple(Rc<[Item]>, usize),
    Storage(Storage),
    Tensor(Rc<Tensor>),
    /// Its tensors by name; nothing else in it matters.
    Dict(Rc<Vec<(Rc<str>, Rc<Tensor>)>>),
    /// Anything else that does no harm.
    Other,
}

/// The machine that pickles are programs of.
#[derive(Default)]
struct Machine {
    stack: Vec<Item>,
    memory: HashMap<usize, Item>,
}

/// What is left of a pickle.
struct Code<'a>(&'a [u8]);

impl<'a> Code<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or("its pickle ends too soon")?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, len: usize) -> Result<usize, String> {
        Ok(number(self.take(len)?, 0, len).unwrap_or_default())
    }

    fn text(&mut self, len: usize) -> Result<&'a str, String> {
        std::str::from_utf8(self.take(len)?).map_err(|error| error.to_string())
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let len = self.0.iter().position(|byte| *byte == b'\n').unwrap_or(self.0.len());
        let line = self.text(len)?;
        self.take(1)?;
        Ok(line)
    }
}

impl Machine {
    fn run(mut self, pickle: &[u8]) -> Result<Item, String> {
        let mut code = Code(pickle);
        loop {
            let operation = code.number(1)? as u8;
            if operation == b'.' {
                return self.pop();
            }
            self.step(operation, &mut code)?;
        }
    }

    fn step(&mut self, operation: u8, code: &mut Code<'_>) -> Result<(), String> {
        let made = match operation {
            0x80 => return code.take(1).map(|_| ()),
            b'q' => return self.remember(code.number(1)?),
            b'r' => return self.remember(code.number(4)?),
            b's' | b'u' => return self.set_items(operation == b'u'),
            b'a' | b'b' => return self.pop().map(|_| ()),
            b'e' => return self.since_mark().map(|_| ()),
            b'h' => self.recall(code.number(1)?)?,
            b'j' => self.recall(code.number(4)?)?,
            b'(' => Item::Mark,
            b'}' => Item::Dict(Rc::default()),
            b')' => tuple(Vec::new())?,
            b't' => tuple(self.since_mark()?)?,
            0x85..=0x87 => {
                let first = self.stack.len().checked_sub(usize::from(operation - 0x84));
                tuple(self.stack.split_off(first.ok_or("its pickle takes what is not there")?))?
            }
            b'K' => Item::Number(code.number(1)?),
            b'M' => Item::Number(code.number(2)?),
            b'J' => Item::Number(code.number(4)?),
            0x8a => {
                let len = code.number(1)?;
                Item::Number(number(code.take(len)?, 0, len.min(8)).unwrap_or_default())
            }
            b'X' => {
                let len = code.number(4)?;
                Item::Text(code.text(len)?.into())
            }
            b'c' => Item::Global(format!("{}.{}", code.line()?, code.line()?).into()),
            b'Q' => storage(&self.pop()?)?,
            b'R' => {
                let (arguments, called) = (self.pop()?, self.pop()?);
                call(&called, &arguments)?
            }
            b'N' | b']' | 0x88 | 0x89 => Item::Other,
            b'G' => code.take(8).map(|_| Item::Other)?,
            other => return Err(format!("its pickle has an operation {other:#x}")),
        };
        self.stack.push(made);
        Ok(())
    }

    fn pop(&mut self) -> Result<Item, String> {
        self.stack.pop().ok_or_else(|| "its pickle takes what is not there".to_owned())
    }

    fn since_mark(&mut self) -> Result<Vec<Item>, String> {
        let mark = self.stack.iter().rposition(|item| matches!(item, Item::Mark));
        let items = self.stack.split_off(mark.ok_or("its pickle has no mark")? + 1);
        self.stack.pop();
        Ok(items)
    }

    fn remember(&mut self, at: usize) -> Result<(), String> {
        let item = self.stack.last().ok_or("its pickle remembers nothing")?.clone();
        self.memory.insert(at, item);
        Ok(())
    }

    fn recall(&mut self, at: usize) -> Result<Item, String> {
        self.memory.get(&at).cloned().ok_or_else(|| "its pickle recalls nothing".to_owned())
    }

    fn set_items(&mut self, many: bool) -> Result<(), String> {
        let items = match many {
            true => self.since_mark()?,
            false => {
                let (value, key) = (self.pop()?, self.pop()?);
                vec![key, value]
            }
        };
        let Some(Item::Dict(dict)) = self.stack.last_mut() else { return Ok(()) };
        for pair in items.chunks_exact(2) {
            if let [Item::Text(name), Item::Tensor(tensor)] = pair {
                Rc::make_mut(dict).push((name.clone(), tensor.clone()));
            }
        }
        Ok(())
    }
}

fn tuple(items: Vec<Item>) -> Result<Item, String> {
    let depth = |item: &Item| if let Item::Tuple(_, depth) = item { depth + 1 } else { 1 };
    let depth = items.iter().map(depth).max().unwrap_or_default();
    if depth > DEEPEST {
        return Err("its pickle has too many tuples in each other".to_owned());
    }
    Ok(Item::Tuple(items.into(), depth))
}

/// Of `("storage", type, key, device, length)`.
fn storage(item: &Item) -> Result<Item, String> {
    let Item::Tuple(items, _) = item else { return Err("its pickle has no storages".to_owned()) };
    let [_, Item::Global(kind), Item::Text(key), ..] = &items[..] else {
        return Err("a storage of its pickle has no name".to_owned());
    };
    let kind = match &**kind {
        "torch.DoubleStorage" => Some(Dtype::F64),
        "torch.FloatStorage" => Some(Dtype::F32),
        "torch.HalfStorage" => Some(Dtype::F16),
        "torch.BFloat16Storage" => Some(Dtype::BF16),
        _ => None,
    };
    Ok(Item::Storage(Storage { key: key.clone(), kind }))
}

fn call(called: &Item, arguments: &Item) -> Result<Item, String> {
    let (Item::Global(name), Item::Tuple(arguments, _)) = (called, arguments) else {
        return Err("its pickle calls what has no name".to_owned());
    };
    match (&**name, &arguments[..]) {
        ("collections.OrderedDict", _) => Ok(Item::Dict(Rc::default())),
        ("torch._utils._rebuild_parameter", [tensor @ Item::Tensor(_), ..]) => Ok(tensor.clone()),
        (
            "torch._utils._rebuild_tensor_v2",
            [
                Item::Storage(storage),
                Item::Number(offset),
                Item::Tuple(shape, _),
                Item::Tuple(strides, _),
                ..,
            ],
        ) => {
            let sides = |items: &[Item]| -> Option<Vec<usize>> {
                let side = |item: &Item| if let Item::Number(n) = item { Some(*n) } else { None };
                items.iter().map(side).collect()
            };
            let (storage, offset) = (storage.clone(), *offset);
            let (Some(shape), Some(strides)) = (sides(shape), sides(strides)) else {
                return Err("a tensor of its pickle has no shape".to_owned());
            };
            if shape.len() != strides.len() {
                return Err("a tensor of its pickle has no shape".to_owned());
            }
            Ok(Item::Tensor(Rc::new(Tensor { storage, offset, shape, strides })))
        }
        (name, _) => Err(format!("its pickle calls {name}, which no state dict does")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_state_dict_is_refused_and_nothing_is_run() {
        let run = |pickle: &[u8]| Machine::default().run(pickle).unwrap_err();
        let system = run(b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.");
        assert!(system.contains("calls os.system"), "{system}");
        assert!(run(&[&b")"[..], &[0x85; 1_000], b"."].concat()).contains("tuples"));
        for pickle in [&b""[..], b".", b"R.", b"u.", b"h\0.", b"X\xff\xff\xff\xff", b"\x87."] {
            run(pickle);
        }
        assert!(read(b"hello").is_err_and(|error| error.contains("no archive")));
    }
}
