//! The settings `cors`: origins and headers are converted to the form that browsers send, and items that can never match are
//! refused.

use crate::settings::{load, load_text};

/// The allowed origins after loading them from the environment, or the error.
fn origins(items: &str) -> Result<Vec<String>, String> {
    load(&[("__CORS__ALLOWED_ORIGINS", items)]).map(|config| config.cors.allowed_origins)
}

fn headers(items: &str) -> Result<Vec<String>, String> {
    load(&[("__CORS__ALLOWED_HEADERS", items)]).map(|config| config.cors.allowed_headers)
}

#[test]
fn origins_as_browsers_send_them_stay_as_they_are() {
    for origin in [
        "https://tv.example.com",
        "http://localhost:5173",
        "http://[::1]:8080",
        "https://xn--bcher-kva.example",
        "null",
        "file://",
        "capacitor://localhost",
        "ionic://localhost",
        "tauri://localhost",
        "app://-",
        "app://localhost:8080",
        "app://",
        "chrome-extension://kcdmkmhmehgfcdmfimgcdbfhbnkhjmcg",
        "safari-web-extension://6A8F4C7E-1D2B-4C3A-9E5F-0A1B2C3D4E5F",
        "ms-appx-web://0b3c0f2e",
    ] {
        assert_eq!(origins(origin), Ok(vec![origin.to_owned()]));
    }
}

#[test]
fn other_spellings_of_an_origin_are_normalized() {
    for (written, sent) in [
        ("https://a.example:443", "https://a.example"),
        ("http://a.example:80", "http://a.example"),
        ("https://a.example:80", "https://a.example:80"),
        ("https://a.example:0443/", "https://a.example"),
        ("HTTPS://TV.Example.com", "https://tv.example.com"),
        ("https://tv.example.com/", "https://tv.example.com"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("http://[0:0:0:0:0:0:0:1]:8080", "http://[::1]:8080"),
        ("Capacitor://localhost/", "capacitor://localhost"),
        ("file:///", "file://"),
        ("https://a.example, https://A.example:443,https://b.example", "https://a.example https://b.example"),
    ] {
        assert_eq!(origins(written).map(|origins| origins.join(" ")), Ok(sent.to_owned()), "{written}");
    }
}

#[test]
fn origins_that_can_never_match_are_refused() {
    for (origin, problem) in [
        ("*", "must not contain a pattern"),
        ("https://*.example.com", "must not contain a pattern"),
        ("tv.example.com", "must be an origin with a scheme"),
        ("localhost:5173", "must be an origin with a scheme"),
        ("NULL", "must be an origin with a scheme"),
        ("https:tv.example.com", "must be an origin with a scheme"),
        ("https://tv.example.com/app", "must have only a scheme, a host and a port"),
        ("https://tv.example.com//", "must have only a scheme, a host and a port"),
        ("https://tv.example.com?a", "must have only a scheme, a host and a port"),
        ("https://a:b@x", "must have only a scheme, a host and a port"),
        ("https:///tv.example.com", "must have only a scheme, a host and a port"),
        ("https://", "must have a valid scheme, host and port"),
        ("https://a:65536", "must have a valid scheme, host and port"),
        ("1https://a", "must have a valid scheme, host and port"),
        ("file://tv.example.com", "must be file:// without a host"),
        ("ftp://x", "must have the scheme of a web page"),
        ("data://x", "must be null for pages of this scheme"),
        ("https://a https://b", "items with commas between them"),
        ("https://a;https://b", "items with commas between them"),
    ] {
        let message = origins(origin).unwrap_err();
        let shown = message.starts_with(&format!("cors.allowed_origins = {origin:?}: "));
        assert!(shown && message.contains(problem), "{message}");
    }
}

#[test]
fn header_names_are_converted_to_lower_case() {
    assert_eq!(headers("Sentry-Trace, b3, sentry-trace"), Ok(vec!["sentry-trace".to_owned(), "b3".to_owned()]));
    assert_eq!(headers("*"), Ok(vec!["*".to_owned()]));
}

#[test]
fn invalid_header_names_are_refused() {
    let long = "a".repeat(129);
    for (name, problem) in [
        ("x-b3-*", "must not contain a pattern"),
        ("sentry-trace:", "must be the name of a header"),
        ("straße", "must be the name of a header"),
        ("b3 newrelic", "items with commas between them"),
        (&long, "must have at most 128 bytes"),
    ] {
        let message = headers(name).unwrap_err();
        let shown = message.starts_with(&format!("cors.allowed_headers = {name:?}: "));
        assert!(shown && message.contains(problem), "{message}");
    }
    let many: Vec<String> = (0..65).map(|number| format!("x-{number}")).collect();
    assert_eq!(headers(&many.join(",")).unwrap_err(), "cors.allowed_headers = 65 items: must have at most 64");
    assert!(headers(&many[1..].join(",")).is_ok());
}

#[test]
fn malformed_lists_in_a_variable_name_the_syntax() {
    for name in ["__CORS__ALLOWED_ORIGINS", "__CORS__ALLOWED_HEADERS", "__AUTH__AUDIENCE", "__AUTH__ALGORITHMS"] {
        for value in ["[\"a\"]", "[]", "\"a\"", "'a','b'", "a,,b", "a,", ","] {
            let message = load(&[(name, value)]).unwrap_err();
            assert!(message.contains("write a list as items with commas between them"), "{name}={value}: {message}");
        }
    }
    let file = load_text("[cors]\nallowed_headers = [1]\n").unwrap_err();
    assert_eq!(file, "cors.allowed_headers = [1]: must be a list of strings, or one string with commas");
}
