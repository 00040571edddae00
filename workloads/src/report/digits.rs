//! Grey images drawn in a terminal: each character shows two pixels, one above the other, as an
//! upper half block whose foreground and background carry their grey.

use std::fmt::Write;

/// One image and what stands under it.
#[derive(Debug, Clone)]
pub struct Sample<'a> {
    /// `rows x columns` bytes, 0 black.
    pub pixels: &'a [u8],
    /// Text below, in two lines at most.
    pub caption: String,
}

/// Images side by side, as many as fit into `width` characters, then the next row of images.
/// Without `colour`, greys become the characters ` .:*#`, two pixels in one.
pub fn draw(samples: &[Sample<'_>], columns: usize, width: usize, colour: bool) -> String {
    const GAP: usize = 2;
    let in_row = (width / (columns + GAP)).max(1);
    let mut text = String::new();
    for row in samples.chunks(in_row) {
        let lines = row.iter().map(|sample| sample.pixels.len() / columns).max().unwrap_or(0);
        for line in (0..lines).step_by(2) {
            for sample in row {
                for column in 0..columns {
                    let pixel = |line: usize| {
                        sample.pixels.get(line * columns + column).copied().unwrap_or(0)
                    };
                    put(&mut text, pixel(line), pixel(line + 1), colour);
                }
                if colour {
                    text.push_str("\x1b[0m");
                }
                text.push_str(&" ".repeat(GAP));
            }
            trim_end(&mut text);
            text.push('\n');
        }
        for sample in row {
            // Writing to a string cannot fail.
            let _ = write!(text, "{:<1$}", sample.caption, columns + GAP);
        }
        trim_end(&mut text);
        text.push('\n');
    }
    text
}

fn put(text: &mut String, upper: u8, lower: u8, colour: bool) {
    if colour {
        // The 24 greys of the 256-colour palette, which every terminal of today has.
        let grey = |pixel: u8| 232 + u32::from(pixel) * 23 / 255;
        let _ = write!(text, "\x1b[38;5;{}m\x1b[48;5;{}m\u{2580}", grey(upper), grey(lower));
        return;
    }
    const GREYS: [char; 5] = [' ', '.', ':', '*', '#'];
    let mean = (usize::from(upper) + usize::from(lower)) / 2;
    text.push(GREYS[mean * (GREYS.len() - 1) / 255]);
}

fn trim_end(text: &mut String) {
    text.truncate(text.trim_end_matches(' ').len());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(pixels: &[u8]) -> Sample<'_> {
        Sample { pixels, caption: "is 7".into() }
    }

    #[test]
    fn plain_images_stand_side_by_side_with_captions() {
        let pixels = [255, 255, 0, 0, 255, 255, 0, 0, 0, 0, 0, 255];
        let text = draw(&[sample(&pixels), sample(&pixels)], 4, 20, false);
        assert_eq!(text, "##    ##\n   .     .\nis 7  is 7\n");
        let narrow = draw(&[sample(&pixels), sample(&pixels)], 4, 6, false);
        assert_eq!(narrow, "##\n   .\nis 7\n##\n   .\nis 7\n");
    }

    #[test]
    fn colours_carry_both_pixels() {
        let text = draw(&[sample(&[255, 0])], 1, 80, true);
        assert!(text.starts_with("\x1b[38;5;255m\x1b[48;5;232m\u{2580}\x1b[0m"), "{text:?}");
    }
}
