//! The tasks of a plan as a picture: arrays as one box.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::{Plan, Step};

/// As Mermaid, or for Graphviz.
pub(crate) fn graph(plan: &Plan, dot: bool) -> String {
    let mut boxes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut arrows = BTreeSet::new();
    for step in &plan.steps {
        *boxes.entry(task(step)).or_default() += 1;
        arrows.extend(step.after.iter().map(|before| (task(&plan.steps[*before]), task(step))));
    }
    let numbers: BTreeMap<&str, usize> =
        boxes.keys().enumerate().map(|(number, name)| (*name, number)).collect();
    let mut out = String::from(if dot { "digraph job {\n" } else { "flowchart TD\n" });
    for (name, count) in &boxes {
        let label = if *count > 1 { format!("{name} x {count}") } else { (*name).to_owned() };
        let number = numbers[name];
        // Writing to a string does not fail.
        let _ = match dot {
            true => writeln!(out, "  t{number} [label=\"{label}\"];"),
            false => writeln!(out, "  t{number}[\"{label}\"]"),
        };
    }
    for (before, after) in arrows {
        let (before, after) = (numbers[before], numbers[after]);
        let _ = match dot {
            true => writeln!(out, "  t{before} -> t{after};"),
            false => writeln!(out, "  t{before} --> t{after}"),
        };
    }
    if dot {
        out.push_str("}\n");
    }
    out
}

fn task(step: &Step) -> &str {
    step.element.as_ref().map_or(&step.name, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn an_array_is_one_box() {
        let text = "[[task]]\nname = \"a\"\ncommand = \"x\"\narray = \"1-9\"\n\
                    [[task]]\nname = \"b\"\ncommand = \"y\"\nafter = [\"a\"]\n";
        let plan = super::super::build(Path::new("x.toml"), text).unwrap();
        let mermaid = super::graph(&plan, false);
        assert_eq!(mermaid, "flowchart TD\n  t0[\"a x 9\"]\n  t1[\"b\"]\n  t0 --> t1\n");
        assert!(super::graph(&plan, true).ends_with("  t0 -> t1;\n}\n"));
    }
}
