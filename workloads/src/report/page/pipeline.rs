//! How a prediction went: what each stage did, and who was moved between them.

use std::fmt::Write as _;

use super::escaped;

/// A run of the pipeline.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pipeline {
    /// All of it, in a sentence.
    pub summary: String,
    /// In the order of the way.
    pub stages: Vec<Stage>,
    /// Actors that went from one stage to another, in order.
    pub moves: Vec<Move>,
}

/// A stage of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stage {
    /// What it does, in a word.
    pub name: String,
    /// Actors at the end.
    pub actors: u32,
    /// Calls that ended well, and images in them.
    pub calls: u32,
    /// See `calls`.
    pub images: u64,
    /// Seconds that its actors worked, all together.
    pub busy: f64,
    /// Share of the time that they worked, 0 to 1.
    pub share: f64,
    /// Most images that waited for it at once.
    pub most_waiting: usize,
}

/// An actor's way from one stage to another.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Move {
    /// When, in seconds after the pipeline began.
    pub seconds: f64,
    /// Which one.
    pub actor: u32,
    /// Where from.
    pub from: String,
    /// Where to.
    pub to: String,
    /// Why.
    pub why: String,
}

impl Pipeline {
    pub(super) fn html(&self) -> String {
        let mut html = format!("<p class=\"note\">{}</p>\n", escaped(&self.summary));
        html.push_str(
            "<div class=\"scroll\"><table class=\"stages\">\n<tr><th>stage</th><th>actors</th>\
             <th>calls</th><th>images</th><th>ms an image</th><th>busy</th>\
             <th class=\"wide\">share of the time</th><th>most waiting</th></tr>\n",
        );
        for stage in &self.stages {
            let Stage { name, actors, calls, images, busy, share, most_waiting } = stage;
            let cost = 1e3 * busy / (*images).max(1) as f64;
            let share = 100.0 * share.clamp(0.0, 1.0);
            // Writing to a string cannot fail, here and below.
            let _ = writeln!(
                html,
                "<tr><th>{}</th><td>{actors}</td><td>{calls}</td><td>{images}</td>\
                 <td>{cost:.3}</td><td>{busy:.2} s</td><td class=\"wide\"><div><span><i \
                 style=\"width:{share:.1}%\"></i></span>{share:.0} %</div></td>\
                 <td>{most_waiting}</td></tr>",
                escaped(name)
            );
        }
        html.push_str("</table></div>\n");
        self.push_moves(&mut html);
        html
    }

    fn push_moves(&self, html: &mut String) {
        if self.moves.is_empty() {
            return;
        }
        html.push_str("<h3>Actors that were moved</h3>\n<table class=\"keys\">\n");
        for Move { seconds, actor, from, to, why } in &self.moves {
            let _ = writeln!(
                html,
                "<tr><th>{seconds:.2} s</th><td>actor {actor}: {} &#8594; {}<small>{}</small></td>\
                 </tr>",
                escaped(from),
                escaped(to),
                escaped(why)
            );
        }
        html.push_str("</table>\n");
    }
}
