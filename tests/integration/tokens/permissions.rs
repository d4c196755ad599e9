//! What a good token allows: its own user, or with the administrator's scope every user, and the limit that it says.

use serde_json::{Value, json};

use super::{anns, anns_but, assert_refused, by_secret, call, count, secretly, send, served};
use crate::server::{Answer, TestServer};

async fn of(server: &TestServer, method: &str, path: &str, claims: Value, body: Option<Value>) -> Answer {
    send(server, method, path, &format!("Bearer {}", secretly(&claims)), body).await
}

fn admin() -> Value {
    anns_but(json!({ "sub": "support", "scope": "openid streams:admin" }))
}

#[tokio::test]
async fn a_token_speaks_for_its_own_user_however_the_path_spells_the_name() {
    let server = served(by_secret()).await;
    let ann = secretly(&anns());
    for own in ["ann", "%61nn", "%61%6E%6e"] {
        assert_eq!(count(&server, own, &ann).await.status, 200, "{own}");
    }
    for other in
        ["bob", "Ann", "ANN", "ann%20", "ann%00", "ann%2F", "ann%2F..%2Fbob", "%2561nn", "a%CC%81nn", "%FF", "ann%FF"]
    {
        let answer = count(&server, other, &ann).await;
        assert_eq!((answer.status, &answer.body["code"]), (403, &json!("forbidden")), "{other}");
    }
    // Dots that a client or a proxy would fold are not folded here.
    for path in
        ["/v1/users/bob/../ann/streams/count", "/v1/users/ann/../bob/streams/count", "/v1//users/ann/streams/count"]
    {
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {ann}\r\n\r\n");
        assert!(server.raw(&head).await.starts_with("HTTP/1.1 404 "), "{path}");
    }
    let odd = secretly(&anns_but(json!({ "sub": "ann/../bob" })));
    let answer = count(&server, "ann%2F..%2Fbob", &odd).await;
    assert_eq!((answer.status, &answer.body["userName"]), (200, &json!("ann/../bob")), "a name like any other");
    for other in ["ann", "bob"] {
        assert_eq!(count(&server, other, &odd).await.status, 403);
    }
    let unfit = secretly(&anns_but(json!({ "sub": " ann" })));
    assert_eq!(count(&server, "%20ann", &unfit).await.status, 400, "a name that this service does not take");
}

#[tokio::test]
async fn an_administrator_speaks_for_every_user_and_alone_sets_limits() {
    let server = served(by_secret()).await;
    let path = "/v1/users/ann/limit";
    let body = Some(json!({ "limit": 5 }));
    for claims in [anns(), anns_but(json!({ "sub": "bob" }))] {
        for (method, body) in [("PUT", body.clone()), ("PUT", Some(json!("nonsense"))), ("DELETE", None)] {
            assert_eq!(of(&server, method, path, claims.clone(), body).await.status, 403, "{method} by {claims}");
        }
    }
    assert_eq!(of(&server, "PUT", path, admin(), body).await.status, 200);
    let limit = of(&server, "GET", path, anns(), None).await;
    assert_eq!((&limit.body["limit"], &limit.body["source"]), (&json!(5), &json!("user")));
    assert_eq!(of(&server, "DELETE", path, admin(), None).await.status, 204);
    assert_eq!(of(&server, "POST", "/v1/users/ann/streams", admin(), None).await.status, 201);
    assert_eq!(of(&server, "GET", "/v1/users/ann/streams", admin(), None).await.body["count"], 1);
}

#[tokio::test]
async fn a_scope_counts_whole_in_each_of_its_spellings() {
    let server = served(by_secret()).await;
    for scopes in [
        json!({ "scope": "streams:admin" }),
        json!({ "scope": ["openid", "streams:admin"] }),
        json!({ "scp": ["streams:admin"] }),
        json!({ "scp": "a streams:admin b" }),
        json!({ "scope": "openid", "scp": ["streams:admin"] }),
    ] {
        assert_eq!(
            of(&server, "GET", "/v1/users/bob/limit", anns_but(scopes.clone()), None).await.status,
            200,
            "{scopes}"
        );
    }
    for scopes in [
        json!({ "scope": "" }),
        json!({ "scope": "streams:administrator" }),
        json!({ "scope": "xstreams:admin" }),
        json!({ "scope": "Streams:Admin" }),
        json!({ "scope": "streams: admin" }),
        json!({ "scope": "streams:admin,openid" }),
        json!({ "scope": "openid\tstreams:admin" }),
        json!({ "scope": ["openid streams:admin"] }),
        json!({ "scope": [["streams:admin"]] }),
        json!({ "scope": { "streams:admin": true } }),
        json!({ "scope": true }),
        json!({ "scopes": "streams:admin" }),
        json!({ "permissions": ["streams:admin"] }),
        json!({ "roles": ["streams:admin"] }),
    ] {
        assert_eq!(
            of(&server, "GET", "/v1/users/bob/limit", anns_but(scopes.clone()), None).await.status,
            403,
            "{scopes}"
        );
    }
}

#[tokio::test]
async fn the_limit_that_a_token_says_holds_wherever_a_limit_shows() {
    let server = served(by_secret()).await;
    let limited = |limit: Value| anns_but(json!({ "max_streams": limit }));
    of(&server, "PUT", "/v1/users/ann/limit", admin(), Some(json!({ "limit": 5 }))).await;
    let streams = "/v1/users/ann/streams";
    let started = of(&server, "POST", streams, limited(json!(1)), None).await;
    assert_eq!((started.status, &started.body["limit"]), (201, &json!(1)));
    let denied = of(&server, "POST", streams, limited(json!(1)), None).await;
    assert_eq!((denied.status, &denied.body["limit"], &denied.body["count"]), (409, &json!(1), &json!(1)));
    for path in [streams, "/v1/users/ann/streams/count"] {
        let seen = of(&server, "GET", path, limited(json!("2")), None).await;
        assert_eq!((&seen.body["limit"], &seen.body["remaining"]), (&json!(2), &json!(1)), "{path}");
    }
    let limit = of(&server, "GET", "/v1/users/ann/limit", limited(json!(2)), None).await;
    assert_eq!((&limit.body["limit"], &limit.body["source"]), (&json!(2), &json!("token")));
    let device = of(&server, "POST", streams, limited(json!(2)), Some(json!({ "deviceId": "tv" }))).await;
    assert_eq!((device.status, &device.body["limit"]), (201, &json!(2)));

    let without = of(&server, "GET", "/v1/users/ann/limit", anns(), None).await;
    assert_eq!(
        (&without.body["limit"], &without.body["source"]),
        (&json!(5), &json!("user")),
        "what is stored stays"
    );
}

#[tokio::test]
async fn a_repeated_start_is_the_same_with_another_limit_in_its_token() {
    let server = served(by_secret()).await;
    let mut ids = Vec::new();
    for limit in [1, 7] {
        let token = secretly(&anns_but(json!({ "max_streams": limit })));
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str()), ("idempotency-key", "play-1")];
        let answer = server.send("POST", "/v1/users/ann/streams", &headers, Vec::new()).await;
        ids.push(answer.body["streamId"].clone());
        assert_eq!(answer.body["limit"], limit);
    }
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn an_administrators_own_limit_is_nobody_elses() {
    let server = served(by_secret()).await;
    let claims = anns_but(json!({ "scope": "streams:admin", "max_streams": 9 }));
    let token = secretly(&claims);
    let source = async |user: &str| {
        let answer = call(&server, "GET", &format!("/v1/users/{user}/limit"), &token).await;
        (answer.body["limit"].clone(), answer.body["source"].clone())
    };
    assert_eq!(source("ann").await, (json!(9), json!("token")));
    assert_eq!(source("bob").await, (json!(3), json!("default")));
}

#[tokio::test]
async fn a_limit_that_is_none_spoils_the_token_and_names_its_claim() {
    let server = served(by_secret()).await;
    for limit in [
        json!(0),
        json!(51),
        json!(-1),
        json!(1.5),
        json!(3.0),
        json!("0"),
        json!("51"),
        json!(""),
        json!("+3"),
        json!("3.0"),
        json!(" 3"),
        json!("three"),
        json!("٣"),
        json!(true),
        json!([3]),
        json!({ "max": 3 }),
        json!(1e300),
    ] {
        let detail = assert_refused(
            &count(&server, "ann", &secretly(&anns_but(json!({ "max_streams": limit })))).await,
            "a limit",
        );
        assert!(detail.contains("max_streams"), "{limit}: {detail}");
    }
    let mut null = anns();
    null["max_streams"] = Value::Null;
    assert_refused(&count(&server, "ann", &secretly(&null)).await, "null");
}
