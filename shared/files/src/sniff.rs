//! What a file really is, by its first bytes: a provider must never make us serve a page.

/// How many bytes are needed to tell.
pub const HEAD: usize = 16;

/// The media type to serve a file as: the one its first bytes show, if that is media, else plain bytes.
///
/// `declared` only chooses between types that look the same, such as `video/mp4` and `audio/mp4`.
pub fn safe_content_type(declared: &str, head: &[u8]) -> &'static str {
    let declared = declared.split(';').next().unwrap_or("").trim();
    match head {
        [_, _, _, _, b'f', b't', b'y', b'p', ..] if declared == "audio/mp4" => "audio/mp4",
        [_, _, _, _, b'f', b't', b'y', b'p', b'q', b't', ..] => "video/quicktime",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "video/mp4",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => "audio/wav",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        [b'g', b'l', b'T', b'F', ..] => "model/gltf-binary",
        [0x1a, 0x45, 0xdf, 0xa3, ..] if declared == "audio/webm" => "audio/webm",
        [0x1a, 0x45, 0xdf, 0xa3, ..] => "video/webm",
        [b'O', b'g', b'g', b'S', ..] => "audio/ogg",
        [b'f', b'L', b'a', b'C', ..] => "audio/flac",
        [b'I', b'D', b'3', ..] | [0xff, 0xfb | 0xf3 | 0xf2, ..] => "audio/mpeg",
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [0xff, 0xd8, 0xff, ..] => "image/jpeg",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_is_told_by_its_first_bytes() {
        for (declared, head, served) in [
            ("video/mp4", &b"\0\0\0\x20ftypisom"[..], "video/mp4"),
            ("audio/mp4", b"\0\0\0\x20ftypM4A ", "audio/mp4"),
            ("audio/wav", b"RIFF\0\0\0\0WAVEfmt ", "audio/wav"),
            ("model/gltf-binary", b"glTF\x02\0\0\0", "model/gltf-binary"),
            ("audio/mpeg", b"ID3\x04", "audio/mpeg"),
            ("text/html", b"glTF\x02\0\0\0", "model/gltf-binary"),
            ("video/mp4", b"<html><script>", "application/octet-stream"),
            ("text/html", b"<!doctype html>", "application/octet-stream"),
            ("image/svg+xml", b"<svg onload=", "application/octet-stream"),
            ("video/mp4", b"", "application/octet-stream"),
        ] {
            assert_eq!(safe_content_type(declared, head), served, "{declared}");
        }
    }
}
