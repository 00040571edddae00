//! `--each 'cmd {}' ARGS...`: one command for each argument.

use rdist::scheduler::resource::Resources;

use super::{Invocation, Limits, MAX_STEPS, Plan, PlanError, Step};

/// What is the same for all.
#[derive(Debug, Clone)]
pub(crate) struct Each<'a> {
    /// The command, with `{}` where the argument goes; without it, the argument goes to its end.
    pub template: &'a str,
    /// What each command holds, and how often and how long it may run.
    pub limits: Limits,
}

/// A plan with one step for each argument, in their order; the first has index 1.
pub(crate) fn each(each: &Each<'_>, arguments: &[String]) -> Result<Plan, PlanError> {
    let wrong = |what: String| PlanError { place: "--each".to_owned(), what };
    let program = each.template.split_whitespace().next();
    let Some(program) = program.filter(|word| *word != "{}") else {
        let what = format!("{:?} names no program; write --each 'cmd {{}}'", each.template);
        return Err(wrong(what));
    };
    if arguments.is_empty() {
        let what = "there are no arguments; add some, or `-` to read lines of standard input";
        return Err(wrong(what.to_owned()));
    }
    if arguments.len() > MAX_STEPS {
        let (given, what) = (arguments.len(), "where a job has at most");
        return Err(wrong(format!("{given} arguments, {what} {MAX_STEPS}")));
    }
    let name = std::path::Path::new(program).file_name().unwrap_or_default().to_string_lossy();
    let step = |(at, argument): (usize, &String)| Step {
        name: format!("{name}[{}]", at + 1),
        element: Some((name.clone().into_owned(), at as u64 + 1)),
        command: command(each.template, argument),
        folder: None,
        environment: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        after: Vec::new(),
        limits: each.limits.clone(),
    };
    let steps = arguments.iter().enumerate().map(step).collect();
    Ok(Plan {
        name: name.clone().into_owned(),
        results: None,
        files: Vec::new(),
        quota: Resources::NONE,
        steps,
    })
}

/// Words as they are where the template means nothing to a shell; else a line, with the argument
/// quoted.
fn command(template: &str, argument: &str) -> Invocation {
    let has_place = template.contains("{}");
    let bare = template.replace("{}", "");
    if crate::job::is_plain(&bare) {
        let mut words: Vec<String> =
            template.split_whitespace().map(|word| word.replace("{}", argument)).collect();
        if !has_place {
            words.push(argument.to_owned());
        }
        return Invocation::Words(words);
    }
    let quoted = quote(argument);
    Invocation::Line(match has_place {
        true => template.replace("{}", &quoted),
        false => format!("{template} {quoted}"),
    })
}

/// As one word of the shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(template: &str, arguments: &[&str]) -> Vec<Invocation> {
        let arguments: Vec<String> = arguments.iter().map(|one| (*one).to_owned()).collect();
        let plan = each(&Each { template, limits: Limits::default() }, &arguments).unwrap();
        plan.steps.into_iter().map(|step| step.command).collect()
    }

    fn words(words: &[&str]) -> Invocation {
        Invocation::Words(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn arguments_go_where_the_braces_are_and_stay_whole() {
        assert_eq!(
            commands("convert {} {}.png", &["a b"]),
            [words(&["convert", "a b", "a b.png"])]
        );
        assert_eq!(
            commands("wc -l", &["x", "$(rm y)"]),
            [words(&["wc", "-l", "x"]), words(&["wc", "-l", "$(rm y)"])]
        );
        let line = |text: &str| Invocation::Line(text.to_owned());
        assert_eq!(commands("cat {} | wc -l", &["it's; ls"]), [line(r"cat 'it'\''s; ls' | wc -l")]);
        assert_eq!(commands("cd /tmp; ls", &["-l"]), [line("cd /tmp; ls '-l'")]);
    }

    #[test]
    fn nothing_to_do_is_refused() {
        let limits = Limits::default();
        for (template, arguments) in [("", vec!["a".to_owned()]), ("{}", vec!["a".to_owned()])] {
            assert!(each(&Each { template, limits: limits.clone() }, &arguments).is_err());
        }
        let error = each(&Each { template: "true", limits }, &[]).unwrap_err().to_string();
        assert!(error.contains("standard input"), "{error}");
    }
}
