//! Names that cannot leave the store.

use crate::FilesError;

const MAX_KEY: usize = 300;
const MAX_NAME: usize = 100;

/// A checked key: segments of letters, digits, `-`, `_` and `.`, none beginning with a dot, joined by `/`.
#[derive(Clone, Copy, Debug)]
pub struct FileKey<'a>(&'a str);

impl<'a> FileKey<'a> {
    /// Checks `key`.
    ///
    /// # Errors
    /// [`FilesError::BadKey`] for anything that could be absolute, hidden, or lead upwards.
    pub fn parse(key: &'a str) -> Result<Self, FilesError> {
        let fine = key.len() <= MAX_KEY && key.split('/').all(is_segment);
        if fine { Ok(Self(key)) } else { Err(FilesError::BadKey(key.chars().take(60).collect())) }
    }

    /// The key.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

fn is_segment(segment: &str) -> bool {
    !segment.is_empty() && !segment.starts_with('.') && segment.bytes().all(is_plain)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// `name` if it can be one segment of a key, else `fallback`.
pub fn safe_filename<'a>(name: &'a str, fallback: &'a str) -> &'a str {
    if name.len() <= MAX_NAME && is_segment(name) { name } else { fallback }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out_of_the_store() {
        for good in ["jobs/job_1/3/video.mp4", "a", "a-b_c.D9"] {
            assert!(FileKey::parse(good).is_ok(), "{good}");
        }
        let long = "a".repeat(301);
        for bad in ["", "/", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".hidden", "a\\b", "a b", "ä", "a\0", &long]
        {
            assert!(FileKey::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(safe_filename("../../x", "video.mp4"), "video.mp4");
        assert_eq!(safe_filename("clip.mp4", "video.mp4"), "clip.mp4");
    }
}
