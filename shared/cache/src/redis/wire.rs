//! The bus's messages on the wire: the signal, and which instance it comes from, as JSON. Tests at the end.

use serde::{Deserialize, Serialize};

use crate::bus::Signal;

/// A signal with its sender.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Message {
    /// The instance that sent it.
    pub(super) from: String,
    /// What it says.
    pub(super) signal: Signal,
}

impl Message {
    /// The message as bytes.
    pub(super) fn write(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Reads `bytes`. A newer version may send signals that this one does not know.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_stays() {
        let message = Message { from: "a".into(), signal: Signal::KeyChanged { public_id: "b".into() } };
        let wire = br#"{"from":"a","signal":{"type":"key_changed","public_id":"b"}}"#;
        assert_eq!(message.write().unwrap(), wire);
        assert_eq!(Message::read(wire).unwrap(), message);
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        for wire in [&b""[..], b"\xff", b"{}", br#"{"from":"a","signal":{"type":"new_in_version_9"}}"#] {
            assert!(Message::read(wire).is_err());
        }
    }
}
