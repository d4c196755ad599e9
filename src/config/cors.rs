//! Checks the section `cors`, and converts its items to the form in which browsers send them.

use std::collections::HashSet;

use hyper::http::HeaderName;
use url::Url;

use super::error::ConfigError;
use super::sections::{Cors, LIST_SYNTAX};

const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 128;

/// Converts each origin and header name to the form that browsers send, and removes duplicates.
pub(super) fn normalize(cors: &mut Cors) -> Result<(), ConfigError> {
    normalize_items("cors.allowed_origins", &mut cors.allowed_origins, normalize_origin)?;
    normalize_items("cors.allowed_headers", &mut cors.allowed_headers, normalize_header)?;
    if cors.allowed_headers.len() > MAX_HEADERS {
        let count = format!("{} items", cors.allowed_headers.len());
        return Err(ConfigError::invalid("cors.allowed_headers", count, format!("must have at most {MAX_HEADERS}")));
    }
    Ok(())
}

fn normalize_items(
    key: &str,
    items: &mut Vec<String>,
    normalize: fn(&str) -> Result<String, String>,
) -> Result<(), ConfigError> {
    let mut seen = HashSet::new();
    let mut normalized = Vec::new();
    for item in items.iter() {
        let refused = |problem| ConfigError::invalid(key, format!("{item:?}"), problem);
        if item.contains(|c: char| c.is_whitespace() || c.is_control() || c == ';') {
            return Err(refused(format!("must be one item without white space; {LIST_SYNTAX}")));
        }
        let item = normalize(item).map_err(refused)?;
        if seen.insert(item.clone()) {
            normalized.push(item);
        }
    }
    *items = normalized;
    Ok(())
}

/// Serializes an origin as browsers do (<https://html.spec.whatwg.org/#ascii-serialisation-of-an-origin>). Web views use other
/// schemes, such as `capacitor://localhost`. A page from a file has the origin `file://` or `null`.
fn normalize_origin(origin: &str) -> Result<String, String> {
    const EXAMPLES: &str = "such as https://tv.example.com or capacitor://localhost";
    if origin == "null" {
        return Ok(origin.to_owned());
    }
    if origin.contains('*') {
        return Err("must not contain a pattern; list each origin".to_owned());
    }
    let Some((scheme, rest)) = origin.split_once("://") else {
        return Err(format!("must be an origin with a scheme, {EXAMPLES}"));
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@', '\\']) {
        return Err(format!("must have only a scheme, a host and a port, {EXAMPLES}"));
    }
    let Ok(url) = Url::parse(&format!("{scheme}://{authority}")) else {
        return Err(format!("must have a valid scheme, host and port, {EXAMPLES}"));
    };
    match (url.scheme(), url.host_str()) {
        ("file", Some(_)) => return Err("must be file:// without a host".to_owned()),
        ("about" | "blob" | "data" | "javascript", _) => {
            return Err("must be null for pages of this scheme".to_owned());
        }
        ("ftp" | "ws" | "wss", _) => return Err("must have the scheme of a web page".to_owned()),
        _ => {}
    }
    // For http and https, `Url` has removed a default port, and has converted the host to lower case and Punycode. For other
    // schemes, browsers keep the case of the host.
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Ok(format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default()))
}

fn normalize_header(name: &str) -> Result<String, String> {
    if name == "*" {
        return Ok(name.to_owned());
    }
    if name.contains('*') {
        return Err("must not contain a pattern; list each header, or only \"*\" to allow all headers".to_owned());
    }
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) if name.as_str().len() <= MAX_HEADER_BYTES => Ok(name.as_str().to_owned()),
        Ok(_) => Err(format!("must have at most {MAX_HEADER_BYTES} bytes")),
        Err(_) => Err("must be the name of a header, such as sentry-trace".to_owned()),
    }
}
