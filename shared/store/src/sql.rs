//! Statements over many rows, in the sizes 1, 2, 4 … 64, so that few distinct texts are ever prepared, and each list of rows
//! takes one trip to the server.

use std::fmt::Write as _;
use std::sync::OnceLock;

/// The most rows of one statement, and of one batch.
pub(crate) const MAX_ROWS: usize = 64;
const SIZES: usize = 7;

/// A statement around a list of rows of placeholders: `head VALUES ($1, $2), ($3, $4) … tail`.
///
/// `types` names the SQL type of each column; PostgreSQL needs to be told where a `VALUES` list stands alone.
pub(crate) struct Rows {
    head: &'static str,
    types: &'static [&'static str],
    tail: &'static str,
    texts: [OnceLock<String>; SIZES],
}

impl Rows {
    /// A statement whose rows are written after `head` and before `tail`.
    pub(crate) const fn new(head: &'static str, types: &'static [&'static str], tail: &'static str) -> Self {
        Self { head, types, tail, texts: [const { OnceLock::new() }; SIZES] }
    }

    /// The text for `rows` rows; `rows` is one of the sizes that [`padded`] makes.
    pub(crate) fn sql(&'static self, rows: usize) -> &'static str {
        let size = rows.trailing_zeros() as usize;
        self.texts[size].get_or_init(|| {
            let mut text = String::from(self.head);
            for row in 0..rows {
                text.push_str(if row == 0 { "(" } else { ", (" });
                for (column, kind) in self.types.iter().enumerate() {
                    let comma = if column == 0 { "" } else { ", " };
                    let number = row * self.types.len() + column + 1;
                    // Writing to a string cannot fail.
                    let _ = write!(text, "{comma}CAST(${number} AS {kind})");
                }
                text.push(')');
            }
            text.push_str(self.tail);
            text
        })
    }
}

/// Cuts `items` into pieces of at most [`MAX_ROWS`] and fills each up to a power of two by repeating its last item. For
/// statements that do not mind: an `UPDATE … FROM` takes a row once, whatever its list repeats, and an `IN` does not care.
pub(crate) fn padded<T>(items: &[T]) -> impl Iterator<Item = Vec<&T>> {
    items.chunks(MAX_ROWS).map(|piece| {
        let last = piece.last().into_iter().cycle();
        piece.iter().chain(last).take(piece.len().next_power_of_two()).collect()
    })
}

/// The same with blanks instead of repetitions, for an `INSERT … SELECT`, which leaves out the rows whose first column is NULL.
pub(crate) fn with_blanks<T>(items: &[T]) -> impl Iterator<Item = Vec<Option<&T>>> {
    items.chunks(MAX_ROWS).map(|piece| {
        let blanks = std::iter::repeat(None);
        piece.iter().map(Some).chain(blanks).take(piece.len().next_power_of_two()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    static PAIRS: Rows = Rows::new("INSERT INTO t (a, b) VALUES ", &["TEXT", "BIGINT"], " RETURNING a");

    #[test]
    fn placeholders_are_numbered_row_by_row() {
        assert_eq!(
            PAIRS.sql(2),
            "INSERT INTO t (a, b) VALUES (CAST($1 AS TEXT), CAST($2 AS BIGINT)), \
             (CAST($3 AS TEXT), CAST($4 AS BIGINT)) RETURNING a"
        );
    }

    #[test]
    fn pieces_are_powers_of_two_and_lose_nothing() {
        for n in 0..300 {
            let items: Vec<usize> = (0..n).collect();
            let pieces: Vec<Vec<&usize>> = padded(&items).collect();
            assert!(pieces.iter().all(|piece| piece.len().is_power_of_two() && piece.len() <= MAX_ROWS), "{n}");
            assert_eq!(pieces.len(), n.div_ceil(MAX_ROWS));
            let mut all: Vec<usize> = pieces.into_iter().flatten().copied().collect();
            all.dedup();
            assert_eq!(all, items);
            let pieces: Vec<Vec<Option<&usize>>> = with_blanks(&items).collect();
            assert!(pieces.iter().all(|piece| piece.len().is_power_of_two() && piece.len() <= MAX_ROWS), "{n}");
            assert_eq!(pieces.into_iter().flatten().flatten().copied().collect::<Vec<_>>(), items);
        }
    }
}
