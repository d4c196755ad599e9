//! Documents that never change while the process runs: compressed once, with an `ETag` for each encoding.

use std::io::{self, Write};
use std::iter;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream;
use hyper::body::Bytes;
use poem::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use poem::{Body, Request, Response};
use uuid::Uuid;

pub(crate) struct StaticDocument {
    headers: HeaderMap,
    plain: Representation,
    /// `None` if compression does not make the document smaller.
    gzip: Option<Representation>,
}

struct Representation {
    bytes: Bytes,
    etag: Option<HeaderValue>,
}

impl StaticDocument {
    /// `headers` must contain the `Content-Type`.
    pub(crate) fn new(headers: &[(HeaderName, &'static str)], content: impl Into<Bytes>) -> Self {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        let plain = Representation::new(content.into());
        let compressed = gzip(&plain.bytes).filter(|compressed| compressed.len() < plain.bytes.len());
        Self { headers, plain, gzip: compressed.map(|compressed| Representation::new(compressed.into())) }
    }

    /// Returns the compressed document if the client accepts gzip. Returns 304 without a body if the client already has this
    /// representation.
    pub(crate) fn respond(&self, request: &Request) -> Response {
        let gzip = self.gzip.as_ref().filter(|_| accepts_gzip(request.headers()));
        let Representation { bytes, etag } = gzip.unwrap_or(&self.plain);
        let mut response = Response::default();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if let Some(etag) = etag {
            headers.insert(header::ETAG, etag.clone());
            if matches(request.headers(), etag) {
                response.set_status(StatusCode::NOT_MODIFIED);
                return response;
            }
        }
        headers.extend(self.headers.clone());
        if gzip.is_some() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        response.set_body(in_frames(bytes.clone()));
        response
    }
}

impl Representation {
    fn new(bytes: Bytes) -> Self {
        let hash = Uuid::new_v5(&Uuid::NAMESPACE_URL, &bytes);
        Self { bytes, etag: HeaderValue::try_from(format!("\"{}\"", hash.simple())).ok() }
    }
}

/// Never returns `None`, because a vector accepts every write.
fn gzip(content: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).and_then(|()| encoder.finish()).ok()
}

/// Whether `If-None-Match` lists the entity tag (RFC 9110, section 13.1.2). `etag` contains no comma, so a list can be
/// split at each comma, even inside other tags. Not parsed with the crate `headers`, because its version 0.4 panics on a
/// tag that contains a space.
fn matches(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let listed =
        headers.get_all(header::IF_NONE_MATCH).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    listed.map(<[u8]>::trim_ascii).any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag.as_bytes())
}

/// Whether `Accept-Encoding` allows gzip (RFC 9110, section 12.5.3). `gzip` takes precedence over `*`.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let (mut gzip, mut any) = (None, None);
    for item in values.flat_map(|value| value.split(',')) {
        let (coding, weight) = item.split_once(';').unwrap_or((item, ""));
        let accepted = is_positive(weight);
        match coding.trim() {
            "*" => any = Some(accepted),
            coding if ["gzip", "x-gzip"].iter().any(|name| coding.eq_ignore_ascii_case(name)) => {
                gzip = Some(accepted)
            }
            _ => {}
        }
    }
    gzip.or(any).unwrap_or(false)
}

/// Whether a weight such as `q=0.5` is more than 0. An absent weight is 1.
fn is_positive(weight: &str) -> bool {
    let Some((name, value)) = weight.split_once('=') else { return weight.trim().is_empty() };
    name.trim().eq_ignore_ascii_case("q") && value.trim().parse::<f32>().is_ok_and(|weight| weight > 0.0)
}

/// Maximum size of a body frame. The server copies each frame into the connection's write buffer. If Swagger UI were sent
/// as one frame, the server would hold a copy of more than a megabyte for each slow client.
const FRAME_BYTES: usize = 16 * 1024;

fn in_frames(mut bytes: Bytes) -> Body {
    let next = move || (!bytes.is_empty()).then(|| Ok::<_, io::Error>(bytes.split_to(FRAME_BYTES.min(bytes.len()))));
    Body::from_bytes_stream(stream::iter(iter::from_fn(next)))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use http_body_util::combinators::BoxBody;

    use super::*;

    #[test]
    fn gzip_is_used_only_if_the_client_accepts_it() {
        for (accepted, values) in [
            (false, &[][..]),
            (false, &[""]),
            (false, &["identity"]),
            (false, &["br, deflate"]),
            (false, &["gzip;q=0"]),
            (false, &["gzip;q=0.000, *"]),
            (false, &["*;q=0"]),
            (false, &["gzip;q=x"]),
            (false, &["gzip;x=1"]),
            (false, &["gzipped"]),
            (true, &["gzip"]),
            (true, &["GZIP"]),
            (true, &["x-gzip"]),
            (true, &["*"]),
            (true, &["gzip, deflate, br, zstd"]),
            (true, &["br;q=1.0, gzip ; q=0.001"]),
            (true, &["*;q=0, gzip"]),
            (true, &["br", "gzip"]),
        ] {
            let headers = values.iter().map(|value| (header::ACCEPT_ENCODING, HeaderValue::from_static(value)));
            let mut map = HeaderMap::new();
            headers.for_each(|(name, value)| _ = map.append(name, value));
            assert_eq!(accepts_gzip(&map), accepted, "{values:?}");
        }
    }

    #[test]
    fn a_listed_entity_tag_matches() {
        let etag = HeaderValue::from_static("\"abc\"");
        for (matching, values) in [
            (false, &[][..]),
            (false, &[&b""[..]]),
            (false, &[b"abc"]),
            (false, &[b"\"a b\""]),
            (false, &[b"W/\"a, b\", \", \""]),
            (false, &[b"\"\xff\t\""]),
            (false, &[b"w/\"abc\""]),
            (true, &[b"*"]),
            (true, &[b"\"abc\""]),
            (true, &[b"W/\"abc\""]),
            (true, &[b"\"a b\" ,\t\"abc\""]),
            (true, &[b"\"x\"", b"\"abc\""]),
        ] {
            let mut headers = HeaderMap::new();
            values
                .iter()
                .for_each(|value| _ = headers.append(header::IF_NONE_MATCH, HeaderValue::from_bytes(value).unwrap()));
            assert_eq!(matches(&headers, &etag), matching, "{values:?}");
        }
    }

    #[test]
    fn small_documents_are_not_compressed() {
        let document = StaticDocument::new(&[(header::CONTENT_TYPE, "text/plain")], "ok");
        let request = Request::builder().header(header::ACCEPT_ENCODING, "gzip").finish();
        let response = document.respond(&request);
        assert_eq!(response.headers().get(header::CONTENT_ENCODING), None);
        assert_eq!(response.headers()[header::VARY], "accept-encoding");
    }

    #[tokio::test]
    async fn large_documents_are_sent_in_small_frames() {
        let mut body = BoxBody::from(in_frames(Bytes::from(vec![b'x'; 40_000])));
        let mut frames = Vec::new();
        while let Some(frame) = body.frame().await {
            frames.push(frame.unwrap().into_data().unwrap().len());
        }
        assert_eq!(frames, [16_384, 16_384, 7_232]);
    }
}
