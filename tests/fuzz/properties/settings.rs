//! Checks settings. Accepted settings must be within their bounds, and the printed file must load as the same settings.
//! The error of rejected settings must not contain Rust terms, and must name the key of an invalid value.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use secrecy::ExposeSecret;
use stream_manager::config::{Config, ConfigError};
use stream_manager::domain::lease::StreamLimit;
use tempfile::NamedTempFile;

thread_local! {
    static FILE: RefCell<NamedTempFile> = RefCell::new(NamedTempFile::new().unwrap());
}

/// The input is a settings file, a line `---`, and environment variables such as `LIMITS__STREAMS_PER_USER=5`. A variable
/// whose name starts with an underscore, such as `_SERVICE_HOST=10.0.0.1`, has only one underscore after the prefix.
pub fn check(input: &[u8]) {
    let (file, variables) = match input.windows(5).position(|at| at == b"\n---\n") {
        Some(at) => (&input[..at], &input[at + 5..]),
        None => (input, &[][..]),
    };
    let Ok(variables) = std::str::from_utf8(variables) else { return };
    let variable = |line: &str| {
        let (key, value) = line.split_once('=')?;
        let separator = if key.starts_with('_') { "" } else { "__" };
        Some((format!("STREAM_MANAGER{separator}{key}"), value.to_owned()))
    };
    let variables: HashMap<String, String> = variables.lines().filter_map(variable).collect();
    let misspelled = variables.iter().any(|(name, value)| is_misspelled(name, value));
    let loaded = load(file, variables);
    assert_eq!(matches!(loaded, Err(ConfigError::SingleUnderscore(_))), misspelled);
    match loaded {
        Ok(config) => {
            let limit = u64::from(config.policy().default_limit.get());
            assert_eq!(limit, config.limits.streams_per_user.get());
            let lease = &config.lease;
            assert!(limit <= StreamLimit::MAX.into());
            assert!(lease.heartbeat_interval_s.get() * 2 <= lease.duration_s.get());
            let unserialized = config.cors.allowed_origins.iter().find(|origin| !is_serialized(origin));
            assert_eq!(unserialized, None);
            assert!(config.cors.allowed_headers.iter().all(|name| name.len() <= 128 && *name == name.to_lowercase()));
            let is_refused = config.check_exposure().is_err();
            assert!(!is_refused || config.tokens().is_none() && !config.server.bind.ip().is_loopback());
            let printed = config.to_toml();
            // The secret is not printed, so it must be added to load the printed file.
            let secret =
                config.auth.hs256_secret.as_ref().map(|secret| {
                    ("STREAM_MANAGER__AUTH__HS256_SECRET".to_owned(), secret.expose_secret().to_owned())
                });
            assert_eq!(secret.is_some(), printed.contains("\n# hs256_secret is set, and not shown\n"));
            let reloaded = load(printed.as_bytes(), secret.into_iter().collect()).unwrap();
            assert_eq!(reloaded.to_toml(), printed);
            assert!(reloaded.check_exposure().is_ok(), "the printed settings contain the mode");
        }
        Err(ConfigError::Invalid { key, problem, .. }) => {
            assert!(!key.is_empty() && !problem.is_empty(), "{key}: {problem}");
            super::assert_no_jargon(&problem, input);
        }
        Err(error) => {
            // The error may contain the path of the temporary file, which is random.
            let path = FILE.with_borrow(|file| file.path().to_string_lossy().into_owned());
            super::assert_no_jargon(&error.to_string(), &[input, path.as_bytes()].concat());
        }
    }
}

fn load(file: &[u8], variables: HashMap<String, String>) -> Result<Config, ConfigError> {
    FILE.with_borrow_mut(|on_disk| {
        on_disk.as_file().set_len(0).unwrap();
        on_disk.seek(SeekFrom::Start(0)).unwrap();
        on_disk.write_all(file).unwrap();
        let path: &Path = on_disk.path();
        Config::load(Some(path), variables)
    })
}

/// A second implementation of the rule for variables with a single underscore: such a variable is misspelled, unless
/// its name and value look like those that Kubernetes or a Docker link sets.
fn is_misspelled(name: &str, value: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let Some(rest) = name.strip_prefix("STREAM_MANAGER_") else { return false };
    if rest.starts_with('_') {
        return false;
    }
    let words: Vec<&str> = rest.split('_').collect();
    let is_port = |words: &[&str]| {
        words[0] == "PORT"
            && !words[1].is_empty()
            && words[1].chars().all(|digit| "0123456789".contains(digit))
            && ["TCP", "UDP", "SCTP"].contains(&words[2])
    };
    let value = value.to_ascii_lowercase();
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let is_injected = match words.as_slice() {
        [.., "SERVICE", "HOST"] | [.., "NAME"] => true,
        [.., "PORT"] if is_url => true,
        words => {
            words.windows(2).any(|pair| pair == ["SERVICE", "PORT"] || pair[0] == "ENV")
                || words.windows(3).any(is_port)
        }
    };
    !is_injected
}

/// Whether a browser could send this origin: a scheme, a host without upper case and without a default port, and no path.
fn is_serialized(origin: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return origin == "null" };
    let is_web = matches!(scheme, "http" | "https");
    let is_default = match scheme {
        "http" => authority.ends_with(":80"),
        "https" => authority.ends_with(":443"),
        _ => false,
    };
    let of_scheme = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    let of_authority = |byte: u8| byte.is_ascii_graphic() && !b"/?#@\\*".contains(&byte);
    scheme.bytes().all(of_scheme)
        && authority.bytes().all(of_authority)
        && !is_default
        && !(is_web && (authority.is_empty() || authority.bytes().any(|byte| byte.is_ascii_uppercase())))
}
