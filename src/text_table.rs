//! Tables and numbers as plain text for a terminal.

use std::fmt::Write;

use unicode_width::UnicodeWidthStr;

use crate::domain::names::is_bidirectional_control;

pub(crate) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).into()
}

/// Aligns the first column to the left and the other columns to the right.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            // The width of a format counts characters, but a terminal shows Chinese characters, for example, in two columns.
            let padding = " ".repeat(width(column).unwrap_or(0).saturating_sub(cell.width()));
            _ = if column == 0 { write!(line, "{cell}{padding}") } else { write!(line, "  {padding}{cell}") };
        }
        _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Numbers below 100 have two decimal places, which are omitted if both are 0. Larger numbers have none.
pub(crate) fn number(value: f64) -> String {
    if value.abs() >= 99.995 {
        return whole(value);
    }
    let text = format!("{value:.2}");
    text.strip_suffix(".00").map(str::to_owned).unwrap_or(text)
}

/// A percentage, with decimal places only below 10.
pub(crate) fn percent(value: f64) -> String {
    if value >= 10.0 { format!("{} %", whole(value)) } else { format!("{} %", number(value)) }
}

/// Rounds to a whole number, with commas as thousands separators.
pub(crate) fn whole(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value <= -0.5 { format!("-{text}") } else { text }
}

/// Replaces characters that a terminal would interpret, or that would change the order of the text around them.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_bidirectional_control(c) { '\u{FFFD}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_by_display_width() {
        let rows = [row(["user", "n"]), row(["山田太郎", "1,000"]), row(["Zoë", "2"])];
        assert_eq!(columns(&rows), "user          n\n山田太郎  1,000\nZoë           2\n");
    }

    #[test]
    fn control_characters_are_replaced() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}c"), "a\u{FFFD}[2Jb\u{FFFD}c");
    }
}
