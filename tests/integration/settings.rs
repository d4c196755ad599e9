//! Settings: defaults, file and environment, and error messages of one line with the key, the value and the allowed values.

use std::collections::HashMap;
use std::io::Write;

use stream_manager::config::{Config, DEFAULTS, StoreKind};
use stream_manager::http::auth::KeySource;
use stream_manager::limiter::Policy;

/// Loads settings from environment variables. Their names are given without the prefix `STREAM_MANAGER`.
pub fn load(environment: &[(&str, &str)]) -> Result<Config, String> {
    let environment = environment.iter().map(|(name, value)| (format!("STREAM_MANAGER{name}"), (*value).to_owned()));
    Config::load(None, environment.collect()).map_err(|error| error.to_string())
}

pub fn load_text(text: &str) -> Result<Config, String> {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Config::load(Some(file.path()), HashMap::new()).map_err(|error| error.to_string())
}

#[test]
fn defaults_are_those_of_the_docs() {
    let config = load(&[]).unwrap();
    assert_eq!(config.server.bind.to_string(), "127.0.0.1:8080");
    assert_eq!(config.server.management_bind.to_string(), "127.0.0.1:9464");
    assert_eq!(config.store.kind, StoreKind::Embedded);
    assert_eq!(
        (config.lease.duration_s.get(), config.lease.heartbeat_interval_s.get(), config.lease.retention_s.get()),
        (90, 30, 3600)
    );
    assert_eq!(config.limits.streams_per_user.get(), 3);
    assert_eq!(format!("{:?}", config.policy()), format!("{:?}", Policy::default()));
}

#[test]
fn the_environment_overrides_the_file_which_overrides_the_defaults() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"[limits]\nstreams_per_user = 5\n[lease]\nretention_s = 10\n").unwrap();
    let environment = [("STREAM_MANAGER__LIMITS__STREAMS_PER_USER", "7"), ("STREAM_MANAGER__SERVER__BIND", "")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::load(Some(file.path()), environment.into()).unwrap();
    assert_eq!((config.limits.streams_per_user.get(), config.lease.retention_s.get()), (7, 10));
    assert_eq!(config.server.bind.port(), 8080, "an empty variable counts as unset");
}

#[test]
fn printed_settings_can_be_loaded_again() {
    let config = load(&[("__DYNAMODB__REGION", "eu-central-1"), ("__STORE__KIND", "dynamodb")]).unwrap();
    let reloaded = load_text(&config.to_toml()).unwrap();
    assert_eq!(reloaded.to_toml(), config.to_toml());
    assert_eq!(reloaded.dynamodb.region.as_deref(), Some("eu-central-1"));
}

#[test]
fn every_setting_is_in_the_reference() {
    for (section, key) in keys(&load(&[]).unwrap().to_toml()) {
        let reference = DEFAULTS.split_once(section).map_or("", |(_, after)| after);
        assert!(reference.contains(&format!("{key} =")), "{section} {key}");
    }
}

/// All settings in a printed configuration, including unset settings, each as the line of its section and its key.
fn keys(printed: &str) -> Vec<(&str, &str)> {
    let mut section = "";
    let mut keys = Vec::new();
    for line in printed.lines().filter(|line| !line.is_empty()) {
        match line.starts_with('[') {
            true => section = line,
            false => keys.push((section, line.trim_start_matches("# ").split([' ', '=']).next().unwrap())),
        }
    }
    keys
}

#[test]
fn out_of_range_errors_name_key_value_and_bounds() {
    for (name, value, message) in [
        ("__LIMITS__STREAMS_PER_USER", "0", "limits.streams_per_user = 0: must be 1 to 50"),
        ("__LIMITS__STREAMS_PER_USER", "51", "limits.streams_per_user = 51: must be 1 to 50"),
        ("__SERVER__WORKER_THREADS", "257", "server.worker_threads = 257: must be 0 to 256"),
        ("__LEASE__DURATION_S", "1", "lease.duration_s = 1: must be 2 to 86400"),
        (
            "__LEASE__HEARTBEAT_INTERVAL_S",
            "46",
            "lease.heartbeat_interval_s = 46: must be at most 45 (half of lease.duration_s)",
        ),
        (
            "__DYNAMODB__ATTEMPT_TIMEOUT_MS",
            "7000",
            "dynamodb.attempt_timeout_ms = 7000: must be at most 6000 (dynamodb.operation_timeout_ms)",
        ),
        (
            "__SERVER__REQUEST_TIMEOUT_S",
            "6",
            "dynamodb.operation_timeout_ms = 6000: must be at most 5999 (server.request_timeout_s less one millisecond)",
        ),
        (
            "__DYNAMODB__TABLE",
            "a b",
            "dynamodb.table = \"a b\": must be 3 to 255 characters of a-z, A-Z, 0-9, '_', '-' and '.'",
        ),
    ] {
        assert_eq!(load(&[(name, value)]).expect_err(name), message);
    }
}

#[test]
fn a_list_or_table_as_value_is_refused_without_jargon() {
    for (section, key) in keys(&load(&[]).unwrap().to_toml()) {
        for value in ["[[1]]", "{ a = 1 }"] {
            let message = load_text(&format!("{section}\n{key} = {value}\n")).expect_err(key);
            let jargon = ["invalid type", "sequence", "map"].into_iter().find(|word| message.contains(word));
            assert!(message.contains(key) && jargon.is_none(), "{message}");
        }
    }
}

#[test]
fn spaces_in_the_log_filter_are_ignored() {
    let filter =
        |text: &str| load(&[("__LOG__FILTER", text)]).map(|config| config.log().filter().map(|f| f.to_string()));
    let trimmed = filter("info,stream_manager=debug").unwrap();
    assert!(trimmed.is_ok());
    assert_eq!(filter(" info , stream_manager=debug"), Ok(trimmed));
    // These filters must not cause a panic.
    for text in [" s[auth\u{fffd}]", "info, s[\u{e9}]=debug", " \u{e9}"] {
        _ = filter(text);
    }
}

#[test]
fn type_errors_name_the_key_and_the_value() {
    for (name, value, parts) in [
        ("__LEASE__DURATION_S", "soon", ["lease.duration_s = \"soon\"", "must be a whole number"]),
        ("__LEASE__DURATION_S", "1.5", ["lease.duration_s = \"1.5\"", "must be a whole number"]),
        ("__SERVER__BIND", "localhost", ["server.bind = \"localhost\"", "socket address"]),
        ("__STORE__KIND", "redis", ["store.kind = \"redis\"", "`embedded`, `dynamodb`, `memory`"]),
        ("__LIMITS__AT_LIMIT", "evict", ["limits.at_limit = \"evict\"", "`reject` or `evictOldest`"]),
        ("__LOG__FILTER", "inof", ["log.filter = \"inof\"", "not a level"]),
        ("__DYNAMODB__ENDPOINT_URL", "nonsense", ["dynamodb.endpoint_url", "must be http://HOST:PORT"]),
        ("__DYNAMODB__ENDPOINT_URL", "ftp://x", ["dynamodb.endpoint_url", "must be http://HOST:PORT"]),
        ("__DYNAMODB__ENDPOINT_URL", "http://me:secret@x", ["dynamodb.endpoint_url = …", "without user"]),
        ("__EMBEDDED__PATH", ":memory:", ["embedded.path = \":memory:\"", "must name a file"]),
        ("__LOG__FILTER", "a=b=c", ["log.filter = \"a=b=c\"", "expected one of"]),
    ] {
        let message = load(&[(name, value)]).expect_err(name);
        let complete = parts.iter().all(|part| message.contains(part)) && !message.contains('\n');
        assert!(complete && !message.contains("secret"), "{message}");
    }
    for text in ["[lease]\nduration_s = 1.5\n", "[lease]\nduration_s = true\n", "[lease]\nduration_s = -90\n"] {
        let message = load_text(text).expect_err(text);
        assert!(message.contains("lease.duration_s = ") && message.contains("must be a whole number"), "{message}");
    }
}

#[test]
fn unknown_keys_are_refused_in_file_and_environment() {
    for name in ["__SERVER__BINDD", "__SERVR__BIND", "__FOO"] {
        let message = load(&[(name, "x")]).expect_err(name);
        assert!(message.contains("unknown field"), "{message}");
    }
    let message = load_text("[server]\nbindd = 1\n").unwrap_err();
    assert!(message.contains("bindd") && message.contains("server"), "{message}");
}

#[test]
fn an_unreadable_file_is_named() {
    let message = Config::load(Some("/no/such.toml".as_ref()), HashMap::new()).unwrap_err().to_string();
    assert!(message.contains("/no/such.toml"), "{message}");
}

const SECRET: &str = "secret secret secret secret secret";

/// Loads an `auth` section with a mode, an issuer and an audience. The settings in `more` are added or replace these. A valid
/// section also needs a key source.
fn load_auth(more: &[(&str, &str)]) -> Result<Config, String> {
    let minimum = [("MODE", "jwt"), ("ISSUER", "https://login.example.com/"), ("AUDIENCE", "streams")];
    let names: Vec<(String, &str)> =
        minimum.iter().chain(more).map(|(key, value)| (format!("__AUTH__{key}"), *value)).collect();
    load(&names.iter().map(|(name, value)| (name.as_str(), *value)).collect::<Vec<_>>())
}

#[test]
fn tokens_are_required_only_if_auth_mode_is_jwt() {
    assert!(load(&[]).unwrap().tokens().is_none());
    let config = load_auth(&[("JWKS_URL", "https://login.example.com/keys"), ("ALGORITHMS", "RS256, ES256")]);
    let tokens = config.unwrap().tokens().unwrap();
    assert!(matches!(&tokens.keys, KeySource::Url(url) if url == "https://login.example.com/keys"));
    assert_eq!((tokens.algorithms, tokens.audience), (vec!["RS256".into(), "ES256".into()], vec!["streams".into()]));
    assert_eq!((tokens.user_claim.as_str(), tokens.limit_claim.as_str()), ("sub", "max_streams"));
    assert_eq!(tokens.labels_claim, None);
    assert_eq!(tokens.admin_scope, "streams:admin");
    let file = load_auth(&[("JWKS_FILE", "keys.json")]).unwrap().tokens().unwrap();
    assert!(matches!(&file.keys, KeySource::File(path) if path.as_os_str() == "keys.json"));
    let secret = load_auth(&[("HS256_SECRET", SECRET), ("ALGORITHMS", "")]).unwrap();
    assert!(matches!(secret.tokens().unwrap().keys, KeySource::Secret(_)));
}

#[test]
fn secrets_are_never_printed() {
    let config = load_auth(&[("HS256_SECRET", SECRET)]).unwrap();
    let tokens = config.tokens().unwrap();
    let printed = config.to_toml();
    assert!(printed.contains("# hs256_secret is set, and not shown"), "{printed}");
    for text in [printed, format!("{config:?}"), format!("{tokens:?}")] {
        assert!(!text.contains("secret secret"), "{text}");
    }
    let list = load_text("[auth]\nhs256_secret = [\"secret secret\"]\n").unwrap_err();
    assert!(list.contains("auth.hs256_secret = …") && !list.contains("secret secret"), "{list}");
    let number = load_text("[auth]\nhs256_secret = 12345678\n").unwrap_err();
    assert!(number.contains("must be a string") && !number.contains("12345678"), "{number}");
    let misplaced = [
        ("__HS256_SECRET", "secret secret", "hs256_secret = …"),
        ("__AUTH__HS256_SECRETS", "secret secret", "auth.hs256_secrets = …"),
        ("__AUTH", "{hs256_secret = 'secret secret'}", "auth = …"),
    ];
    for (name, value, shown) in misplaced {
        let message = load(&[(name, value)]).expect_err(name);
        assert!(message.contains(shown) && !message.contains("secret secret"), "{message}");
    }
    let unknown = load_text("[auth]\nsecret = \"secret secret\"\n").unwrap_err();
    assert!(unknown.contains("auth.secret = …") && !unknown.contains("secret secret"), "{unknown}");
    let unterminated = load_text("[auth]\nhs256_secret = \"secret secret\nmode = \"jwt\"\n").unwrap_err();
    assert!(!unterminated.contains("secret secret"), "{unterminated}");
}

#[test]
fn auth_errors_name_the_key_and_hide_secrets() {
    let url = ("JWKS_URL", "https://x.example/keys");
    for (settings, parts) in [
        (&[][..], ["auth.mode = \"jwt\"", "needs one of auth.jwks_url, auth.jwks_file and auth.hs256_secret"]),
        (&[url, ("JWKS_FILE", "keys")], ["auth.jwks_url = …", "must be the only one"]),
        (&[("JWKS_FILE", "keys"), ("HS256_SECRET", SECRET)], ["auth.jwks_file = …", "must be the only one"]),
        (&[("MODE", "none"), ("HS256_SECRET", SECRET)], ["auth.hs256_secret = …", "is for auth.mode = \"jwt\""]),
        (&[("MODE", "none"), url], ["auth.jwks_url = …", "is for auth.mode = \"jwt\""]),
        (&[("MODE", "none")], ["auth.issuer = …", "is for auth.mode = \"jwt\""]),
        (&[("MODE", ""), ("ISSUER", "")], ["auth.audience = …", "is for auth.mode = \"jwt\""]),
        (&[("MODE", "basic")], ["auth.mode = \"basic\"", "`none` or `jwt`"]),
        (&[url, ("ISSUER", "")], ["auth.issuer = \"\"", "must be set"]),
        (&[url, ("AUDIENCE", "")], ["auth.audience = []", "must be set"]),
        (&[url, ("AUDIENCE", "a,,b")], ["auth.audience", "must not contain an empty item"]),
        (&[url, ("ALGORITHMS", "none")], ["auth.algorithms = [\"none\"]", "must be one or more of RS256"]),
        (&[url, ("ALGORITHMS", "RS256,HS256")], ["auth.algorithms = [\"RS256\", \"HS256\"]", "must be one or more"]),
        (&[url, ("ALGORITHMS", "rs256")], ["auth.algorithms = [\"rs256\"]", "must be one or more"]),
        (&[("HS256_SECRET", "secret secret")], ["auth.hs256_secret = …", "must have at least 32 bytes"]),
        (&[("JWKS_URL", "http://x.example/keys")], ["auth.jwks_url = …", "must be https://HOST/PATH"]),
        (&[("JWKS_URL", "https://me:secret secret@x/keys")], ["auth.jwks_url = …", "without user and password"]),
        (&[("JWKS_URL", "file:///etc/keys")], ["auth.jwks_url = …", "must be https://HOST/PATH"]),
        (&[("JWKS_URL", "http://127.0.0.1.example.com/keys")], ["auth.jwks_url = …", "on loopback"]),
        (&[url, ("USER_CLAIM", "a b")], ["auth.user_claim = \"a b\"", "without white space"]),
        (&[url, ("LIMIT_CLAIM", " x")], ["auth.limit_claim = \" x\"", "without white space"]),
        (&[url, ("LABELS_CLAIM", "a b")], ["auth.labels_claim = \"a b\"", "without white space"]),
        (
            &[("MODE", "none"), ("ISSUER", ""), ("AUDIENCE", ""), ("LABELS_CLAIM", "x")],
            ["auth.labels_claim = …", "is for auth.mode"],
        ),
        (&[url, ("ADMIN_SCOPE", "a b")], ["auth.admin_scope = \"a b\"", "without white space"]),
    ] {
        let message = load_auth(settings).unwrap_err();
        let complete = parts.iter().all(|part| message.contains(part)) && !message.contains('\n');
        assert!(complete && !message.contains("secret secret"), "{settings:?}: {message}");
    }
    for loopback in ["http://127.0.0.1:8081/keys", "http://localhost/keys", "http://[::1]:8081/keys"] {
        assert!(load_auth(&[("JWKS_URL", loopback)]).is_ok(), "{loopback}");
    }
}
