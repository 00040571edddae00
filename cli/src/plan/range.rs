//! Indices of an array of tasks: `1-10`, `0-100:10`, `1,5,7-9`.

use std::collections::BTreeSet;

use super::MAX_STEPS;

/// The indices that a range names, in order; the error says what is wrong and what would be right.
pub(super) fn indices(text: &str) -> Result<Vec<u64>, String> {
    const FORM: &str = "write indices as \"1-10\", \"0-100:10\" (every tenth) or \"1,5,7-9\"";
    let mut found = BTreeSet::new();
    for part in text.split(',') {
        let wrong = |why: &str| format!("array = \"{text}\": {why}; {FORM}");
        let (range, step) = match part.trim().split_once(':') {
            Some((range, step)) => (range, number(step).ok_or_else(|| wrong("no step"))?),
            None => (part.trim(), 1),
        };
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first), number(last)),
            None => (number(range), number(range)),
        };
        let (Some(first), Some(last)) = (first, last) else {
            return Err(wrong(&format!("`{}` is no index and no range", part.trim())));
        };
        if step == 0 {
            return Err(wrong("a step of 0 leads nowhere"));
        }
        if first > last {
            return Err(wrong(&format!("{first} comes after {last}")));
        }
        if (last - first) / step >= MAX_STEPS as u64 {
            return Err(wrong(&format!("a job has at most {MAX_STEPS} tasks")));
        }
        let mut index = Some(first);
        while let Some(at) = index.filter(|at| *at <= last) {
            if !found.insert(at) {
                return Err(wrong(&format!("{at} is there twice")));
            }
            index = at.checked_add(step);
        }
        if found.len() > MAX_STEPS {
            return Err(wrong(&format!("a job has at most {MAX_STEPS} tasks")));
        }
    }
    Ok(Vec::from_iter(found))
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    // `parse` takes a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_steps_and_lists() {
        for (text, expected) in [
            ("3", vec![3]),
            ("1-4", vec![1, 2, 3, 4]),
            ("0-10:5", vec![0, 5, 10]),
            ("0-9:5", vec![0, 5]),
            (" 7-9, 1 ,5", vec![1, 5, 7, 8, 9]),
            ("18446744073709551614-18446744073709551615", vec![u64::MAX - 1, u64::MAX]),
        ] {
            assert_eq!(indices(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_range_is_said_with_the_reason() {
        for (text, why) in [
            ("", "no index"),
            ("a-b", "`a-b`"),
            ("1-", "`1-`"),
            ("-1", "`-1`"),
            ("+1", "`+1`"),
            ("5-1", "5 comes after 1"),
            ("1-9:0", "step of 0"),
            ("1-9:x", "no step"),
            ("1,1", "1 is there twice"),
            ("1-3,2-4", "2 is there twice"),
            ("0-999999999999", "at most"),
            ("1..5", "`1..5`"),
        ] {
            let error = indices(text).unwrap_err();
            assert!(error.contains(why) && error.contains("write indices"), "{error}");
        }
    }
}
