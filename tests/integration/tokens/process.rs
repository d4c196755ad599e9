//! The real binary with tokens. The log and the printed settings contain no secret. Also tests unusable keys at startup.

use std::path::Path;

use serde_json::{Value, json};
use tokio::process::Command;

use super::issuer::Key;
use super::keys::{JwksReply, JwksServer, key_set};
use super::{AUDIENCE, ISSUER, SECRET, claims_with, sign_hs256, valid_claims};
use crate::service::{Service, command, http_client, is_event, run, startup_error, stdout, temp_dir};

fn command_with_tokens(folder: &Path, keys: (&str, &str)) -> Command {
    let mut command = command(folder);
    for (key, value) in [("MODE", "jwt"), ("ISSUER", ISSUER), ("AUDIENCE", AUDIENCE), keys] {
        command.env(format!("STREAM_MANAGER__AUTH__{key}"), value);
    }
    command.env("STREAM_MANAGER__STORE__KIND", "memory");
    command
}

async fn count(service: &Service, token: &str) -> (u16, Value) {
    let url = service.url("/v1/users/ann/streams/count");
    let response = http_client().get(url).bearer_auth(token).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap_or_default())
}

#[tokio::test]
async fn tokens_and_secrets_are_never_logged() {
    for format in ["pretty", "json"] {
        let folder = temp_dir();
        let mut command = command_with_tokens(folder.path(), ("HS256_SECRET", SECRET));
        command.env("STREAM_MANAGER__LOG__FORMAT", format).env("STREAM_MANAGER__LOG__FILTER", "trace");
        let mut service = Service::start(&mut command).await;
        let good = sign_hs256(&valid_claims());
        let expired = sign_hs256(&claims_with(json!({ "exp": 1 })));
        assert_eq!(count(&service, &good).await.0, 200);
        assert_eq!(count(&service, &expired).await.0, 401);
        assert_eq!(count(&service, "nonsense-token").await.0, 401);
        service.terminate().await;
        let log = [service.first_lines.clone(), service.remaining_log().await].concat();
        assert!(log.iter().any(|line| line.contains("token rejected")), "{log:?}");
        for part in good.split('.').chain(expired.split('.')).chain([SECRET, "nonsense-token"]) {
            assert_eq!(log.iter().find(|line| line.contains(part)), None, "{format}");
        }
    }
}

#[tokio::test]
async fn check_config_hides_the_secret() {
    let folder = temp_dir();
    let output = run(command_with_tokens(folder.path(), ("HS256_SECRET", SECRET)).arg("check-config")).await;
    let printed = stdout(&output);
    assert!(output.status.success() && printed.contains("# hs256_secret is set, and not shown"), "{printed}");
    assert!(!printed.contains(SECRET), "{printed}");
    let line = startup_error(&mut command_with_tokens(folder.path(), ("HS256_SECRET", "short and secret"))).await;
    assert!(line.contains("auth.hs256_secret = …") && !line.contains("short and secret"), "{line}");
}

#[tokio::test]
async fn an_unusable_key_file_fails_startup() {
    let folder = temp_dir();
    let line = startup_error(&mut command_with_tokens(folder.path(), ("JWKS_FILE", "nowhere.json"))).await;
    assert!(line.starts_with("error: auth.jwks_file \"nowhere.json\" cannot be read: "), "{line}");
    std::fs::write(folder.path().join("keys.json"), "[]").unwrap();
    let line = startup_error(&mut command_with_tokens(folder.path(), ("JWKS_FILE", "keys.json"))).await;
    assert!(line.starts_with("error: auth.jwks_file \"keys.json\" is not a JWKS"), "{line}");
}

#[tokio::test]
async fn the_service_is_ready_once_the_issuer_responds() {
    let key = Key::rsa("a");
    let jwks = JwksServer::start(JwksReply::Status(503)).await;
    let folder = temp_dir();
    let mut service = Service::start(&mut command_with_tokens(folder.path(), ("JWKS_URL", &jwks.url))).await;
    let warning = service.first_lines.iter().find(|line| is_event(line, "jwks_unavailable")).unwrap();
    assert!(warning.contains("WARN") && warning.contains("503"), "{warning}");
    assert_eq!(service.call("GET", "/health/ready").await.0, 503);
    let token = key.token(&valid_claims());
    assert_eq!(count(&service, &token).await.1["code"], "keys-unavailable");
    jwks.set_reply(key_set(&[key]));
    service.wait_for_event("jwks_loaded").await;
    assert_eq!(service.call("GET", "/health/ready").await.0, 200);
    assert_eq!(count(&service, &token).await.0, 200);
}
