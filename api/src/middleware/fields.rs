//! The members of a management request. camelCase and kebab-case names mean the same as snake_case; unknown ones are
//! ignored; money is read digit by digit. Tests at the end.

use std::ops::RangeInclusive;

use aig_domain::job_request::{MAX_TAG, check_tag, snake_case};
use aig_domain::json::RawObject;
use aig_domain::tenant::{Change, MAX_MODEL, MAX_MODELS};
use aig_domain::{Error, Nano};
use axum::body::Body;
use axum::extract::Request;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::body::{BodyLimits, read_json};

/// The highest rate limit, in requests per minute.
const MAX_RPM: u32 = 1_000_000;

/// The members of a JSON object by their snake_case names.
#[derive(Debug)]
pub struct Fields(Vec<(String, Box<RawValue>)>);

impl Fields {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// 400, 408, 413, 415.
    pub async fn read(request: Request<Body>, limits: BodyLimits) -> Result<Self, Error> {
        let (parts, body) = request.into_parts();
        Self::parse(&read_json(&parts.headers, body, limits).await?)
    }

    /// Reads the members.
    ///
    /// # Errors
    /// A 400 when it is no JSON object or names a member twice.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let mut members: Vec<(String, Box<RawValue>)> = Vec::new();
        for (name, value) in RawObject::parse(body)?.iter() {
            let name = snake_case(name);
            if members.iter().any(|(known, _)| *known == name) {
                return Err(Error::invalid(&name, format!("`{name}` is given twice, in two spellings.")));
            }
            members.push((name, value.to_owned()));
        }
        Ok(Self(members))
    }

    /// A text of at most `max` characters, trimmed; an empty one is removed.
    ///
    /// # Errors
    /// A 400 that names the member.
    pub fn text(&self, name: &str, max: usize) -> Result<Change<String>, Error> {
        let wrong = || Error::invalid(name, format!("`{name}` must be a string of at most {max} characters."));
        Ok(match self.value::<String>(name).map_err(|()| wrong())? {
            Change::Set(text) if text.trim().is_empty() => Change::Clear,
            Change::Set(text) if text.trim().chars().count() > max => return Err(wrong()),
            Change::Set(text) => Change::Set(text.trim().to_owned()),
            other => other,
        })
    }

    /// Refuses a blank text where one is given: without it the request would mean something larger.
    ///
    /// # Errors
    /// A 400 that names the member.
    pub fn not_blank(&self, name: &str) -> Result<(), Error> {
        match self.value::<String>(name) {
            Ok(Change::Set(text)) if text.trim().is_empty() => Err(Error::invalid(
                name,
                format!("`{name}` is blank. Leave it out if you mean none. Nothing was done."),
            )),
            _ => Ok(()),
        }
    }

    /// A label of costs.
    ///
    /// # Errors
    /// A 400 that names the member.
    pub fn tag(&self, name: &str) -> Result<Change<String>, Error> {
        let tag = self.text(name, MAX_TAG)?;
        if let Change::Set(tag) = &tag {
            check_tag(tag).map_err(|error| Error { param: Some(name.to_owned()), ..error })?;
        }
        Ok(tag)
    }

    /// A whole number in `range`.
    ///
    /// # Errors
    /// A 400 that names the member and the range.
    pub fn whole(&self, name: &str, range: RangeInclusive<i64>) -> Result<Change<i64>, Error> {
        match self.value::<i64>(name) {
            Ok(Change::Set(number)) if !range.contains(&number) => Err(()),
            other => other,
        }
        .map_err(|()| {
            let (from, to) = (range.start(), range.end());
            Error::invalid(name, format!("`{name}` must be a whole number from {from} to {to}."))
        })
    }

    /// A rate limit, in requests per minute.
    ///
    /// # Errors
    /// A 400 that names the member and the range.
    pub fn rpm(&self, name: &str) -> Result<Change<u32>, Error> {
        Ok(match self.whole(name, 1..=i64::from(MAX_RPM))? {
            Change::Set(rpm) => Change::Set(u32::try_from(rpm).unwrap_or(MAX_RPM)),
            Change::Clear => Change::Clear,
            Change::Keep => Change::Keep,
        })
    }

    /// An amount in cents.
    ///
    /// # Errors
    /// A 400 that names the member.
    pub fn cents(&self, name: &str) -> Result<Change<Nano>, Error> {
        match self.raw(name) {
            None => Ok(Change::Keep),
            Some("null") => Ok(Change::Clear),
            Some(number) => Nano::parse_cents(number).map(Change::Set).ok_or_else(|| {
                let most = i64::MAX / Nano::CENT.0;
                let message = format!("`{name}` must be a number of cents from 0 to {most}, with at most 7 decimals.");
                Error::invalid(name, message)
            }),
        }
    }

    /// A list of ids of models, in which `*` stands for anything.
    ///
    /// # Errors
    /// A 400 that names the member. So is an empty list: it might be meant to allow nothing, or everything.
    pub fn models(&self, name: &str) -> Result<Change<Vec<String>>, Error> {
        let fits = |id: &String| (1..=MAX_MODEL).contains(&id.chars().count());
        match self.value::<Vec<String>>(name) {
            Ok(Change::Set(list)) if list.is_empty() || list.len() > MAX_MODELS || !list.iter().all(fits) => Err(()),
            other => other,
        }
        .map_err(|()| {
            let message = format!(
                "`{name}` must be a list of 1 to {MAX_MODELS} ids of models, in which * stands for anything. Leave it out, \
                 or give null, to allow all models."
            );
            Error::invalid(name, message)
        })
    }

    fn raw(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.get())
    }

    fn value<'a, T: Deserialize<'a>>(&'a self, name: &str) -> Result<Change<T>, ()> {
        match self.raw(name) {
            None => Ok(Change::Keep),
            Some("null") => Ok(Change::Clear),
            Some(text) => serde_json::from_str(text).map(Change::Set).map_err(drop),
        }
    }
}

/// What is said of a member that must be there.
pub fn required<T>(change: Change<T>, name: &str) -> Result<T, Error> {
    change.into_value().ok_or_else(|| Error::invalid(name, format!("`{name}` is required. Nothing was done.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: &str) -> Fields {
        Fields::parse(body.as_bytes()).unwrap()
    }

    #[test]
    fn the_spellings_of_a_name_are_one() {
        for body in [r#"{"spendCapCents":1.5}"#, r#"{"spend-cap-cents":1.5}"#, r#"{"spend_cap_cents":1.5,"x":{}}"#] {
            assert_eq!(fields(body).cents("spend_cap_cents").unwrap(), Change::Set(Nano(15_000_000)), "{body}");
        }
        assert!(Fields::parse(br#"{"spendCapCents":1,"spend_cap_cents":2}"#).is_err());
        assert!(Fields::parse(b"[]").is_err() && Fields::parse(b"").is_err());
    }

    #[test]
    fn missing_null_and_empty_differ() {
        let fields = fields(r#"{"a":null,"b":" x ","c":" "}"#);
        assert_eq!(fields.text("z", 9).unwrap(), Change::Keep);
        assert_eq!(fields.text("a", 9).unwrap(), Change::Clear);
        assert_eq!(fields.text("b", 1).unwrap(), Change::Set("x".into()));
        assert_eq!(fields.text("c", 9).unwrap(), Change::Clear);
        assert_eq!([fields.cents("z").unwrap(), fields.cents("a").unwrap()], [Change::Keep, Change::Clear]);
        assert_eq!(required(fields.text("c", 9).unwrap(), "c").unwrap_err().param.as_deref(), Some("c"));
    }

    #[test]
    fn bad_members_are_named() {
        let read = |body: &str| {
            let fields = fields(&format!("{{\"f\":{body}}}"));
            [
                fields.text("f", 3).map(drop),
                fields.tag("f").map(drop),
                fields.rpm("f").map(drop),
                fields.cents("f").map(drop),
                fields.models("f").map(drop),
            ]
            .map(|read| read.map_err(|error| error.param.unwrap()).is_ok())
        };
        let long = format!("\"{}\"", "é".repeat(65));
        for (body, expected) in [
            ("null", [true; 5]),
            ("{}", [false; 5]),
            ("true", [false; 5]),
            (r#""abc""#, [true, true, false, false, false]),
            (r#""abcd""#, [false, true, false, false, false]),
            (long.as_str(), [false; 5]),
            ("0", [false, false, false, true, false]),
            ("1", [false, false, true, true, false]),
            ("1.5", [false, false, false, true, false]),
            ("1000001", [false, false, false, true, false]),
            ("-1", [false; 5]),
            ("922337203686", [false; 5]),
            ("[]", [false; 5]),
            (r#"[""]"#, [false; 5]),
            ("[1]", [false; 5]),
            (r#"["a/*"]"#, [false, false, false, false, true]),
        ] {
            assert_eq!(read(body), expected, "{body}");
        }
    }
}
