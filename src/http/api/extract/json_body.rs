//! Reads JSON request bodies. The errors name the field and contain no Rust terms.

use poem::http::{HeaderMap, header};
use poem::{Request, RequestBody, Result};
use serde::de::DeserializeOwned;

use crate::http::api::problems::{Problem, ProblemCode};

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Reads an optional JSON object. Returns `None` for `null`, and for an empty or blank body, whatever its media type.
pub(super) async fn read_json<T: DeserializeOwned>(request: &Request, body: &mut RequestBody) -> Result<Option<T>> {
    match read_content(request, body).await? {
        Some(body) => Ok(parse(&body)?),
        None => Ok(None),
    }
}

/// Reads a body for [`parse`]. Returns `None` for an empty or blank body, whatever its media type.
pub(super) async fn read_content(request: &Request, body: &mut RequestBody) -> Result<Option<Vec<u8>>> {
    let body = read(body).await?;
    if without_byte_order_mark(&body).trim_ascii().is_empty() {
        return Ok(None);
    }
    check_headers(request)?;
    Ok(Some(body))
}

pub(super) async fn read(body: &mut RequestBody) -> Result<Vec<u8>> {
    let unreadable = |_| Problem::new(ProblemCode::InvalidRequest, "the request body could not be read");
    Ok(body.take()?.into_bytes().await.map_err(unreadable)?.into())
}

/// Returns `None` for `null`. An error names the field if it is known.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<Option<T>, Problem> {
    let body = without_byte_order_mark(body);
    let invalid = |detail: String| Problem::new(ProblemCode::InvalidRequest, detail);
    // JSON begins with an ASCII character. In UTF-16 and UTF-32, this character contains a NUL byte. The bytes 0xFE and 0xFF
    // belong to byte order marks.
    if matches!(body, [0, ..] | [_, 0, ..] | [0xFE, 0xFF, ..] | [0xFF, 0xFE, ..]) {
        return Err(invalid("the body looks like UTF-16 or UTF-32; send it in UTF-8".to_owned()));
    }
    // Arrays are rejected, because serde would accept an array and read the object's fields by position.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(invalid("the body must be a JSON object, not an array".to_owned()));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize::<_, Option<T>>(&mut json).map_err(|error| {
        let (field, error) = (error.path().to_string(), error.inner());
        // Replaces serde's terms "sequence" and "map" by the JSON terms.
        let reason = error.to_string().replacen("type: sequence", "type: array", 1);
        let reason = reason.replacen("type: map", "type: object", 1);
        // serde reports a repeated field as an error of the object.
        if let Some((repeated, _)) = reason.strip_prefix("duplicate field `").and_then(|rest| rest.split_once('`')) {
            return Problem::field(repeated, "must not be repeated");
        }
        match (matches!(field.as_str(), "" | "." | "?"), error.is_data()) {
            (true, true) => invalid(format!("the body is not valid: {reason}")),
            (true, false) => invalid(format!("the body is not valid JSON: {reason}")),
            (false, true) => Problem::field(&field, reason.split(" at line ").next().unwrap_or_default()),
            (false, false) => Problem::field(&field, &format!("is not valid JSON: {reason}")),
        }
    })?;
    json.end().map_err(|error| invalid(format!("the body is not valid JSON: {error}")))?;
    Ok(parsed)
}

fn without_byte_order_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body)
}

/// A body without `Content-Type` is read as JSON. JSON is always in UTF-8 (RFC 8259, section 8.1), so a `charset` is
/// ignored.
fn check_headers(request: &Request) -> Result<(), Problem> {
    let unsupported = |detail| Problem::new(ProblemCode::UnsupportedMediaType, detail);
    if is_encoded(request.headers()) {
        let mut problem = unsupported("send the body uncompressed, without Content-Encoding");
        problem.extensions.accept_encoding = Some("identity");
        return Err(problem);
    }
    let Some(media_type) = request.headers().get(header::CONTENT_TYPE) else { return Ok(()) };
    let media_type = media_type.to_str().unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    Err(unsupported("send the body as application/json"))
}

/// Whether `Content-Encoding` lists a coding other than `identity`.
fn is_encoded(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONTENT_ENCODING).iter();
    let mut codings = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    codings.any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
}
