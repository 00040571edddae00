//! Lines over the number of workers, as an SVG that any browser shows.

use std::fmt::Write as _;

/// One diagram.
pub(super) struct Panel {
    pub title: String,
    pub lines: Vec<Line>,
}

/// One line of it.
pub(super) struct Line {
    pub label: String,
    /// Workers and the figure.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 300.0;
/// Around the lines of a panel: left, right, top, bottom.
const MARGIN: [f64; 4] = [70.0, 20.0, 40.0, 45.0];
const COLOURS: [&str; 3] = ["#1f77b4", "#d62728", "#2ca02c"];

/// All panels, two in a row. Workers are on a logarithmic axis, figures on one from 0.
pub(super) fn draw(panels: &[Panel]) -> String {
    let rows = panels.len().div_ceil(2).max(1);
    let (width, height) = (2.0 * WIDTH, rows as f64 * HEIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (index, panel) in panels.iter().enumerate() {
        let (x, y) = ((index % 2) as f64 * WIDTH, (index / 2) as f64 * HEIGHT);
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">");
        draw_panel(&mut svg, panel);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_panel(svg: &mut String, panel: &Panel) {
    let [left, right, top, bottom] = MARGIN;
    let points = || panel.lines.iter().flat_map(|line| &line.points);
    let decades = points().map(|point| point.0.max(1.0).log10()).fold(1.0, f64::max);
    let most = points().map(|point| point.1).fold(0.0, f64::max);
    let most = if most > 0.0 { 1.1 * most } else { 1.0 };
    let x = |workers: f64| left + workers.max(1.0).log10() / decades * (WIDTH - left - right);
    let y = |figure: f64| HEIGHT - bottom - figure / most * (HEIGHT - top - bottom);
    text(svg, (WIDTH / 2.0, 20.0), "middle", "black", &panel.title);
    for tick in 0..=4 {
        let figure = most * f64::from(tick) / 4.0;
        rule(svg, (left, y(figure)), (WIDTH - right, y(figure)));
        text(svg, (left - 6.0, y(figure) + 4.0), "end", "black", &show(figure));
    }
    for decade in 0..=decades.floor() as i32 {
        let workers = 10_f64.powi(decade);
        rule(svg, (x(workers), top), (x(workers), HEIGHT - bottom));
        text(svg, (x(workers), HEIGHT - bottom + 16.0), "middle", "black", &show(workers));
    }
    text(svg, (WIDTH / 2.0, HEIGHT - 10.0), "middle", "black", "workers");
    for (index, line) in panel.lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let at: Vec<_> = line
            .points
            .iter()
            .map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            at.join(" ")
        );
        for point in &line.points {
            let (x, y) = (x(point.0), y(point.1));
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\">\
                 <title>{} workers: {}</title></circle>",
                show(point.0),
                show(point.1)
            );
        }
        let label = (WIDTH - right, top + 14.0 * (index as f64 + 1.0) - 18.0);
        text(svg, label, "end", colour, &line.label);
    }
}

fn rule(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, colour: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>",
        at.0, at.1
    );
}

/// As short as it tells enough.
fn show(number: f64) -> String {
    if number >= 100.0 {
        format!("{number:.0}")
    } else {
        format!("{}", (number * 100.0).round() / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_inside_of_its_panel() {
        let points = vec![(1.0, 0.0), (10.0, 3.5), (1_000.0, 700.0)];
        let line = |label: &str| Line { label: label.to_owned(), points: points.clone() };
        let panel =
            |title: &str| Panel { title: title.to_owned(), lines: vec![line("a < b"), line("c")] };
        let svg = draw(&[panel("one"), panel("two"), panel("three")]);
        assert_eq!(svg.matches("<polyline").count(), 6);
        assert_eq!(svg.matches("<circle").count(), 18);
        assert!(svg.contains("a &lt; b") && svg.ends_with("</svg>\n"));
        let number = |text: &str| text.split('"').nth(1).unwrap().parse::<f64>().unwrap();
        for circle in svg.lines().filter(|line| line.starts_with("<circle")) {
            let (x, y) = circle.split_once(" cy=").unwrap();
            let y = format!("y={y}");
            assert!((MARGIN[0]..=WIDTH - MARGIN[1]).contains(&number(x)), "{circle}");
            assert!((MARGIN[2]..=HEIGHT - MARGIN[3]).contains(&number(&y)), "{circle}");
        }
    }
}
