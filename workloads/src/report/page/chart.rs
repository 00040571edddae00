//! Lines over rounds, as SVG.

use std::fmt::Write as _;

use super::escaped;

/// The drawing's size, and what its edges leave for numbers.
const SIZE: (f64, f64) = (480.0, 250.0);
const LEFT: f64 = 52.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 30.0;
/// Points that still get a dot each.
const MOST_DOTS: usize = 40;

/// A line.
pub(super) struct Series {
    pub(super) name: String,
    /// Round and value.
    pub(super) points: Vec<(f64, f64)>,
}

/// A drawing with its lines.
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) series: Vec<Series>,
    /// Whether the axis begins at zero, so that heights compare as amounts.
    pub(super) from_zero: bool,
}

impl Chart {
    pub(super) fn html(&self) -> String {
        let mut html = format!("<figure class=\"chart\">\n<figcaption>{}", self.title);
        if self.series.len() > 1 {
            html.push_str("<ul class=\"legend\">");
            for (index, series) in self.series.iter().enumerate() {
                let name = escaped(&series.name);
                let _ = write!(html, "<li><i class=\"s{}\"></i>{name}</li>", index % 6);
            }
            html.push_str("</ul>");
        }
        html.push_str("</figcaption>\n");
        self.push_svg(&mut html);
        html.push_str("</figure>\n");
        html
    }

    fn push_svg(&self, html: &mut String) {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let finite = || points().map(|point| point.1).filter(|value| value.is_finite());
        let (low, high) = finite()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        let low = if self.from_zero { low.min(0.0) } else { low };
        let (ticks, step) = ticks(low, high);
        let (bottom, top) = (ticks[0], ticks[ticks.len() - 1]);
        let first = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
        let last = points().map(|point| point.0).fold(1.0, f64::max);
        let first = if first.is_finite() { first.min(last) } else { 1.0 };
        let x = |round: f64| match last - first {
            0.0 => (LEFT + SIZE.0 - RIGHT) / 2.0,
            span => LEFT + (round - first) / span * (SIZE.0 - LEFT - RIGHT),
        };
        let y = |value: f64| {
            SIZE.1 - BOTTOM - (value - bottom) / (top - bottom) * (SIZE.1 - TOP - BOTTOM)
        };
        let (width, height) = SIZE;
        let _ = writeln!(
            html,
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">",
            self.title
        );
        for tick in &ticks {
            let (at, label) = (y(*tick), number(*tick, step));
            let _ = writeln!(
                html,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{}\"/>\
                 <text class=\"y\" x=\"{}\" y=\"{:.1}\">{label}</text>",
                width - RIGHT,
                LEFT - 8.0,
                at + 4.0
            );
        }
        for round in rounds(first, last) {
            let (at, down) = (x(round), height - 9.0);
            let _ =
                writeln!(html, "<text class=\"x\" x=\"{at:.1}\" y=\"{down}\">{round:.0}</text>");
        }
        for (index, series) in self.series.iter().enumerate() {
            let shown: Vec<_> = series.points.iter().filter(|each| each.1.is_finite()).collect();
            let at = |point: &&(f64, f64)| format!("{:.1} {:.1}", x(point.0), y(point.1));
            let path: Vec<String> = shown.iter().map(at).collect();
            let class = format!("s{}", index % 6);
            let _ = writeln!(html, "<path class=\"line {class}\" d=\"M{}\"/>", path.join("L"));
            for point in shown.iter().filter(|_| shown.len() <= MOST_DOTS) {
                let _ = writeln!(
                    html,
                    "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\">\
                     <title>{}, round {:.0}: {:.4}</title></circle>",
                    x(point.0),
                    y(point.1),
                    escaped(&series.name),
                    point.0,
                    point.1
                );
            }
        }
        html.push_str("</svg>\n");
    }
}

/// Round values that hold `low` and `high` between them, and how far they are from each other.
fn ticks(low: f64, high: f64) -> (Vec<f64>, f64) {
    let span = if high - low > 1e-9 { high - low } else { high.abs().max(1.0) * 0.2 };
    let rough = span / 4.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|each| each * power);
    let step = step.into_iter().find(|step| *step >= rough).unwrap_or(rough);
    let first = (low / step + 1e-9).floor();
    let mut last = (high / step - 1e-9).ceil();
    if last <= first {
        last = first + 1.0;
    }
    let count = (last - first) as usize;
    ((0..=count).map(|n| (first + n as f64) * step).collect(), step)
}

/// With as many digits as tell ticks apart.
fn number(value: f64, step: f64) -> String {
    let digits = (0..6).find(|digits| {
        let scaled = step * 10_f64.powi(*digits);
        (scaled - scaled.round()).abs() < 1e-6 * scaled.max(1.0)
    });
    grouped(value, digits.unwrap_or(6) as usize)
}

/// With so many digits behind the point, and thousands apart before it.
pub(super) fn grouped(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(a, b)| (a, b));
    let mut spaced = String::new();
    for (index, each) in whole.chars().enumerate() {
        let left = whole.len() - index;
        if left.is_multiple_of(3) && spaced.ends_with(|c: char| c.is_ascii_digit()) {
            spaced.push(',');
        }
        spaced.push(each);
    }
    if rest.is_empty() { spaced } else { format!("{spaced}.{rest}") }
}

/// Rounds that get a number: about ten at most, the first among them.
fn rounds(first: f64, last: f64) -> Vec<f64> {
    let count = (last - first) as u64 + 1;
    let every = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 10_000];
    let every = every.into_iter().find(|every| count / every <= 10).unwrap_or(count);
    let (from, to) = (first as u64, last as u64);
    let even = (from + 1..=to).filter(|round| round.is_multiple_of(every));
    let apart = even.filter(|round| 2 * (round - from) > every);
    std::iter::once(first).chain(apart.map(|round| round as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_all_values() {
        for (low, high, expected) in [
            (0.0, 1.0, vec![0.0, 0.25, 0.5, 0.75, 1.0]),
            (0.91, 0.98, vec![0.9, 0.92, 0.94, 0.96, 0.98]),
            (1_234.0, 2_600.0, vec![1_000.0, 1_500.0, 2_000.0, 2_500.0, 3_000.0]),
        ] {
            let (ticks, _) = ticks(low, high);
            assert!(ticks.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-9), "{ticks:?}");
            assert_eq!(ticks.len(), expected.len(), "{ticks:?}");
        }
        // One value alone, and nothing at all.
        for value in [0.0, 0.5, 2_000.0] {
            let (ticks, _) = ticks(value, value);
            assert!(ticks[0] <= value && ticks[ticks.len() - 1] >= value, "{ticks:?}");
        }
    }

    #[test]
    fn numbers_have_the_digits_that_they_need() {
        assert_eq!(number(0.92, 0.02), "0.92");
        assert_eq!(number(1_500.0, 500.0), "1,500");
        assert_eq!(number(-123_500.0, 500.0), "-123,500");
        assert_eq!(number(12_500.0, 500.0), "12,500");
        assert_eq!(number(0.25, 0.25), "0.25");
        assert_eq!(rounds(1.0, 3.0), [1.0, 2.0, 3.0]);
        assert_eq!(rounds(1.0, 60.0), [1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
        assert!(rounds(3.0, 5_000.0).len() <= 12);
    }
}
