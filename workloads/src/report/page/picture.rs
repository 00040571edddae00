//! An image with what it was taken for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::escaped;
use crate::data::Shape;

/// Images of fewer columns are shown with their pixels.
const SMALL: u32 = 48;

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Row after row; a pixel's channels together.
    pub pixels: Vec<u8>,
    /// Its size.
    pub shape: Shape,
    /// The class that it was taken for.
    pub predicted: String,
    /// Its true class, where that is known.
    pub label: Option<String>,
    /// How sure the model is, 0 to 1.
    pub certainty: f32,
}

impl Picture {
    pub(super) fn html(&self) -> String {
        let wrong = self.label.as_ref().is_some_and(|label| *label != self.predicted);
        let class = if wrong { " class=\"wrong\"" } else { "" };
        let label = match &self.label {
            Some(label) if wrong => format!("<small>true: {}</small>", escaped(label)),
            _ => String::new(),
        };
        let sure = f64::from(100.0 * self.certainty.clamp(0.0, 1.0));
        let style = if self.shape.columns < SMALL { " class=\"pixels\"" } else { "" };
        let predicted = escaped(&self.predicted);
        format!(
            "<figure{class}><img{style} alt=\"taken for {predicted}\" src=\"{}\">\
             <figcaption><b>{predicted}</b>{label}<span class=\"sure\" title=\"{sure:.1} % sure\">\
             <i style=\"width:{sure:.0}%\"></i></span></figcaption></figure>\n",
            self.source()
        )
    }

    /// The image as a URL that holds it.
    fn source(&self) -> String {
        // Nothing but memory is written to, and the size is checked: encoding does not fail.
        let encoded = self.encode().unwrap_or_default();
        format!("data:image/png;base64,{}", STANDARD.encode(encoded))
    }

    fn encode(&self) -> Result<Vec<u8>, png::EncodingError> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.shape.columns, self.shape.rows);
        encoder.set_color(match self.shape.channels {
            3 => png::ColorType::Rgb,
            _ => png::ColorType::Grayscale,
        });
        encoder.set_depth(png::BitDepth::Eight);
        encoder.write_header()?.write_image_data(&self.pixels)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_comes_back_from_the_page() {
        let shape = Shape { rows: 2, columns: 2, channels: 3 };
        let pixels: Vec<u8> = (0..12).collect();
        let picture = Picture {
            pixels: pixels.clone(),
            shape,
            predicted: "7".into(),
            label: Some("9".into()),
            certainty: 0.5,
        };
        let html = picture.html();
        assert!(html.contains("true: 9") && html.contains("50.0 % sure"), "{html}");
        let source = picture.source();
        let encoded = STANDARD.decode(source.strip_prefix("data:image/png;base64,").unwrap());
        let decoder = png::Decoder::new(std::io::Cursor::new(encoded.unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut decoded = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut decoded).unwrap();
        assert_eq!(decoded, pixels);
    }
}
