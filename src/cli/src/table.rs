//! Columns of text.

use crate::style::Style;

/// One cell: text and how it looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    pub text: String,
    /// A part of the text (the icon of a step) that is painted, if not all of it.
    pub painted: Option<(String, Style)>,
    pub style: Style,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

impl Cell {
    pub fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style, painted: None }
    }

    fn width(&self) -> usize {
        // Every symbol that is printed here is one column wide.
        self.text.chars().count()
    }

    fn render(&self) -> String {
        match &self.painted {
            Some((part, style)) => self.text.replacen(part, &style.paint(part), 1),
            None => self.style.paint(&self.text),
        }
    }
}

/// Lays rows out in columns, `gap` blanks between them, no blanks at the end of a line.
pub(crate) fn render(rows: &[Vec<Cell>], gap: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(Cell::width).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let last = row.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or(0);
        for (column, cell) in row.iter().enumerate().take(last + 1) {
            text.push_str(&cell.render());
            if column < last {
                text.push_str(&" ".repeat(widths[column] - cell.width() + gap));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_clean() {
        let rows = [
            vec!["NAME".into(), "X".into()],
            vec!["a✔".into(), Cell::default()],
            vec!["bcdefg".into(), "y".into()],
        ];
        assert_eq!(render(&rows, 3), "NAME     X\na✔\nbcdefg   y\n");
    }
}
