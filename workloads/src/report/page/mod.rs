//! A training or a prediction as one page: figures, curves, confusion matrix, pictures with what
//! they were taken for, where the time went, settings. One HTML file that needs no other and no
//! network.

mod chart;
mod matrix;
mod picture;
pub mod pipeline;

use std::fmt::Write as _;

use chart::{Chart, Series, grouped};
pub use matrix::Matrix;
pub use picture::Picture;
use pipeline::Pipeline;

use super::rounds::Rows;

const STYLE: &str = include_str!("style.css");
/// Files that were left out and are named.
const NAMED: usize = 50;

/// What a page is made of.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// What it is about.
    pub kind: Kind,
    /// The job's name.
    pub job: String,
    /// What was trained how, or what predicts, in a line.
    pub about: String,
    /// What counts most: label, value.
    pub figures: Vec<(String, String)>,
    /// Figures by round.
    pub rounds: Rows,
    /// How classes were taken for each other.
    pub confusion: Option<Matrix>,
    /// Groups of pictures under a headline.
    pub pictures: Vec<(String, Vec<Picture>)>,
    /// Files that were left out, and why.
    pub skipped: Vec<(String, String)>,
    /// Of each replica, by its number.
    pub times: Vec<(u32, Times)>,
    /// How the test images were predicted, where a pipeline did it.
    pub pipeline: Option<Pipeline>,
    /// Keys of the job's TOML, values, and whether they were given rather than a default.
    pub settings: Vec<(String, String, bool)>,
    /// Machine, versions, data: label, value.
    pub environment: Vec<(String, String)>,
}

/// What a page is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// A model was trained, and tested.
    #[default]
    Training,
    /// Predictions of a saved model.
    Prediction,
}

impl Kind {
    /// The line above the headline.
    fn line(self) -> &'static str {
        match self {
            Self::Training => "<p class=\"kind\">Training report</p>",
            Self::Prediction => "<p class=\"kind\">Prediction report</p>",
        }
    }

    /// Whether a file is a page of this kind.
    pub fn is_of(self, html: &str) -> bool {
        html.contains(self.line())
    }
}

/// Where a replica's time went, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Times {
    /// Forward and backward passes.
    pub compute: f64,
    /// Waiting for batches.
    pub data: f64,
    /// Exchanging and applying what is shared.
    pub merge: f64,
    /// Anything else.
    pub wait: f64,
}

impl Times {
    fn parts(&self) -> [(&'static str, f64); 4] {
        let Self { compute, data, merge, wait } = *self;
        [("compute", compute), ("data", data), ("merge", merge), ("wait", wait)]
    }

    fn total(&self) -> f64 {
        self.parts().iter().map(|(_, seconds)| seconds).sum()
    }
}

/// A count as people write it, thousands apart.
pub fn count(number: usize) -> String {
    grouped(number as f64, 0)
}

/// Text as HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Page {
    /// The whole file.
    pub fn html(&self) -> String {
        let (job, about, kind) = (escaped(&self.job), escaped(&self.about), self.kind.line());
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{job}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
             <header>\n{kind}\n<h1>{job}</h1>\n\
             <p class=\"about\">{about}</p>\n</header>\n"
        );
        self.push_figures(&mut html);
        self.push_curves(&mut html);
        self.push_times(&mut html);
        if let Some(pipeline) = &self.pipeline {
            section(&mut html, "Prediction, stage by stage", &pipeline.html());
        }
        if let Some(confusion) = &self.confusion {
            section(&mut html, "Confusion", &confusion.html());
        }
        for (headline, pictures) in self.pictures.iter().filter(|(_, group)| !group.is_empty()) {
            let pictures: String = pictures.iter().map(Picture::html).collect();
            section(&mut html, headline, &format!("<div class=\"pictures\">{pictures}</div>\n"));
        }
        self.push_skipped(&mut html);
        self.push_settings(&mut html);
        let rows = self.environment.iter();
        let rows: String = rows.map(|(label, value)| row(label, value, true)).collect();
        section(&mut html, "Environment", &format!("<table class=\"keys\">\n{rows}</table>\n"));
        html.push_str("</main>\n</body>\n</html>\n");
        html
    }

    fn push_skipped(&self, html: &mut String) {
        if self.skipped.is_empty() {
            return;
        }
        let named = self.skipped.iter().take(NAMED);
        let mut rows: String = named.map(|(file, reason)| row(file, reason, true)).collect();
        if self.skipped.len() > NAMED {
            let more = format!("and {} more", count(self.skipped.len() - NAMED));
            rows.push_str(&row(&more, "tables/skipped.csv has all", false));
        }
        let headline = match self.skipped.len() {
            1 => "1 picture left out".to_owned(),
            many => format!("{} pictures left out", count(many)),
        };
        section(html, &headline, &format!("<table class=\"keys\">\n{rows}</table>\n"));
    }

    fn push_figures(&self, html: &mut String) {
        let figure = |(label, value): &(String, String)| {
            format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escaped(label), escaped(value))
        };
        let figures: String = self.figures.iter().map(figure).collect();
        // Writing to a string cannot fail, here and below.
        let _ = write!(html, "<dl class=\"figures\">\n{figures}</dl>\n");
    }

    fn push_curves(&self, html: &mut String) {
        let Rows { names, rows } = &self.rounds;
        let column = |name: &String| -> Option<Series> {
            let index = names.iter().position(|each| each == name)?;
            let at =
                |row: &Vec<Option<f64>>| Some((row.first().copied()??, row.get(index).copied()??));
            let points: Vec<(f64, f64)> = rows.iter().filter_map(at).collect();
            let shown = name.replace('_', " ").replace("val ", "validation ");
            (!points.is_empty()).then_some(Series { name: shown, points })
        };
        let ends = |ends: &[&str]| -> Vec<Series> {
            let wanted = |name: &&String| ends.iter().any(|end| name.ends_with(end));
            names.iter().filter(wanted).filter_map(column).collect()
        };
        let mut quality = ends(&["_precision", "_recall", "f1", "_roc_auc"]);
        // With more than two classes F1 is macro F1.
        quality.dedup_by(|second, first| second.points == first.points);
        let charts = [
            Chart { title: "Loss", series: ends(&["_loss"]), from_zero: true },
            Chart { title: "Accuracy", series: ends(&["_accuracy"]), from_zero: false },
            Chart { title: "Quality", series: quality, from_zero: false },
            Chart { title: "Images per second", series: ends(&["per_second"]), from_zero: true },
        ];
        let charts: String =
            charts.iter().filter(|chart| !chart.series.is_empty()).map(Chart::html).collect();
        if !charts.is_empty() {
            section(html, "By round", &format!("<div class=\"charts\">\n{charts}</div>\n"));
        }
    }

    fn push_times(&self, html: &mut String) {
        let longest = self.times.iter().map(|(_, times)| times.total()).fold(0.0, f64::max);
        if longest <= 0.0 {
            return;
        }
        let mut body = String::from("<ul class=\"legend\">");
        for (name, _) in Times::default().parts() {
            let _ = write!(body, "<li><i class=\"{name}\"></i>{name}</li>");
        }
        body.push_str("</ul>\n<div class=\"bars\">\n");
        for (replica, times) in &self.times {
            let _ = write!(body, "<span>replica {replica}</span><div class=\"bar\">");
            for (name, seconds) in times.parts() {
                let (width, share) = (100.0 * seconds / longest, 100.0 * seconds / times.total());
                let text = if width >= 7.0 { format!("{share:.0} %") } else { String::new() };
                let _ = write!(
                    body,
                    "<i class=\"{name}\" style=\"width:{width:.3}%\" \
                     title=\"{name}: {seconds:.1} s, {share:.1} %\">{text}</i>"
                );
            }
            let _ = writeln!(body, "</div><span class=\"total\">{:.1} s</span>", times.total());
        }
        body.push_str("</div>\n");
        section(html, "Where the time went", &body);
    }

    fn push_settings(&self, html: &mut String) {
        let mut body = String::from("<div class=\"settings\">\n");
        let mut current = None;
        for (key, value, given) in &self.settings {
            let (group, name) = key.split_once('.').unwrap_or(("job", key));
            if current != Some(group) {
                let close = if current.is_some() { "</table></div>\n" } else { "" };
                let head = format!("<div><h3>{}</h3>\n<table class=\"keys\">\n", escaped(group));
                body.push_str(&[close, &head].concat());
                current = Some(group);
            }
            body.push_str(&row(name, value, *given));
        }
        if current.is_none() {
            return;
        }
        body.push_str("</table></div>\n</div>\n");
        section(html, "Settings", &body);
    }
}

fn section(html: &mut String, headline: &str, body: &str) {
    let _ = write!(html, "<section>\n<h2>{}</h2>\n{body}</section>\n", escaped(headline));
}

/// A line of a table of keys; what was not given stands back.
fn row(label: &str, value: &str, given: bool) -> String {
    let class = if given { "" } else { " class=\"default\"" };
    format!("<tr{class}><th>{}</th><td>{}</td></tr>\n", escaped(label), escaped(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Shape;

    fn page() -> Page {
        let names = ["round", "images_per_second", "train_loss", "val_loss", "val_accuracy"];
        let row = |n: f64| [n, 900.0 + n, 1.0 / n, 1.5 / n, 1.0 - 0.5 / n].map(Some).to_vec();
        let shape = Shape { rows: 4, columns: 4, channels: 1 };
        let picture = Picture {
            pixels: vec![7; 16],
            shape,
            predicted: "<cat>".into(),
            label: Some("dog".into()),
            certainty: 0.75,
        };
        Page {
            job: "a & b".into(),
            figures: vec![("test accuracy".into(), "0.98".into())],
            rounds: Rows {
                names: names.map(str::to_owned).into(),
                rows: (1..=3).map(|n| row(n.into())).collect(),
            },
            confusion: Some(Matrix {
                classes: vec!["cat".into(), "dog".into()],
                rows: vec![vec![8, 2], vec![0, 10]],
            }),
            pictures: vec![("Pictures".into(), vec![picture])],
            times: vec![(1, Times { compute: 6.0, data: 1.0, merge: 1.0, wait: 2.0 })],
            pipeline: Some(Pipeline {
                summary: "10 images <all>".into(),
                stages: vec![pipeline::Stage {
                    name: "decode".into(),
                    images: 10,
                    busy: 0.5,
                    share: 0.25,
                    most_waiting: 7,
                    ..Default::default()
                }],
                moves: vec![pipeline::Move {
                    seconds: 1.5,
                    actor: 4,
                    from: "predict".into(),
                    to: "decode".into(),
                    why: "all wait for it".into(),
                }],
            }),
            skipped: (0..52).map(|n| (format!("{n}.png"), "it is damaged".into())).collect(),
            settings: vec![
                ("name".into(), "a & b".into(), true),
                ("train.epochs".into(), "3".into(), false),
            ],
            ..Page::default()
        }
    }

    #[test]
    fn a_page_has_all_parts_and_needs_nothing_else() {
        let html = page().html();
        for piece in [
            "<title>a &amp; b</title>",
            "<dd>0.98</dd>",
            "validation loss",
            "<svg",
            "data:image/png;base64,",
            "&lt;cat&gt;",
            "compute: 6.0 s, 60.0 %",
            "10 images &lt;all&gt;",
            "<td>50.000</td><td>0.50 s</td>",
            "25 %</div></td><td>7</td>",
            "<th>1.50 s</th><td>actor 4: predict &#8594; decode<small>all wait for it</small>",
            "<h3>train</h3>",
            "52 pictures left out",
            "<th>49.png</th><td>it is damaged</td>",
            "and 2 more",
            "class=\"default\"",
            "prefers-color-scheme: dark",
        ] {
            assert!(html.contains(piece), "{piece} is not in {html}");
        }
        for outside in ["http://", "https://", "<script", "<link", "@import", "NaN", "inf"] {
            assert!(!html.contains(outside), "{outside} is in {html}");
        }
    }

    #[test]
    fn every_element_is_closed() {
        let html = page().html();
        let body = &html[html.find("<body").unwrap()..];
        for name in
            ["div", "table", "tr", "section", "svg", "figure", "ul", "li", "g", "text", "td", "th"]
        {
            let open = body.matches(&format!("<{name} ")).count();
            let open = open + body.matches(&format!("<{name}>")).count();
            assert_eq!(open, body.matches(&format!("</{name}>")).count(), "{name}");
        }
    }

    #[test]
    fn an_empty_page_is_a_page() {
        let html = Page::default().html();
        assert!(Kind::Training.is_of(&html) && !Kind::Prediction.is_of(&html));
        assert!(html.ends_with("</html>\n") && !html.contains("NaN"), "{html}");
    }
}
