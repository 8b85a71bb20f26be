//! The one printer: plain aligned tables that can be pasted anywhere.

use std::fmt::{Display, Formatter, Result};

/// A table with a title, and notes below it.
#[derive(Default)]
pub struct Table {
    /// What was measured, and how.
    pub title: String,
    /// The names of the columns after the first.
    pub columns: Vec<&'static str>,
    /// A name and a text per column.
    pub rows: Vec<(String, Vec<String>)>,
    /// What a reader must know.
    pub notes: Vec<String>,
}

impl Display for Table {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        let chars = |text: &str| text.chars().count();
        let first = self.rows.iter().map(|(name, _)| chars(name)).max().unwrap_or(0);
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, column)| {
                let cells = self.rows.iter().filter_map(|(_, cells)| cells.get(at));
                cells.map(|cell| chars(cell)).max().unwrap_or(0).max(chars(column))
            })
            .collect();
        let line = |name: &str, cells: &mut dyn Iterator<Item = &str>| {
            let cells: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
            format!("  {name:first$}  {}", cells.join("  "))
        };
        writeln!(out, "\n{}", self.title)?;
        writeln!(out, "{}", line("", &mut self.columns.iter().copied()))?;
        for (name, cells) in &self.rows {
            writeln!(out, "{}", line(name, &mut cells.iter().map(String::as_str)))?;
        }
        for note in &self.notes {
            writeln!(out, "  {note}")?;
        }
        Ok(())
    }
}

/// Prints something and a line end.
#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
pub fn say(text: &impl Display) {
    println!("{}", text.to_string().trim_end_matches('\n'));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |name: &str, cell: &str| (name.to_owned(), vec![cell.to_owned(), "1".to_owned()]);
        let table = Table {
            title: "speed".into(),
            columns: vec!["µs", "calls/s"],
            rows: vec![row("ours", "12.5"), row("another", "7")],
            notes: vec!["so".into()],
        };
        assert_eq!(
            table.to_string(),
            "\nspeed\n             µs  calls/s\n  ours     12.5        1\n  another     7        1\n  so\n"
        );
    }
}
