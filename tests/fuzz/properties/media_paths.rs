//! Checks that a media path belongs to the same content, however an origin decodes and normalizes it.

use percent_encoding::percent_decode;
use stream_manager::http::grants::content_path::ContentPath;

/// The input is a path. It is checked as it is, and below the content `mine`.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let pattern = ContentPath::parse("/media/{content}/").unwrap();
    for path in [text.to_owned(), format!("/media/mine/{text}"), format!("/media/{text}/1.ts")] {
        let Some(content) = pattern.content(&path) else { continue };
        let mut decoded = path.clone().into_bytes();
        for _ in 0..3 {
            let segments = normalized(&decoded);
            // The first round still contains the escapes of the content.
            let found = segments.get(1).map(|segment| percent_decode(segment).collect::<Vec<u8>>());
            assert_eq!(segments[0], b"media", "{path:?}");
            assert_eq!(found.as_deref(), Some(content.as_bytes()), "{path:?}");
            decoded = percent_decode(&decoded).collect();
        }
    }
}

/// The segments of a path as the most lenient origin sees them: backslashes separate, empty segments and path parameters of dot segments
/// do not count, and dot segments are resolved.
fn normalized(path: &[u8]) -> Vec<Vec<u8>> {
    let mut segments: Vec<Vec<u8>> = Vec::new();
    for segment in path.split(|byte| matches!(byte, b'/' | b'\\')) {
        match segment.split(|byte| *byte == b';').next().unwrap_or_default() {
            b"" | b"." => {}
            b".." => _ = segments.pop(),
            _ => segments.push(segment.to_vec()),
        }
    }
    segments
}
