//! A confusion matrix as a table whose cells are shaded by their share of the row.

use std::fmt::Write as _;

use super::escaped;

/// Up to so many classes, cells show their counts.
const MOST_COUNTED: usize = 24;

/// How often images of each class (down) were taken for each class (across).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matrix {
    /// Names, in the order of rows and columns.
    pub classes: Vec<String>,
    /// Counts.
    pub rows: Vec<Vec<u64>>,
}

impl Matrix {
    pub(super) fn html(&self) -> String {
        let counted = self.classes.len() <= MOST_COUNTED;
        let long = self.classes.iter().any(|name| name.chars().count() > 4);
        let class = match (counted, long) {
            (false, _) => "matrix fine",
            (true, true) => "matrix long",
            (true, false) => "matrix",
        };
        let mut html = format!(
            "<p class=\"note\">True classes down, predicted ones across; shaded by the share of \
             the true class.</p>\n<div class=\"scroll\"><table class=\"{class}\">\n"
        );
        if counted {
            html.push_str("<tr><th></th>");
            for name in &self.classes {
                let _ = write!(html, "<th><span>{}</span></th>", escaped(name));
            }
            html.push_str("<th class=\"recall\">recall</th></tr>\n");
        }
        for (label, row) in self.rows.iter().enumerate() {
            self.push_row(&mut html, label, row, counted);
        }
        html.push_str("</table></div>\n");
        html
    }

    fn push_row(&self, html: &mut String, label: usize, row: &[u64], counted: bool) {
        let name = |class: usize| escaped(self.classes.get(class).map_or("", String::as_str));
        let total: u64 = row.iter().sum();
        html.push_str("<tr>");
        if counted {
            let _ = write!(html, "<th>{}</th>", name(label));
        }
        for (class, count) in row.iter().enumerate() {
            let share = *count as f64 / total.max(1) as f64;
            // The eye tells small shares from none only when they are lifted.
            let shade = share.powf(0.4);
            let kind = if class == label { "right" } else { "wrong" };
            let text = if counted && *count > 0 { count.to_string() } else { String::new() };
            let strong = if shade > 0.6 { " strong" } else { "" };
            let _ = write!(
                html,
                "<td class=\"{kind}{strong}\" style=\"--shade:{:.0}%\" \
                 title=\"{} taken for {}: {count} of {total}\">{text}</td>",
                100.0 * shade,
                name(label),
                name(class)
            );
        }
        if counted {
            let right = row.get(label).copied().unwrap_or(0) as f64 / total.max(1) as f64;
            let text = if total > 0 { format!("{:.1} %", 100.0 * right) } else { String::new() };
            let _ = write!(html, "<td class=\"recall\">{text}</td>");
        }
        html.push_str("</tr>\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_counts_and_its_recall_and_an_empty_one_nothing() {
        let classes = vec!["a".to_owned(), "b".to_owned()];
        let html = Matrix { classes, rows: vec![vec![9, 1], vec![0, 0]] }.html();
        assert!(html.contains(">9</td>") && html.contains("90.0 %"), "{html}");
        assert!(html.contains("a taken for b: 1 of 10"), "{html}");
        assert!(!html.contains("NaN"), "{html}");
    }

    #[test]
    fn many_classes_are_shades_alone() {
        let classes: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        let html = Matrix { classes, rows: vec![vec![3; 50]; 50] }.html();
        assert!(html.contains("fine") && !html.contains(">3</td>"), "{html}");
    }
}
