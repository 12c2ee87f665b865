//! A bar chart as SVG text.

use std::fmt::Write;

const ROW: usize = 26;
const LABELS: usize = 400;
const BARS: f64 = 360.0;

/// Horizontal bars with their values, the longest as wide as the picture allows.
pub fn bars(title: &str, rows: &[(&str, f64)]) -> String {
    let largest = rows
        .iter()
        .map(|row| row.1)
        .fold(f64::MIN_POSITIVE, f64::max);
    let height = ROW * (rows.len() + 1) + 20;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-weight=\"bold\">{}</text>\n",
        LABELS + 460,
        escape(title)
    );
    for (number, (name, value)) in rows.iter().enumerate() {
        let y = ROW * (number + 1) + 10;
        let width = value / largest * BARS;
        let colour = if name.contains("ours") {
            "#2a7ab0"
        } else {
            "#b0b0b0"
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{}\">{}</text>\
             <rect x=\"{LABELS}\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{value:.2}</text>",
            y + 14,
            escape(name),
            LABELS as f64 + width + 6.0,
            y + 14
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Text as it may stand between tags.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::bars;

    #[test]
    fn longest_bar_fills_the_width_and_names_are_escaped() {
        let svg = bars("t", &[("a <b>", 1.0), ("ours", 2.0)]);
        assert!(svg.contains("width=\"360.0\"") && svg.contains("width=\"180.0\""));
        assert!(svg.contains("a &lt;b>"));
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }
}
