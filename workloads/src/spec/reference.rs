//! The reference page of a job's TOML, made from the reading of it.

use super::document::Document;
use super::{SECTIONS, Spec};

/// Every key in Markdown, by section: type and range, default, what it is for.
pub fn reference() -> String {
    let mut text = String::from(
        "# The TOML of a training job\n\n\
         Made by `rdist-workloads reference`. Every key may be left out; `--set section.key=value` \
         on the command line wins over the file.\n\n",
    );
    // An empty job is read like any other, and every key is asked for on the way.
    let keys = match Document::parse("job.toml", "") {
        Ok(document) if Spec::read("job.toml", &document).is_ok() => document.described(),
        _ => Vec::new(),
    };
    let row = |text: &mut String, name: &str, kind: &str, default: &str, about: &str| {
        let cells =
            [&format!("`{name}`"), kind, default, about].map(|cell| cell.replace('|', "\\|"));
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    };
    let head = "| key | value | default | |\n|---|---|---|---|\n";
    text.push_str(head);
    for key in keys.iter().filter(|key| !key.key.contains('.')) {
        row(&mut text, &key.key, &key.kind, &key.default, key.about);
    }
    for section in SECTIONS {
        text.push_str(&format!("\n## [{section}]\n\n{head}"));
        for key in &keys {
            if let Some(name) = key.key.strip_prefix(section).and_then(|k| k.strip_prefix('.')) {
                row(&mut text, name, &key.kind, &key.default, key.about);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_every_section_and_its_keys() {
        let text = reference();
        for piece in ["## [train]", "| `epochs` | an integer", "| `flip` |", "\"gradient_master\""]
        {
            assert!(text.contains(piece), "{piece}: {text}");
        }
        assert!(text.lines().filter(|line| line.starts_with("| `")).count() > 50);
    }

    /// The page in the repository is the one that the code makes.
    #[test]
    fn the_page_is_up_to_date() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("REFERENCE.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == reference(),
            "run `cargo run -p rdist-workloads -- reference > workloads/REFERENCE.md`"
        );
    }
}
