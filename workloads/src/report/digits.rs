//! Grey images drawn in a terminal: each character shows two pixels, one above the other, by half
//! blocks. No colours, so that the drawing also survives pipes and logs.

/// Pixels from here on are drawn.
const INK: u8 = 96;
/// Characters between images.
const GAP: usize = 2;

/// One image and what stands under it.
#[derive(Debug, Clone)]
pub struct Sample<'a> {
    /// `rows x columns` bytes, 0 black.
    pub pixels: &'a [u8],
    /// Text below.
    pub caption: String,
}

/// Images of `columns` pixels side by side, as many as fit into `width` characters, then the next
/// row of images.
pub fn draw(samples: &[Sample<'_>], columns: usize, width: usize) -> String {
    let captions = samples.iter().map(|sample| sample.caption.chars().count());
    let cell = captions.max().unwrap_or(0).max(columns) + GAP;
    let mut text = String::new();
    for row in samples.chunks((width / cell).max(1)) {
        let lines = row.iter().map(|sample| sample.pixels.len() / columns).max().unwrap_or(0);
        for line in (0..lines).step_by(2) {
            let drawn = row.iter().map(|sample| half_blocks(sample, columns, line));
            push_line(&mut text, drawn, cell);
        }
        push_line(&mut text, row.iter().map(|sample| sample.caption.clone()), cell);
    }
    text
}

/// Two lines of pixels as one of characters.
fn half_blocks(sample: &Sample<'_>, columns: usize, line: usize) -> String {
    let ink = |line: usize, column: usize| {
        sample.pixels.get(line * columns + column).is_some_and(|pixel| *pixel >= INK)
    };
    let block = |column| match (ink(line, column), ink(line + 1, column)) {
        (false, false) => ' ',
        (true, false) => '\u{2580}',
        (false, true) => '\u{2584}',
        (true, true) => '\u{2588}',
    };
    (0..columns).map(block).collect()
}

fn push_line(text: &mut String, cells: impl Iterator<Item = String>, width: usize) {
    let line: String = cells.map(|cell| format!("{cell:<width$}")).collect();
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(pixels: &[u8]) -> Sample<'_> {
        Sample { pixels, caption: "7".into() }
    }

    #[test]
    fn images_stand_side_by_side_with_captions() {
        let pixels = [255, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0, 255];
        let samples = [sample(&pixels), sample(&pixels)];
        assert_eq!(draw(&samples, 4, 12), "█▀ ▄  █▀ ▄\n   ▀     ▀\n7     7\n");
        let one = "█▀ ▄\n   ▀\n7\n";
        assert_eq!(draw(&samples, 4, 6), [one, one].concat());
    }

    #[test]
    fn long_captions_keep_their_distance() {
        let long = Sample { pixels: &[255; 4], caption: "predicted 7".into() };
        let text = draw(&[long.clone(), long], 2, 80);
        assert_eq!(text, "██           ██\npredicted 7  predicted 7\n");
    }
}
