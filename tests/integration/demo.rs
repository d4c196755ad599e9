//! The demo page, which loads no file from another host, and the settings that enable the demo and Swagger UI.

use std::collections::BTreeSet;

use stream_manager::http::pages::Pages;

use crate::settings::load;
use crate::test_app::{TestApp, TestServer};

/// The files that an HTML page, a stylesheet or a script loads.
fn loaded_files(text: &str) -> Vec<String> {
    let code = |line: &&str| !["//", "/*", "*"].iter().any(|comment| line.trim_start().starts_with(comment));
    let text = &text.lines().filter(code).collect::<Vec<_>>().join("\n");
    let marks = ["src=\"", "href=\"", "from \"", "import \"", "import(\"", "url("];
    let found = marks.iter().flat_map(|mark| text.split(mark).skip(1));
    let named = found.map(|rest| rest.split(['"', ')']).next().unwrap_or_default().to_owned());
    named.filter(|name| !name.starts_with("data:") && !name.starts_with('#')).collect()
}

#[tokio::test]
async fn the_page_loads_only_files_of_this_service() {
    let server = TestServer::start().await;
    let page = server.call("GET", "/demo").await;
    assert_eq!((page.status, page.headers["content-type"].as_str()), (200, "text/html; charset=utf-8"));
    let policy = &page.headers["content-security-policy"];
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    let (mut waiting, mut seen) = (loaded_files(page.text()), BTreeSet::new());
    while let Some(name) = waiting.pop() {
        let file = name.rsplit('/').next().unwrap().to_owned();
        assert!(name == format!("demo/{file}") || name == format!("./{file}"), "{name} is not from this service");
        if seen.insert(file.clone()) {
            let response = server.call("GET", &format!("/demo/{file}")).await;
            assert_eq!(response.status, 200, "{file}");
            let content_type = response.headers["content-type"].as_str();
            assert!(["text/css; charset=utf-8", "text/javascript; charset=utf-8"].contains(&content_type), "{file}");
            waiting.extend(loaded_files(response.text()));
        }
    }
    assert!(seen.contains("player.js") && seen.contains("demo.css"), "{seen:?}");
    assert_eq!(server.call("GET", "/demo/no-such.js").await.status, 404);
    assert_eq!(server.call("POST", "/demo").await.status, 405);
}

#[tokio::test]
async fn without_the_demo_its_routes_are_not_found() {
    let server = TestApp { pages: Pages { demo: false, swagger: true }, ..TestApp::default() }.serve().await;
    for path in ["/demo", "/demo/demo.js"] {
        assert_eq!(server.call("GET", path).await.body["code"], "route-not-found");
    }
}

#[tokio::test]
async fn without_swagger_only_the_openapi_documents_remain() {
    let server = TestApp { pages: Pages { demo: true, swagger: false }, ..TestApp::default() }.serve().await;
    for path in ["/swagger", "/"] {
        server.call("GET", path).await.assert_problem(404, "route-not-found", path);
    }
    for path in ["/openapi.json", "/openapi.yaml", "/demo"] {
        assert_eq!(server.call("GET", path).await.status, 200, "{path}");
    }
}

#[test]
fn pages_are_available_as_their_settings_say() {
    let (public, loopback) = ("0.0.0.0:8080", "127.0.0.1:8080");
    for (bind, demo, swagger, expected) in [
        (loopback, "", "", (true, true)),
        ("[::1]:8080", "", "loopback", (true, true)),
        ("[::ffff:127.0.0.1]:8080", "", "loopback", (true, true)),
        (public, "", "", (false, true)),
        (public, "on", "loopback", (true, false)),
        (loopback, "off", "off", (false, false)),
    ] {
        let variables = [("__SERVER__BIND", bind), ("__SERVER__DEMO", demo), ("__SERVER__SWAGGER", swagger)];
        let pages = load(&variables).unwrap().pages();
        assert_eq!((pages.demo, pages.swagger), expected, "{bind} {demo} {swagger}");
    }
}
