//! The real binary with grants: settings, a changed key file, and no secrets in the log.

use std::fs;

use reqwest::header::AUTHORIZATION;

use super::{CHECK, JWKS, SECRET, TestKey, part, verify_with_jwks};
use crate::service::{Service, command, http_client, run, startup_error, stdout, temp_dir};
use crate::settings::load;
use crate::test_app::STREAMS;

const LONG: &str = "a secret of at least thirty-two bytes";

async fn grant(service: &Service) -> String {
    let (status, started) = service.call("POST", STREAMS).await;
    assert_eq!(status, 201, "{started}");
    started["grant"].as_str().unwrap().to_owned()
}

async fn check(service: &Service, grant: &str) -> u16 {
    let request = http_client().get(service.url(CHECK)).header(AUTHORIZATION, format!("Bearer {grant}"));
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_changed_key_file_is_used_without_a_restart() {
    let folder = temp_dir();
    let path = folder.path().join("grants.pem");
    fs::write(&path, TestKey::p256().pem()).unwrap();
    let mut command = command(folder.path());
    command.env("STREAM_MANAGER__STORE__KIND", "memory").env("STREAM_MANAGER__LOG__FILTER", "trace");
    command.env("STREAM_MANAGER__GRANTS__ALGORITHM", "ES256").env("STREAM_MANAGER__GRANTS__KEY_FILE", "grants.pem");
    let mut service = Service::start(&mut command).await;
    let first = grant(&service).await;
    assert_eq!(check(&service, &first).await, 204);
    let next = TestKey::p256();
    fs::write(&path, next.pem()).unwrap();
    service.wait_for_event("grant_keys_loaded").await;
    let second = grant(&service).await;
    assert_ne!(part(&first, 0)["kid"], part(&second, 0)["kid"]);
    let (status, jwks) = service.call("GET", JWKS).await;
    assert!(status == 200 && verify_with_jwks(&jwks, &second), "{jwks}");
    assert_eq!((check(&service, &first).await, check(&service, &second).await), (401, 204));
    service.terminate().await;
    let log = [service.first_lines.clone(), service.remaining_log().await].concat();
    let secrets = first.split('.').chain(second.split('.')).map(str::to_owned);
    let secrets = secrets.chain([next.jwk()["d"].as_str().unwrap().to_owned()]);
    for secret in secrets {
        assert_eq!(log.iter().find(|line| line.contains(&secret)), None);
    }
}

#[tokio::test]
async fn a_missing_key_fails_startup_with_one_line() {
    let folder = temp_dir();
    let mut command = command(folder.path());
    command.env("STREAM_MANAGER__STORE__KIND", "memory").env("STREAM_MANAGER__GRANTS__ALGORITHM", "EdDSA");
    let line = startup_error(&mut command).await;
    assert_eq!(line, "error: grants.algorithm = \"EdDSA\": needs grants.key_file");
    let line = startup_error(command.env("STREAM_MANAGER__GRANTS__KEY_FILE", "nowhere.pem")).await;
    assert!(line.starts_with("error: grants.key_file \"nowhere.pem\" cannot be read: "), "{line}");
}

#[tokio::test]
async fn check_config_hides_the_secrets_of_grants() {
    let folder = temp_dir();
    let mut command = command(folder.path());
    for (key, value) in [
        ("ALGORITHM", "HS256"),
        ("SECRET", SECRET),
        ("PUBLISHED_KEYS", "an older secret of service and CDN"),
        ("SUBJECT", "hashed"),
        ("SUBJECT_KEY", "one key for the hashes of subjects"),
    ] {
        command.env(format!("STREAM_MANAGER__GRANTS__{key}"), value);
    }
    let output = run(command.arg("check-config")).await;
    let printed = stdout(&output);
    for key in ["secret", "published_keys", "subject_key"] {
        assert!(printed.contains(&format!("# {key} is set, and not shown")), "{printed}");
    }
    assert!(output.status.success() && !printed.contains("secret of") && !printed.contains(SECRET), "{printed}");
}

#[test]
fn conflicting_settings_are_explained() {
    let key = |name: &str| format!("__GRANTS__{name}");
    let cases: [(&[(&str, &str)], &str); 18] = [
        (&[("ALGORITHM", "RS256")], "grants.algorithm = \"RS256\": unknown value"),
        (&[("ALGORITHM", "HS256")], "grants.algorithm = \"HS256\": needs grants.secret"),
        (&[("ALGORITHM", "ES256")], "grants.algorithm = \"ES256\": needs grants.key_file"),
        (&[("SECRET", LONG)], "grants.secret = …: is not for grants.algorithm = \"off\""),
        (&[("KEY_FILE", "a")], "grants.key_file = …: is not for grants.algorithm = \"off\""),
        (&[("PUBLISHED_KEYS", "a")], "grants.published_keys = …: is not for grants.algorithm = \"off\""),
        (
            &[("ALGORITHM", "HS256"), ("SECRET", LONG), ("KEY_FILE", "a")],
            "grants.key_file = …: is not for grants.algorithm = \"HS256\"",
        ),
        (&[("ALGORITHM", "HS256"), ("SECRET", "short")], "grants.secret = …: must have at least 32 bytes"),
        (
            &[("ALGORITHM", "HS256"), ("SECRET", LONG), ("PUBLISHED_KEYS", "short")],
            "grants.published_keys = …: must have at least 32 bytes",
        ),
        (
            &[("ALGORITHM", "HS256"), ("SECRET", LONG), ("SUBJECT", "hashed"), ("SUBJECT_KEY", LONG)],
            "grants.subject_key = …: must differ from every other secret",
        ),
        (&[("SUBJECT", "hashed")], "grants.subject = \"hashed\": needs grants.subject_key"),
        (&[("SUBJECT_KEY", LONG)], "grants.subject_key = …: is for grants.subject = \"hashed\""),
        (&[("KEY_ID", "a b")], "grants.key_id = \"a b\": must be 1 to 128 visible ASCII characters"),
        (&[("COOKIE", "a b")], "grants.cookie = \"a b\": must be a name of"),
        (&[("QUERY_PARAMETER", "a=b")], "grants.query_parameter = \"a=b\": must be a name of"),
        (&[("LEEWAY_S", "301")], "grants.leeway_s = 301: must be 0 to 300"),
        (&[("CONTENT_PATH", "/media/")], "grants.content_path = \"/media/\": must contain {content} exactly once"),
        (&[("CONTENT_PATH", "//{content}/")], "grants.content_path = \"//{content}/\": must begin with a slash"),
    ];
    for (settings, message) in cases {
        let names: Vec<(String, &str)> = settings.iter().map(|(name, value)| (key(name), *value)).collect();
        let environment: Vec<(&str, &str)> = names.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let error = load(&environment).expect_err(message);
        assert!(error.starts_with(message) && !error.contains(LONG), "{message}: {error}");
    }
    let shared = [
        ("__AUTH__MODE", "jwt"),
        ("__AUTH__ISSUER", "a"),
        ("__AUTH__AUDIENCE", "b"),
        ("__AUTH__HS256_SECRET", LONG),
        ("__GRANTS__ALGORITHM", "HS256"),
        ("__GRANTS__SECRET", LONG),
    ];
    assert_eq!(load(&shared).unwrap_err(), "grants.secret = …: must differ from auth.hs256_secret");
}

#[test]
fn grants_and_tokens_must_have_different_claims() {
    let environment = |issuer, audience| {
        [
            ("__AUTH__MODE", "jwt"),
            ("__AUTH__ISSUER", issuer),
            ("__AUTH__AUDIENCE", audience),
            ("__AUTH__HS256_SECRET", LONG),
            ("__GRANTS__ALGORITHM", "HS256"),
            ("__GRANTS__SECRET", SECRET),
        ]
    };
    let error = load(&environment("stream-manager", "api,media")).unwrap_err();
    assert!(error.starts_with("grants.audience = \"media\": must not be in auth.audience"), "{error}");
    for (issuer, audience) in [("login", "api,media"), ("stream-manager", "api")] {
        load(&environment(issuer, audience)).unwrap();
    }
}

#[test]
fn grants_are_off_by_default() {
    assert!(load(&[]).unwrap().grants().is_none());
    let on = [("__GRANTS__ALGORITHM", "HS256"), ("__GRANTS__SECRET", SECRET), ("__GRANTS__LEEWAY_S", "7")];
    let settings = load(&on).unwrap().grants().unwrap();
    let names = [&settings.issuer, &settings.audience, &settings.cookie, &settings.query_parameter];
    assert_eq!(names, ["stream-manager", "media", "grant", "grant"]);
    assert_eq!((settings.leeway_s, settings.subject_key.is_none()), (7, true));
}
