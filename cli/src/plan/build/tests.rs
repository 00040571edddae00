use super::*;
use crate::plan::is_plan;

fn built(text: &str) -> Result<Plan, String> {
    build(Path::new("jobs/x.toml"), text).map_err(|error| error.to_string())
}

fn refused(text: &str, line: usize, parts: &[&str]) {
    let error = built(text).unwrap_err();
    assert!(error.starts_with(&format!("jobs/x.toml, line {line}: ")), "{error}");
    for part in parts {
        assert!(error.contains(part), "no {part:?} in: {error}");
    }
}

#[test]
fn a_plan_has_a_step_for_each_element_and_knows_what_comes_first() {
    let plan = built(
        r#"
        [defaults]
        env = { LEVEL = "1", MODE = "fast" }
        time_limit = "5m"

        [[task]]
        command = "split big.txt"
        outputs = ["part.1", "part.2"]

        [[task]]
        name = "count"
        array = "1-2"
        command = ["wc", "-l", "in.txt"]
        inputs = [{ from = "split", path = "part.{index}", as = "in.txt" }]
        outputs = ["lines.{index}"]
        env = { MODE = "n{index}" }
        cpus = 2
        memory = "1GiB"
        retries = 3

        [[task]]
        name = "sum"
        command = "cat lines.* | paste -sd+ | bc"
        inputs = [{ from = "count" }]

        [[task]]
        name = "say"
        array = "1-2"
        command = "echo {index}"
        after = ["count[{index}]", "sum"]
        "#,
    )
    .unwrap();
    let names: Vec<&str> = plan.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["split", "count[1]", "count[2]", "sum", "say[1]", "say[2]"]);
    let after: Vec<&[usize]> = plan.steps.iter().map(|step| &*step.after).collect();
    assert_eq!(after, [&[][..], &[0], &[0], &[1, 2], &[1, 3], &[2, 3]]);
    let count = &plan.steps[2];
    let source = InputSource::Output { step: 0, output: 1 };
    assert_eq!(count.inputs, [Input { path: "in.txt".to_owned(), source }]);
    assert_eq!(count.outputs, ["lines.2"]);
    assert_eq!(count.element, Some(("count".to_owned(), 2)));
    let expected = [("LEVEL", "1"), ("MODE", "n2")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(count.environment, expected);
    let limits = &count.limits;
    assert_eq!((limits.cpus, limits.memory, limits.retries), (2.0, 1 << 30, 3));
    assert_eq!((plan.steps[0].limits.cpus, limits.time_limit), (1.0, Some(300_000)));
    assert_eq!(plan.steps[3].inputs.len(), 2);
    assert_eq!(plan.steps[4].command, Invocation::Line("echo 1".to_owned()));
    assert_eq!(plan.name, "x");
}

#[test]
fn mistakes_are_named_with_their_line() {
    refused("[[task]\n", 1, &["]"]);
    refused("[[task]]\ncommand = \"a\"\ncpu = 1\n", 3, &["cpu", "cpus"]);
    refused("name = \"x\"\ntask = []\n", 1, &["no [[task]]"]);
    refused("[[task]]\nname = \"a\"\n", 1, &["`a`", "command"]);
    refused("[[task]]\ncpus = 1\n", 1, &["command"]);
    refused("[[task]]\ncommand = []\n", 1, &["command"]);
    refused("[[task]]\ncommand = 3\n", 2, &["a command line in text"]);
    refused("[[task]]\ncommand = \"a\"\n[[task]]\ncommand = \"a b\"\n", 3, &["`a`", "line 1"]);
    refused("[[task]]\nname = \"a b\"\ncommand = \"x\"\n", 1, &["`a b` is no name"]);
    refused("[[task]]\ncommand = \"a\"\narray = \"5-1\"\n", 3, &["5 comes after 1"]);
    refused("[[task]]\ncommand = \"a\"\n\nafter = [\n\"b\"]\n", 5, &["no task `b`", "there are a"]);
    refused("[[task]]\ncommand = \"a\"\nafter = [\"a[1]\"]\n", 3, &["`a` is no array"]);
    refused("[[task]]\ncommand = \"a\"\ncpus = -1\n", 3, &["cpus = -1"]);
    refused("[[task]]\ncommand = \"a\"\nmemory = \"lots\"\n", 3, &["memory = \"lots\""]);
    refused(
        "[[task]]\ncommand = \"a\"\ntime_limit = \"soon\"\n",
        3,
        &["time_limit = \"soon\"", "30s"],
    );
    refused("[[task]]\ncommand = \"a\"\ntime_limit = 0\n", 3, &["time limit"]);
    refused("[[task]]\ncommand = \"a\"\nenv = { \"A=B\" = \"1\" }\n", 1, &["`A=B`"]);
    refused("[[task]]\ncommand = \"a\"\noutputs = [\"../x\"]\n", 3, &["`../x`"]);
    refused("[[task]]\ncommand = \"a\"\noutputs = [\"x\", \"x\"]\n", 3, &["twice"]);
    refused("[[task]]\ncommand = \"a\"\ninputs = [\"nowhere.csv\"]\n", 3, &["nowhere.csv", "from"]);
    refused("[defaults]\ncommand = \"a\"\n[[task]]\ncommand = \"b\"\n", 1, &["[defaults]"]);
    let array = "[[task]]\nname = \"a\"\ncommand = \"a\"\narray = \"1-3\"\n";
    refused(&format!("{array}[[task]]\ncommand = \"b\"\nafter = [\"a[9]\"]\n"), 7, &["element 9"]);
    let outputs = "[[task]]\ncommand = \"a\"\noutputs = [\"x\"]\n[[task]]\ncommand = \"b\"\n";
    let wrong = |inputs: &str| format!("{outputs}inputs = [{inputs}]\n");
    refused(&wrong("{ from = \"a\", path = \"y\" }"), 6, &["no output `y`", "outputs"]);
    refused(&wrong("{ from = \"a\" }, { from = \"a\" }"), 6, &["`x`", "as"]);
    refused(&wrong("{ from = \"b\" }"), 6, &["`b` has no outputs"]);
    refused(&wrong("{ frm = \"a\" }"), 6, &["from"]);
}

#[test]
fn tasks_that_wait_for_each_other_are_named_in_order() {
    let task = |name: &str, after: &str| {
        format!("[[task]]\nname = \"{name}\"\ncommand = \"x\"\nafter = [{after}]\n")
    };
    let text = [task("a", ""), task("b", "\"a\", \"d\""), task("c", "\"b\""), task("d", "\"c\"")];
    refused(&text.concat(), 5, &["b after d after c after b"]);
    refused(&task("a", "\"a\""), 1, &["a after a"]);
}

#[test]
fn client_files_are_found_beside_the_toml_and_travel_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("in.csv"), "1").unwrap();
    let text = "[[task]]\nname = \"a\"\ncommand = \"x\"\narray = \"1-3\"\n\
                inputs = [\"in.csv\", { file = \"in.csv\", as = \"copy.csv\" }]\n";
    let plan = build(&folder.path().join("x.toml"), text).unwrap();
    assert_eq!(plan.files, [folder.path().join("in.csv")]);
    assert!(plan.steps.iter().all(|step| step.inputs.len() == 2));
}

#[test]
fn workloads_are_told_from_plans() {
    assert!(is_plan("[[task]]\ncommand = \"x\"\n"));
    assert!(is_plan("[[task]]\ncommand = x\n"), "a mistake in a plan");
    assert!(!is_plan("[data]\nset = \"mnist\"\n"));
    assert!(!is_plan("[data\n"));
}
