//! JSON objects whose values stay as they were sent.
//!
//! The gateway changes two or three members of a request and must not touch the rest: a number keeps
//! its digits, a string its escapes, the members their order.

use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

use crate::Error;

/// The deepest nesting of arrays and objects that a request may have.
pub const MAX_DEPTH: usize = 64;
/// The most members that the top object of a request may have.
pub const MAX_MEMBERS: usize = 1000;

/// A JSON object with its members in the order they were sent, each value verbatim.
#[derive(Clone, Debug, Default)]
pub struct RawObject(Vec<(String, Box<RawValue>)>);

impl RawObject {
    /// Reads an object from a request body.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidRequest`] when the body is not UTF-8, not one JSON object, nested deeper than
    /// [`MAX_DEPTH`], has more than [`MAX_MEMBERS`] members, names a member twice, or holds a NUL.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let invalid = |message: String| Error::new(crate::ErrorKind::InvalidRequest, message);
        if body.is_empty() {
            return Err(invalid("The request body is empty. Send a JSON object.".into()));
        }
        check_depth(body).map_err(|message| invalid(message.into()))?;
        serde_json::from_slice(body)
            .map_err(|error| invalid(format!("The request body is not a valid JSON object: {error}.")))
    }

    /// The verbatim value of `name`.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// The value of `name` read as `T`; `None` when it is missing or `null`.
    ///
    /// # Errors
    /// A 400 that names the member, when it is there and not a `T`.
    pub fn read<'a, T: Deserialize<'a>>(&'a self, name: &str, expected: &str) -> Result<Option<T>, Error> {
        let Some(raw) = self.get(name).filter(|raw| raw.get() != "null") else { return Ok(None) };
        serde_json::from_str(raw.get())
            .map(Some)
            .map_err(|_| Error::invalid(name, format!("`{name}` must be {expected}.")))
    }

    /// Sets `name` to `value`, in its old place or at the end.
    pub fn set(&mut self, name: &str, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(key, _)| key == name) {
            Some((_, slot)) => *slot = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Removes `name`.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| key != name);
    }

    /// The members in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0.iter().map(|(key, value)| (key.as_str(), &**value))
    }
}

impl Serialize for RawObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for RawObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = RawObject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawObject, A::Error> {
                let mut members: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if members.len() >= MAX_MEMBERS {
                        return Err(de::Error::custom("more than 1000 members"));
                    }
                    if members.iter().any(|(seen, _)| *seen == key) {
                        return Err(de::Error::custom(format_args!("`{key}` is given twice")));
                    }
                    members.push((key, value));
                }
                Ok(RawObject(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Refuses nesting beyond [`MAX_DEPTH`] and escaped NULs before anything is parsed, in one pass.
fn check_depth(body: &[u8]) -> Result<(), &'static str> {
    let (mut depth, mut in_string, mut i) = (0_usize, false, 0_usize);
    while let Some(&byte) = body.get(i) {
        match byte {
            b'\\' if in_string => {
                if body.get(i + 1..i + 6) == Some(b"u0000") {
                    return Err("The request body holds a NUL character (\\u0000), which is not allowed.");
                }
                i += 1;
            }
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err("The request body is nested deeper than 64 levels.");
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        i += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_order_and_digits_survive() {
        let body = br#"{"b":1.0e2,"a":"\u00e9 \/","model":"x"}"#;
        let mut object = RawObject::parse(body).unwrap();
        object.set("model", RawValue::from_string("\"y\"".into()).unwrap());
        assert_eq!(serde_json::to_string(&object).unwrap(), r#"{"b":1.0e2,"a":"\u00e9 \/","model":"y"}"#);
    }

    #[test]
    fn what_is_refused() {
        let deep = |n| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(RawObject::parse(deep(63).as_bytes()).is_ok());
        for body in
            ["", "[]", "{\"a\":1}x", "{\"a\":1,\"\\u0061\":2}", "{\"a\":\"\\u0000\"}", &deep(64), &deep(100_000)]
        {
            assert!(RawObject::parse(body.as_bytes()).is_err(), "{}", &body[..body.len().min(40)]);
        }
        assert!(RawObject::parse(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn brackets_inside_strings_do_not_count() {
        let body = format!("{{\"a\":\"{}\\\"{}\"}}", "[".repeat(200), "{".repeat(200));
        assert!(RawObject::parse(body.as_bytes()).is_ok());
    }
}
