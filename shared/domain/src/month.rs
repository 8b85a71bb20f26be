//! Budget periods: calendar months, UTC.

use std::fmt;

use chrono::{DateTime, Datelike as _, NaiveDate};

use crate::Millis;

/// A calendar month, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    year: i32,
    /// From 1.
    month: u32,
}

impl Month {
    /// The month that `at` lies in.
    pub fn of(at: Millis) -> Self {
        let date = DateTime::from_timestamp_millis(at.0).unwrap_or_default().date_naive();
        Self { year: date.year(), month: date.month() }
    }

    /// The month written as `2026-11`.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |(at, byte): (usize, u8)| byte.is_ascii_digit() != (at == 4) && (at != 4 || byte == b'-');
        let shaped = text.len() == 7 && text.bytes().enumerate().all(digit);
        let date = NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d").ok().filter(|_| shaped)?;
        Some(Self { year: date.year(), month: date.month() })
    }

    /// The number in the database: 202611.
    pub fn number(self) -> i64 {
        i64::from(self.year) * 100 + i64::from(self.month)
    }

    /// The month of that number.
    pub fn from_number(number: i64) -> Option<Self> {
        let (year, month) = (i32::try_from(number / 100).ok()?, u32::try_from(number % 100).ok()?);
        NaiveDate::from_ymd_opt(year, month, 1).map(|_| Self { year, month })
    }

    /// When it begins.
    pub fn begins(self) -> Millis {
        let first = NaiveDate::from_ymd_opt(self.year, self.month, 1).unwrap_or_default();
        Millis(first.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_millis())
    }

    /// The month after it.
    #[must_use]
    pub fn next(self) -> Self {
        if self.month == 12 { Self { year: self.year + 1, month: 1 } } else { Self { month: self.month + 1, ..self } }
    }

    /// When it is over, which is when caps have room again.
    pub fn ends(self) -> Millis {
        self.next().begins()
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_at_midnight_utc_and_follow_each_other() {
        let november = Month::parse("2026-11").unwrap();
        assert_eq!((november.number(), november.to_string()), (202_611, "2026-11".to_owned()));
        assert_eq!(november.begins(), Millis(1_793_491_200_000));
        assert_eq!(Month::from_number(202_611), Some(november));
        assert_eq!((Month::from_number(202_613), Month::from_number(-1)), (None, None));
        assert_eq!(Month::of(november.begins()), november);
        assert_eq!(Month::of(Millis(november.ends().0 - 1)), november);
        assert_eq!(Month::of(november.ends()), Month::parse("2026-12").unwrap());
        assert_eq!(Month::parse("2026-12").unwrap().next(), Month::parse("2027-01").unwrap());
        let leap = Month::parse("2028-02").unwrap();
        assert_eq!(leap.begins().until(leap.ends()).as_secs(), 29 * 86_400);
    }

    #[test]
    fn what_is_no_month_is_none() {
        for text in ["", "2026", "2026-13", "2026-00", "2026-1", "26-11", "2026/11", "2026-11-", "202611", "+026-11"] {
            assert_eq!(Month::parse(text), None, "{text}");
        }
    }
}
