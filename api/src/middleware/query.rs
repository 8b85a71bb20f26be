//! The query of a request: each parameter at most once. Unknown parameters are ignored. Tests at the end.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use aig_domain::Error;
use axum::extract::FromRequestParts;
use http::request::Parts;

const DEFAULT_LIMIT: u32 = 20;
const MAX_LIMIT: u32 = 100;

/// The parameters of a query, in order.
#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what stands after the `?`.
    pub fn parse(text: &str) -> Self {
        Self(url::form_urlencoded::parse(text.as_bytes()).map(|(k, v)| (k.into_owned(), v.into_owned())).collect())
    }

    /// The value of `name`.
    ///
    /// # Errors
    /// A 400 when it is given twice or holds a NUL.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Error> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Error::invalid(name, format!("`{name}` is given more than once."))),
            (Some(value), None) if value.contains('\0') => {
                Err(Error::invalid(name, format!("`{name}` holds a NUL character.")))
            }
            (value, None) => Ok(value),
        }
    }

    /// The value of `name` as a whole number in `range`.
    ///
    /// # Errors
    /// A 400 that names the parameter and the range.
    pub fn number<T>(&self, name: &str, range: RangeInclusive<T>) -> Result<Option<T>, Error>
    where
        T: FromStr + PartialOrd + Display,
    {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse().ok().filter(|number| digits && range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(Error::invalid(
                name,
                format!("`{name}` must be a whole number from {} to {}.", range.start(), range.end()),
            )),
        }
    }
}

impl Query {
    /// Which page of a list is asked for: the most rows, and the id of the last one that is known.
    ///
    /// # Errors
    /// A 400 that names the parameter.
    pub fn page(&self) -> Result<(u32, Option<&str>), Error> {
        Ok((self.number("limit", 1..=MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT), self.text("after")?))
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(&parts.uri.query().map_or(Cow::Borrowed(""), Cow::Borrowed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_parameter_once_and_decoded() {
        let query = Query::parse("a=1&b=x%20y+z&c=&d=1&d=2&e=%00");
        assert_eq!(query.text("b").unwrap(), Some("x y z"));
        assert_eq!(query.text("c").unwrap(), Some(""));
        assert_eq!(query.text("nothing").unwrap(), None);
        assert_eq!(query.text("d").unwrap_err().param.as_deref(), Some("d"));
        assert_eq!(query.text("e").unwrap_err().param.as_deref(), Some("e"));
    }

    #[test]
    fn pages() {
        assert_eq!(Query::parse("").page().unwrap(), (20, None));
        assert_eq!(Query::parse("limit=100&after=x").page().unwrap(), (100, Some("x")));
        assert_eq!(Query::parse("limit=101").page().unwrap_err().param.as_deref(), Some("limit"));
    }

    #[test]
    fn numbers_are_whole_and_in_range() {
        let number = |text: &str| Query::parse(&format!("n={text}")).number("n", 1..=100_u32);
        assert_eq!(number("1").unwrap(), Some(1));
        assert_eq!(number("100").unwrap(), Some(100));
        for bad in ["", "0", "101", "-1", "%2B5", "1.5", "abc", "1e2", "99999999999999999999"] {
            assert_eq!(number(bad).unwrap_err().param.as_deref(), Some("n"), "{bad}");
        }
    }
}
