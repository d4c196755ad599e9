//! Finds the content that a media path belongs to, and refuses paths that two servers could read differently.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A pattern of media paths, such as `/media/{content}/`. One whole segment is `{content}`; a path may continue after the pattern.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentPath {
    /// Up to `{content}`.
    prefix: String,
    /// After `{content}`: empty, or beginning with a slash.
    suffix: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ContentPathError {
    #[error("must contain {{content}} exactly once, as a whole path segment, such as \"/media/{{content}}/\"")]
    Placeholder,
    #[error(
        "must begin with a slash, and have no empty segments, dot segments, escapes, spaces, '?', '#', ';' or backslashes"
    )]
    Path,
}

const PLACEHOLDER: &str = "{content}";

impl ContentPath {
    /// # Errors
    /// The pattern is no path, or does not have exactly one segment `{content}`.
    pub fn parse(pattern: &str) -> Result<Self, ContentPathError> {
        let (prefix, suffix) = pattern.split_once(PLACEHOLDER).ok_or(ContentPathError::Placeholder)?;
        let is_segment = prefix.ends_with('/') && (suffix.is_empty() || suffix.starts_with('/'));
        if !is_segment || [prefix, suffix].iter().any(|part| part.contains(['{', '}'])) {
            return Err(ContentPathError::Placeholder);
        }
        let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '%' | ';');
        if !is_unambiguous(pattern) || !pattern.chars().all(is_plain) {
            return Err(ContentPathError::Path);
        }
        Ok(Self { prefix: prefix.to_owned(), suffix: suffix.to_owned() })
    }

    /// The decoded content of a path. `None` if the path does not match the pattern, or is ambiguous.
    pub fn content<'a>(&self, path: &'a str) -> Option<Cow<'a, str>> {
        let rest = path.strip_prefix(&self.prefix).filter(|_| is_unambiguous(path))?;
        let (content, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let matches = rest.starts_with(&self.suffix);
        percent_decode_str(content).decode_utf8().ok().filter(|_| matches)
    }
}

impl TryFrom<String> for ContentPath {
    type Error = ContentPathError;

    fn try_from(pattern: String) -> Result<Self, ContentPathError> {
        Self::parse(&pattern)
    }
}

impl From<ContentPath> for String {
    fn from(ContentPath { prefix, suffix }: ContentPath) -> Self {
        format!("{prefix}{PLACEHOLDER}{suffix}")
    }
}

/// Whether every server finds the same segments in a path. False for dot segments, also encoded or with a path parameter, empty
/// segments, encoded slashes, backslashes and percent signs, control characters, and invalid escapes. Proxies and origins decode
/// and normalize these in different ways, so that the checked path could differ from the path of the media.
pub(crate) fn is_unambiguous(path: &str) -> bool {
    let Some(path) = path.strip_prefix('/') else { return false };
    let segments = path.strip_suffix('/').unwrap_or(path).split('/');
    path.is_empty() || segments.into_iter().all(is_unambiguous_segment)
}

fn is_unambiguous_segment(segment: &str) -> bool {
    let Ok(decoded) = percent_decode_str(segment).decode_utf8() else { return false };
    let name = decoded.split(';').next().unwrap_or_default();
    // A percent sign that is left is from an invalid escape, or is itself encoded.
    let is_special = |c: char| c.is_control() || matches!(c, '%' | '\\' | '/' | '?' | '#');
    !matches!(name, "" | "." | "..") && !decoded.contains(is_special)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_a_whole_decoded_segment() {
        let path = ContentPath::parse("/media/{content}/").unwrap();
        for (requested, content) in [
            ("/media/movie-7/master.m3u8", Some("movie-7")),
            ("/media/movie-7/", Some("movie-7")),
            ("/media/a%20b/x/y.ts", Some("a b")),
            ("/media/%C3%A9/x", Some("é")),
            ("/media/é/x", Some("é")),
            ("/media/movie-7;v=1/x", Some("movie-7;v=1")),
            ("/media/movie-7", None),
            ("/media/", None),
            ("/media//x", None),
            ("/other/movie-7/x", None),
            ("/MEDIA/movie-7/x", None),
            ("/m%65dia/movie-7/x", None),
            ("media/movie-7/x", None),
            ("http://host/media/movie-7/x", None),
            ("", None),
        ] {
            assert_eq!(path.content(requested).as_deref(), content, "{requested}");
        }
    }

    #[test]
    fn the_pattern_continues_after_the_content() {
        let path = ContentPath::parse("/{content}/hls/").unwrap();
        assert_eq!(path.content("/a/hls/1.ts").as_deref(), Some("a"));
        assert_eq!(path.content("/a/dash/1.ts"), None);
        let file = ContentPath::parse("/v/{content}").unwrap();
        assert_eq!(file.content("/v/a").as_deref(), Some("a"));
        assert_eq!(file.content("/v/a/b").as_deref(), Some("a"));
    }

    #[test]
    fn ambiguous_paths_have_no_content() {
        let path = ContentPath::parse("/media/{content}/").unwrap();
        for requested in [
            "/media/mine/../other/1.ts",
            "/media/mine/%2e%2e/other/1.ts",
            "/media/mine/.%2E/other/1.ts",
            "/media/mine/..;x/other/1.ts",
            "/media/mine/./1.ts",
            "/media/mine/..",
            "/media/mine//1.ts",
            "//media/mine/1.ts",
            "/media/mine/..%2fother/1.ts",
            "/media/mine/..%5Cother/1.ts",
            "/media/mine/..\\other/1.ts",
            "/media/mine/%252e%252e/other/1.ts",
            "/media/mine/%00/1.ts",
            "/media/mine/%0a/1.ts",
            "/media/mine/%zz/1.ts",
            "/media/mine/%2",
            "/media/mine/%ff/1.ts",
            "/media/mine/%3fx/1.ts",
            "/media/mine/#/1.ts",
        ] {
            assert_eq!(path.content(requested), None, "{requested}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for pattern in ["", "/", "/media/", "/{content}/{content}/", "/a{content}/", "/{content}b/", "{content}/"] {
            assert_eq!(ContentPath::parse(pattern), Err(ContentPathError::Placeholder), "{pattern}");
        }
        for pattern in [
            "//{content}/",
            "/a/../{content}/",
            "/a%20b/{content}/",
            "/é/{content}/",
            "/a b/{content}",
            "m/{content}",
        ] {
            assert_eq!(ContentPath::parse(pattern), Err(ContentPathError::Path), "{pattern}");
        }
    }
}
