//! The OpenAPI document, Swagger UI and the demo: entity tags, revalidation and compression.

use std::io::Read;

use flate2::read::GzDecoder;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, IF_NONE_MATCH, VARY};
use reqwest::{Client, Method, StatusCode};
use stream_manager::http::pipeline::cors::CorsSettings;

use crate::test_app::{TestApp, TestServer};

const DOCUMENTS: [&str; 6] =
    ["/openapi.json", "/openapi.yaml", "/swagger", "/demo", "/demo/demo.css", "/demo/player.js"];

struct Fetched {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Fetched {
    fn etag(&self) -> &str {
        self.headers["etag"].to_str().unwrap()
    }
}

async fn fetch(server: &TestServer, method: Method, path: &str, headers: &[(&str, &str)]) -> Fetched {
    let mut request = Client::new().request(method, format!("http://{}{path}", server.address));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    assert_eq!(headers["cache-control"], "no-cache", "{path}");
    assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
    Fetched { status, headers, body: response.bytes().await.unwrap().to_vec() }
}

async fn get(server: &TestServer, path: &str, headers: &[(&str, &str)]) -> Fetched {
    fetch(server, Method::GET, path, headers).await
}

fn decompressed(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

#[tokio::test]
async fn unchanged_documents_are_revalidated_without_a_body() {
    let server = TestServer::start().await;
    for path in DOCUMENTS {
        let first = get(&server, path, &[]).await;
        let etag = first.etag();
        assert!(first.status == 200 && etag.starts_with('"') && etag.len() > 20, "{path}: {etag}");
        assert_eq!(get(&server, path, &[]).await.etag(), etag, "{path}");
        for condition in [etag, &format!("W/{etag}"), &format!("\"other\", {etag}"), "*"] {
            let second = get(&server, path, &[(IF_NONE_MATCH.as_str(), condition)]).await;
            assert_eq!((second.status.as_u16(), second.body.len()), (304, 0), "{path} {condition}");
            assert_eq!((second.etag(), &second.headers[VARY]), (etag, &first.headers[VARY]), "{path}");
        }
        for condition in ["\"other\"", "nonsense", etag.trim_matches('"')] {
            let changed = get(&server, path, &[(IF_NONE_MATCH.as_str(), condition)]).await;
            assert_eq!((changed.status.as_u16(), &changed.body), (200, &first.body), "{path} {condition}");
        }
    }
}

#[tokio::test]
async fn documents_are_compressed_if_the_client_accepts_it() {
    let server = TestServer::start().await;
    for path in DOCUMENTS {
        let plain = get(&server, path, &[]).await;
        let gzip = get(&server, path, &[(ACCEPT_ENCODING.as_str(), "br, gzip")]).await;
        assert_eq!(gzip.status, 200, "{path}");
        assert_eq!(gzip.headers[CONTENT_ENCODING], "gzip", "{path}");
        assert!(!plain.headers.contains_key(CONTENT_ENCODING), "{path}");
        assert!(gzip.body.len() < plain.body.len() && decompressed(&gzip.body) == plain.body, "{path}");
        assert!([&plain, &gzip].iter().all(|document| document.headers[VARY] == "accept-encoding"), "{path}");
        assert_eq!(plain.headers["content-type"], gzip.headers["content-type"], "{path}");
        // The plain and the compressed document must not share an entity tag.
        let mixed = [(ACCEPT_ENCODING.as_str(), "gzip"), (IF_NONE_MATCH.as_str(), plain.etag())];
        assert_eq!(get(&server, path, &mixed).await.status, 200, "{path}");
        let same = [(ACCEPT_ENCODING.as_str(), "gzip"), (IF_NONE_MATCH.as_str(), gzip.etag())];
        assert_eq!(get(&server, path, &same).await.status, 304, "{path}");
    }
}

#[tokio::test]
async fn a_head_request_returns_the_headers_of_the_document() {
    let server = TestServer::start().await;
    for path in DOCUMENTS {
        for headers in [&[][..], &[(ACCEPT_ENCODING.as_str(), "gzip")]] {
            let (get, head) = (get(&server, path, headers).await, fetch(&server, Method::HEAD, path, headers).await);
            assert_eq!((head.status.as_u16(), head.body.len()), (200, 0), "{path}");
            for name in ["etag", "content-type", "vary"] {
                assert_eq!(head.headers[name], get.headers[name], "{path} {name}");
            }
            assert_eq!(head.headers[CONTENT_LENGTH], get.body.len().to_string(), "{path}");
            assert_eq!(head.headers.get(CONTENT_ENCODING), get.headers.get(CONTENT_ENCODING), "{path}");
        }
    }
}

#[tokio::test]
async fn documents_vary_by_origin_and_by_encoding() {
    let cors = CorsSettings { allowed_origins: vec!["https://tv.example.com".to_owned()], allowed_headers: vec![] };
    let server = TestApp { cors, ..TestApp::default() }.serve().await;
    let document = get(&server, "/openapi.json", &[("origin", "https://tv.example.com")]).await;
    let vary: Vec<_> = document.headers.get_all(VARY).iter().collect();
    assert_eq!(vary, ["accept-encoding", "origin"]);
    assert_eq!(document.headers["access-control-allow-origin"], "https://tv.example.com");
}
