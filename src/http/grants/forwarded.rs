//! Reads the player's request that a gateway forwards: its URI and its grant.

use std::borrow::Cow;

use poem::http::header::{self, HeaderMap};
use url::form_urlencoded;

/// The headers in which gateways forward the URI: nginx by convention, Traefik and Caddy by default.
const URI_HEADERS: [&str; 2] = ["x-original-uri", "x-forwarded-uri"];

/// The forwarded request of a player.
pub(crate) struct Forwarded<'a> {
    /// `None` if the gateway sends no URI.
    pub(crate) uri: Option<&'a str>,
    /// The grant, not yet verified.
    pub(crate) grant: Option<Cow<'a, str>>,
}

/// The gateway's URI is unknown: a header is repeated, both are present and differ, or one is not UTF-8 or contains a space, which
/// separates repeated headers that a proxy has joined. A gateway replaces only its own header, so the other one can come from the player.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AmbiguousUri;

impl<'a> Forwarded<'a> {
    /// Takes the grant from the query parameter of the URI, else from the cookie, else from `Authorization`.
    pub(crate) fn parse(headers: &'a HeaderMap, cookie: &str, query_parameter: &str) -> Result<Self, AmbiguousUri> {
        let uri = uri(headers)?;
        let in_query = uri.and_then(|uri| query_value(uri, query_parameter));
        let grant = in_query.or_else(|| cookie_value(headers, cookie).or_else(|| bearer(headers)).map(Cow::Borrowed));
        Ok(Self { uri, grant })
    }

    /// The path of the URI, still encoded.
    pub(crate) fn path(&self) -> Option<&'a str> {
        self.uri.map(|uri| uri.split_once('?').map_or(uri, |(path, _)| path))
    }
}

fn uri(headers: &HeaderMap) -> Result<Option<&str>, AmbiguousUri> {
    let mut uri = None;
    for value in URI_HEADERS.iter().flat_map(|name| headers.get_all(*name)) {
        let value = std::str::from_utf8(value.as_bytes()).map_err(|_| AmbiguousUri)?;
        if value.contains([' ', '\t']) || uri.is_some_and(|other| other != value) {
            return Err(AmbiguousUri);
        }
        uri = Some(value);
    }
    Ok(uri)
}

/// The first value that is not empty.
fn query_value<'a>(uri: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let (_, query) = uri.split_once('?')?;
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find_map(|(key, value)| (key == name && !value.is_empty()).then_some(value))
}

/// The first value that is not empty, without quotes (RFC 6265, section 4.1.1).
fn cookie_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let headers = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = headers.flat_map(|value| value.split(';')).filter_map(|pair| pair.split_once('='));
    cookies.find_map(|(key, value)| {
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        (key.trim() == name && !value.is_empty()).then_some(value)
    })
}

/// The token of the only `Authorization` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

#[cfg(test)]
mod tests {
    use poem::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(values: &[(&str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn grant(values: &[(&str, &[u8])]) -> Option<String> {
        let headers = headers(values);
        Forwarded::parse(&headers, "grant", "g").unwrap().grant.map(Cow::into_owned)
    }

    #[test]
    fn query_precedes_cookie_and_cookie_precedes_authorization() {
        let query: (&str, &[u8]) = ("x-original-uri", b"/a?x=1&g=query");
        let cookie: (&str, &[u8]) = ("cookie", b"a=b; grant=cookie");
        let authorization: (&str, &[u8]) = ("authorization", b"Bearer header");
        assert_eq!(grant(&[authorization, cookie, query]).as_deref(), Some("query"));
        assert_eq!(grant(&[authorization, cookie]).as_deref(), Some("cookie"));
        assert_eq!(grant(&[authorization]).as_deref(), Some("header"));
        assert_eq!(grant(&[("x-forwarded-uri", b"/a?g=a%2Eb"), cookie]).as_deref(), Some("a.b"));
        assert_eq!(grant(&[("x-original-uri", b"/a?g="), cookie]).as_deref(), Some("cookie"), "empty");
    }

    #[test]
    fn cookies_are_found_among_others() {
        for (cookies, found) in [
            (&[&b"grant=a"[..]][..], Some("a")),
            (&[b"x=1; grant=\"a\"; y=2"], Some("a")),
            (&[b"x=1", b"y=2;grant = a "], Some("a")),
            (&[b"grant=a; grant=b"], Some("a")),
            (&[b"grant=a=b"], Some("a=b")),
            (&[b"xgrant=a; grant"], None),
            (&[b"Grant=a"], None),
            (&[b"grant=; x=1"], None),
            (&[b"\xff", b"grant=a"], Some("a")),
            (&[b""], None),
        ] {
            let values: Vec<(&str, &[u8])> = cookies.iter().map(|value| ("cookie", *value)).collect();
            assert_eq!(grant(&values).as_deref(), found, "{cookies:?}");
        }
    }

    #[test]
    fn other_authorization_is_ignored() {
        for values in [&[&b"Basic YTpi"[..]][..], &[b"Bearer"], &[b"Bearer a", b"Bearer b"], &[b"\xff"]] {
            let values: Vec<(&str, &[u8])> = values.iter().map(|value| ("authorization", *value)).collect();
            assert_eq!(grant(&values), None, "{values:?}");
        }
        assert_eq!(grant(&[("authorization", b"bEARER  a ")]).as_deref(), Some("a"));
    }

    #[test]
    fn a_uri_that_the_player_could_have_sent_is_ambiguous() {
        let parse = |values: &[(&str, &[u8])]| {
            let headers = headers(values);
            Forwarded::parse(&headers, "grant", "g").map(|forwarded| forwarded.path().map(str::to_owned))
        };
        assert_eq!(parse(&[("x-original-uri", b"/a?b")]), Ok(Some("/a".to_owned())));
        assert_eq!(parse(&[("x-original-uri", b"/a"), ("x-forwarded-uri", b"/a")]), Ok(Some("/a".to_owned())));
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&[("x-original-uri", b"/a"), ("x-forwarded-uri", b"/b")]), Err(AmbiguousUri));
        assert_eq!(parse(&[("x-original-uri", b"/a"), ("x-original-uri", b"/b")]), Err(AmbiguousUri));
        for value in [&b"/\xff"[..], b"/a, /b", b"/a,\t/b"] {
            assert_eq!(parse(&[("x-original-uri", value)]), Err(AmbiguousUri), "{value:?}");
        }
    }
}
