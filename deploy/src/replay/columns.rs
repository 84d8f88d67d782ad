//! Tables that stay aligned, with colours in them or without.

/// Rows in columns as wide as their widest cell; the last column is not padded.
pub(super) fn columns(indent: &str, rows: &[Vec<String>]) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| visible(cell)).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let mut line = indent.to_owned();
        for (index, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if index + 1 < row.len() {
                line.extend(std::iter::repeat_n(' ', widths[index] - visible(cell) + 2));
            }
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// How many columns a text takes on a terminal, escape sequences left out.
fn visible(text: &str) -> usize {
    let mut count = 0;
    let mut escaped = false;
    for character in text.chars() {
        match (escaped, character) {
            (false, '\x1b') => escaped = true,
            (false, _) => count += 1,
            (true, 'm') => escaped = false,
            (true, _) => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_do_not_disturb_columns() {
        let rows = |bold: &str, end: &str| {
            vec![vec![format!("{bold}ab{end}"), "c".into()], vec!["a".into(), format!("{bold}longer{end}")]]
        };
        assert_eq!(columns("  ", &rows("", "")), ["  ab  c", "  a   longer"]);
        assert_eq!(columns("  ", &rows("\x1b[1m", "\x1b[0m")), ["  \x1b[1mab\x1b[0m  c", "  a   \x1b[1mlonger\x1b[0m"]);
    }
}
