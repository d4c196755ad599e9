//! Checks the `Host` header (RFC 9112, section 3.2). The service does not use the header, but a proxy may use it to select
//! this service.

use std::net::Ipv6Addr;

use poem::http::request::Parts;
use poem::http::{HeaderValue, Version, header};

use crate::http::api::problems::Problem;

/// HTTP/1.1 requires exactly one valid `Host` header, even if the request target is an absolute URL. HTTP/1.0 allows a
/// request without it.
pub(crate) fn check(request: &Parts) -> Result<(), Problem> {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let reason = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => "must be sent once",
        (Some(host), None) if !is_valid(host) => {
            "must be a host name or an address, such as 192.0.2.7 or [2001:db8::7], with an optional port"
        }
        (None, _) if request.version == Version::HTTP_11 => "must be sent",
        _ => return Ok(()),
    };
    Err(Problem::field("Host", reason))
}

/// Whether the value is `uri-host [":" port]` (RFC 9110, section 7.2). The host may be empty: clients send an empty header
/// if the URL has no host.
fn is_valid(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else { return false };
    let port = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => port,
            _ => return false,
        },
        None => {
            let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
            if !is_registered_name(name) {
                return false;
            }
            port
        }
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    digits.is_empty() || (port.len() > digits.len() && is_port(digits))
}

fn is_port(digits: &str) -> bool {
    digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
}

/// A `reg-name` (RFC 3986, section 3.2.2). It includes IPv4 addresses, and names with underscores, which container engines
/// use.
fn is_registered_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        let allowed = match byte {
            b'%' => [bytes.next(), bytes.next()].iter().all(|digit| digit.is_some_and(|d| d.is_ascii_hexdigit())),
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';'
            | b'=' => true,
            _ => byte.is_ascii_alphanumeric(),
        };
        if !allowed {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_with_optional_ports_are_valid() {
        for host in [
            "streams.example.com",
            "STREAMS.example.com.",
            "streams.example.com:8080",
            "streams.example.com:",
            "stream_manager-1:8080",
            "10.0.0.5:8080",
            "[::1]",
            "[2001:db8::7]:65535",
            "[::ffff:192.0.2.7]:80",
            "xn--bcher-kva.example",
            "b%C3%BCcher.example",
            "",
            ":8080",
        ] {
            assert!(is_valid(&HeaderValue::from_static(host)), "{host}");
        }
    }

    #[test]
    fn other_values_are_invalid() {
        for host in [
            "a b",
            "a, b.example",
            "a/b",
            "http://a",
            "user@a",
            "a?b",
            "a#b",
            "a\\b",
            "a%2",
            "a%zz",
            "a:80:80",
            "a:+80",
            "a:http",
            "a:65536",
            "::1",
            "[::1",
            "[::1]8080",
            "[::1]:x",
            "[a.example]",
            "[::1%25eth0]",
            "[]",
            "a\tb",
        ] {
            assert!(!is_valid(&HeaderValue::from_static(host)), "{host}");
        }
        assert!(!is_valid(&HeaderValue::from_bytes("bücher.example".as_bytes()).unwrap()));
    }
}
