//! The real binary with tokens: it tells no secret and no token, and says what is wrong with its keys.

use serde_json::{Value, json};
use tokio::process::Command;

use super::issuer::Key;
use super::keys::{Published, Says, keys};
use super::{AUDIENCE, ISSUER, SECRET, anns, anns_but, secretly};
use crate::process::{Service, command, folder, refusal, run};

fn with_tokens(folder: &std::path::Path, keys: (&str, &str)) -> Command {
    let mut command = command(folder);
    for (key, value) in [("MODE", "jwt"), ("ISSUER", ISSUER), ("AUDIENCE", AUDIENCE), keys] {
        command.env(format!("STREAM_MANAGER__AUTH__{key}"), value);
    }
    command.env("STREAM_MANAGER__STORE__KIND", "memory");
    command
}

async fn count(service: &Service, token: &str) -> (u16, Value) {
    let url = format!("http://{}/v1/users/ann/streams/count", service.address);
    let response = reqwest::Client::new().get(url).bearer_auth(token).send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.unwrap_or_default())
}

#[tokio::test]
async fn no_log_holds_a_token_or_the_secret_whatever_its_level_and_format() {
    for format in ["pretty", "json"] {
        let folder = folder();
        let mut command = with_tokens(folder.path(), ("HS256_SECRET", SECRET));
        command.env("STREAM_MANAGER__LOG__FORMAT", format).env("STREAM_MANAGER__LOG__FILTER", "trace");
        let mut service = Service::start(&mut command).await;
        let good = secretly(&anns());
        let expired = secretly(&anns_but(json!({ "exp": 1 })));
        assert_eq!(count(&service, &good).await.0, 200);
        assert_eq!(count(&service, &expired).await.0, 401);
        assert_eq!(count(&service, "nonsense-token").await.0, 401);
        service.terminate().await;
        let log = [service.first_lines.clone(), service.rest_of_the_log().await].concat();
        assert!(log.iter().any(|line| line.contains("token refused")), "{log:?}");
        let parts = good.split('.').chain(expired.split('.')).chain([SECRET, "nonsense-token"]);
        for part in parts {
            let told = log.iter().find(|line| line.contains(part));
            assert_eq!(told, None, "{format}");
        }
    }
}

#[tokio::test]
async fn the_settings_are_printed_without_the_secret() {
    let folder = folder();
    let output = run(with_tokens(folder.path(), ("HS256_SECRET", SECRET)).arg("check-config")).await;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && printed.contains("# hs256_secret is set, and not shown"), "{printed}");
    assert!(!printed.contains(SECRET), "{printed}");
    let line = refusal(&mut with_tokens(folder.path(), ("HS256_SECRET", "short and secret"))).await;
    assert!(line.contains("auth.hs256_secret = …") && !line.contains("short and secret"), "{line}");
}

#[tokio::test]
async fn a_file_without_keys_stops_the_start_in_one_line() {
    let folder = folder();
    let line = refusal(&mut with_tokens(folder.path(), ("JWKS_FILE", "nowhere.json"))).await;
    assert!(line.starts_with("error: auth.jwks_file \"nowhere.json\" cannot be read: "), "{line}");
    std::fs::write(folder.path().join("keys.json"), "[]").expect("a file");
    let line = refusal(&mut with_tokens(folder.path(), ("JWKS_FILE", "keys.json"))).await;
    assert!(line.starts_with("error: auth.jwks_file \"keys.json\" is not a key set"), "{line}");
}

#[tokio::test]
async fn a_service_that_starts_before_its_issuer_is_ready_once_the_keys_are_there() {
    let key = Key::rsa("a");
    let published = Published::saying(Says::Status(503)).await;
    let folder = folder();
    let mut service = Service::start(&mut with_tokens(folder.path(), ("JWKS_URL", &published.url))).await;
    assert!(service.first_lines.iter().any(|line| line.contains("WARN") && line.contains("it answers 503")));
    assert_eq!(service.call("GET", "/health/ready").await.0, 503);
    assert_eq!(count(&service, &key.token(&anns())).await.1["code"], "keys-unavailable");
    published.say(keys(&[key]));
    service.says("the keys are there").await;
    assert_eq!(service.call("GET", "/health/ready").await.0, 200);
    assert_eq!(count(&service, &key.token(&anns())).await.0, 200);
}

#[tokio::test]
async fn a_service_for_everybody_that_is_reachable_from_elsewhere_warns() {
    let folder = folder();
    let warns = async |bind: &str| {
        let mut command = command(folder.path());
        command.env("STREAM_MANAGER__SERVER__BIND", bind).env("STREAM_MANAGER__STORE__KIND", "memory");
        let service = Service::start(&mut command).await;
        service.first_lines.iter().any(|line| line.contains("WARN") && line.contains("auth.mode"))
    };
    assert!(warns("0.0.0.0:0").await);
    assert!(!warns("127.0.0.1:0").await);
}
