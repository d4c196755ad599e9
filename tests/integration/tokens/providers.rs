//! Tokens in the format that the documentation of Auth0, Cognito and Keycloak shows, with our own names and keys.

use serde_json::{Value, json};
use stream_manager::http::auth::{KeySource, TokenSettings};

use super::issuer::Key;
use super::{assert_refused, call, count, jwks_file, now_s, serve, settings};
use crate::test_app::TestServer;

/// A server for tokens of this issuer. The issuer's key set contains the signing key and the other keys.
async fn serve_issuer(
    (issuer, audience): (&str, &str),
    key: &Key,
    other_keys: &[Value],
    settings: TokenSettings,
) -> TestServer {
    let mut signing = key.jwk();
    signing["alg"] = key.algorithms()[0].into();
    let file = jwks_file(&[other_keys, &[signing]].concat());
    let keys = KeySource::File(file.path().to_owned());
    serve(TokenSettings { keys, issuer: issuer.to_owned(), audience: vec![audience.to_owned()], ..settings }).await
}

/// Default settings. `serve_issuer` sets the keys.
fn defaults() -> TokenSettings {
    settings(KeySource::File("".into()), &["RS256"])
}

#[tokio::test]
async fn auth0_tokens_of_users_and_machines_are_accepted() {
    let (issuer, api) = ("https://example.eu.auth0.com/", "https://streams.example.com");
    let key = Key::rsa("NjVBRjY5MDlCMUIwNzU4RTA2QzZFMDQ4");
    let server = serve_issuer((issuer, api), &key, &[], defaults()).await;
    let user = json!({
        "iss": issuer, "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
        "aud": [api, "https://example.eu.auth0.com/userinfo"], "iat": now_s(), "exp": now_s() + 86400,
        "azp": "my_client_id", "scope": "openid profile email", "permissions": []
    });
    let response = count(&server, "auth0%7C5f7c8ec7c33c6c004bbafe82", &key.token(&user)).await;
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(count(&server, "ann", &key.token(&user)).await.status, 403);

    let machine = json!({
        "iss": issuer, "sub": "my_client_id@clients", "aud": api, "iat": now_s(), "exp": now_s() + 86400,
        "azp": "my_client_id", "scope": "streams:admin", "gty": "client-credentials"
    });
    let typ = json!({ "alg": "RS256", "typ": "at+jwt", "kid": key.kid });
    assert_eq!(count(&server, "ann", &key.token_with(&typ, &machine)).await.status, 200);
}

#[tokio::test]
async fn cognito_access_and_id_tokens_are_accepted() {
    let issuer = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_example";
    let (client, sub) = ("xxxxxxxxxxxxexample", "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee");
    let key = Key::rsa("1234example=");
    let settings = TokenSettings {
        admin_scope: "streams/admin".to_owned(),
        limit_claim: "custom:max_streams".to_owned(),
        ..defaults()
    };
    let server = serve_issuer((issuer, client), &key, &[], settings).await;
    // Token headers of Cognito have no `typ`.
    let header = json!({ "kid": key.kid, "alg": "RS256" });
    let access = json!({
        "sub": sub, "device_key": "aaaaaaaa-bbbb", "cognito:groups": ["viewers"], "iss": issuer, "version": 2,
        "client_id": client, "origin_jti": "o", "event_id": "e", "token_use": "access",
        "scope": "phone openid profile email", "auth_time": now_s(), "exp": now_s() + 3600, "iat": now_s(),
        "jti": "j", "username": "my-test-user"
    });
    let token = key.token_with(&header, &access);
    assert_eq!(count(&server, sub, &token).await.status, 200);

    let id = json!({
        "sub": sub, "cognito:groups": ["viewers"], "email_verified": true, "iss": issuer,
        "cognito:username": "my-test-user", "origin_jti": "o", "aud": client, "event_id": "e", "token_use": "id",
        "auth_time": now_s(), "exp": now_s() + 3600, "iat": now_s(), "jti": "j", "custom:max_streams": "7"
    });
    let response = count(&server, sub, &key.token_with(&header, &id)).await;
    assert_eq!((response.status, &response.body["limit"]), (200, &json!(7)), "custom attributes are strings");

    let mut machine = access.clone();
    machine["scope"] = "streams/admin streams/other".into();
    let limit = format!("/v1/users/{sub}/limit");
    assert_eq!(call(&server, "DELETE", &limit, &key.token_with(&header, &machine)).await.status, 204);
    assert_eq!(call(&server, "DELETE", &limit, &token).await.status, 403);

    for (claim, value) in [("client_id", "another-client"), ("token_use", "id"), ("token_use", "refresh")] {
        let mut wrong = access.clone();
        wrong[claim] = value.into();
        assert_refused(&count(&server, sub, &key.token_with(&header, &wrong)).await, claim);
    }
}

#[tokio::test]
async fn keycloak_tokens_with_rsa_and_ecdsa_signatures_are_accepted() {
    let (issuer, client) = ("https://sso.example.com/realms/tv", "account");
    for (key, algorithm) in
        [(Key::rsa("FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE"), "RS256"), (Key::p256("ec"), "ES256")]
    {
        // Keycloak publishes an encryption key next to the signing key.
        let mut encryption = Key::other_rsa("enc").jwk();
        (encryption["use"], encryption["alg"]) = ("enc".into(), "RSA-OAEP".into());
        let settings = TokenSettings {
            algorithms: vec![algorithm.to_owned()],
            user_claim: "preferred_username".to_owned(),
            ..defaults()
        };
        let server = serve_issuer((issuer, client), &key, &[encryption], settings).await;
        let claims = json!({
            "exp": now_s() + 300, "iat": now_s(), "jti": "onrtac:9f0b", "iss": issuer, "aud": client,
            "sub": "d4ae6f2a-3b9f-4a5e-9d3c-0c2f4b3e1a10", "typ": "Bearer", "azp": "player", "sid": "s", "acr": "1",
            "allowed-origins": ["https://tv.example.com"],
            "realm_access": { "roles": ["offline_access", "uma_authorization"] },
            "resource_access": { "account": { "roles": ["manage-account"] } },
            "scope": "email profile", "email_verified": false, "preferred_username": "ann", "max_streams": 2
        });
        let response = count(&server, "ann", &key.token(&claims)).await;
        assert_eq!((response.status, &response.body["limit"]), (200, &json!(2)), "{response:?}");
        // A role with the name of the administrator scope does not grant the scope.
        let mut roles = claims.clone();
        roles["realm_access"]["roles"] = json!(["streams:admin"]);
        assert_eq!(count(&server, "bob", &key.token(&roles)).await.status, 403);
    }
}
