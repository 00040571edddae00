//! Damaged files of plain commands: they are refused with their place, or are plans, and nothing
//! else. `cargo xtask fuzz` tries more of them; `FUZZ_SEED=7` replays one.

use std::time::{Duration, Instant};

use super::*;
use dice::Dice;

#[path = "../../../tests/end_to_end/dice.rs"]
mod dice;

/// So many files, and as many again until the time is over.
const RUNS: u64 = 500;

/// Everything that a file may say.
const ALL: &str = r#"
name = "all"
results = "out"
quota = { cpus = 4, memory = "8GiB", tpu = 1.5 }
[defaults]
env = { LEVEL = "1", MODE = "fast" }
time_limit = "5m"
[[task]]
name = "a"
array = "1-3,5,0-100:10"
command = ["wc", "-l", "in.{index}", "${index}"]
inputs = ["x", { file = "y", as = "z" }]
outputs = ["part.{index}"]
dir = "sub/dir"
cpus = 0.5
gpus = 1
memory = "1GiB"
resources = { tpu = 2 }
retries = 3
time_limit = 1.5
priority = -7
[[task]]
name = "b"
array = 7
command = "cat"
after = ["a[5]", "a"]
inputs = [{ from = "a" }, { from = "a", path = "part.1", as = "in" }]
memory = 4096
"#;

/// What stands where a number stood.
const NUMBERS: [&str; 11] = [
    "0",
    "-1",
    "1e308",
    "nan",
    "-inf",
    "0.1",
    "18446744073709551615",
    "9223372036854775808",
    "-9223372036854775808",
    "99999999999999999999",
    "\u{660}",
];

/// What stands anywhere.
const PIECES: [&str; 12] =
    ["[[task]]\n", "[defaults]\n", "\"", "'''", "{index}", "{", "]", "..", "/", "=", "\u{0}", "a["];

fn damage(text: &mut String, dice: &mut Dice) {
    for _ in 0..1 + dice.below(5) {
        let mut lines: Vec<&str> = text.lines().collect();
        let line = dice.below(lines.len().max(1));
        match dice.below(6) {
            0 if !lines.is_empty() => drop(lines.remove(line)),
            1 if !lines.is_empty() => lines.insert(dice.below(lines.len()), lines[line]),
            2 | 3 => {
                let starts: Vec<usize> =
                    text.match_indices(char::is_numeric).map(|at| at.0).collect();
                let Some(&at) = starts.get(dice.below(starts.len().max(1))) else { continue };
                let digits = text[at..].find(|c: char| !c.is_numeric()).unwrap_or(text.len() - at);
                text.replace_range(at..at + digits, NUMBERS[dice.below(NUMBERS.len())]);
                continue;
            }
            other => {
                let at = text.floor_char_boundary(dice.below(text.len() + 1));
                let end = if other == 4 { at } else { text.ceil_char_boundary(at + dice.below(9)) };
                text.replace_range(at..end, PIECES[dice.below(PIECES.len())]);
                continue;
            }
        }
        *text = lines.join("\n");
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn damaged_files_are_refused_or_are_plans() {
    let whole = [ALL, include_str!("../../../../workloads/commands.toml")];
    let folder = tempfile::tempdir().unwrap();
    for name in ["x", "y"] {
        std::fs::write(folder.path().join(name), name).unwrap();
    }
    let file = folder.path().join("x.toml");
    let sound = whole.map(|text| build(&file, text).unwrap().steps.len());
    assert!(sound.iter().all(|steps| *steps > 5), "{sound:?}");
    let end = Instant::now() + Duration::from_secs(setting("FUZZ_SECONDS").unwrap_or(0));
    let mut seeds = setting("FUZZ_SEED").map_or(0..RUNS, |seed| seed..seed + 1);
    let mut plans = 0;
    loop {
        for seed in seeds.clone() {
            let mut dice = Dice(seed);
            let mut text = whole[dice.below(whole.len())].to_owned();
            damage(&mut text, &mut dice);
            let built = std::panic::catch_unwind(|| build(&file, &text));
            let built = built.unwrap_or_else(|_| panic!("a panic with FUZZ_SEED={seed}:\n{text}"));
            match built {
                Ok(plan) => plans += usize::from(plan.steps.len() <= MAX_STEPS),
                Err(error) => assert!(error.to_string().contains("x.toml"), "{error}"),
            }
        }
        if Instant::now() >= end {
            break println!("{} files, {plans} of them plans", seeds.end);
        }
        seeds = seeds.end..seeds.end + RUNS;
    }
}
