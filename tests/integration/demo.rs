//! The demo page: whole, from this binary alone, and only where it is wanted.

use std::collections::BTreeSet;

use stream_manager::config::Config;

use crate::server::{Setup, TestServer};

/// What a text of HTML, CSS or JavaScript loads, as it names it.
fn loads(text: &str) -> Vec<String> {
    let code = |line: &&str| !["//", "/*", "*"].iter().any(|comment| line.trim_start().starts_with(comment));
    let text = &text.lines().filter(code).collect::<Vec<_>>().join("\n");
    let marks = ["src=\"", "href=\"", "from \"", "import \"", "import(\"", "url("];
    let found = marks.iter().flat_map(|mark| text.split(mark).skip(1));
    let named = found.map(|rest| rest.split(['"', ')']).next().unwrap_or_default().to_owned());
    named.filter(|name| !name.starts_with("data:") && !name.starts_with('#')).collect()
}

#[tokio::test]
async fn the_page_and_all_that_it_loads_come_from_this_service() {
    let server = TestServer::start().await;
    let page = server.call("GET", "/demo").await;
    assert_eq!((page.status, page.headers["content-type"].as_str()), (200, "text/html; charset=utf-8"));
    let policy = &page.headers["content-security-policy"];
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    let (mut waiting, mut seen) = (loads(page.body.as_str().expect("text")), BTreeSet::new());
    while let Some(name) = waiting.pop() {
        let file = name.rsplit('/').next().expect("a name").to_owned();
        assert!(name == format!("demo/{file}") || name == format!("./{file}"), "{name} is from elsewhere");
        if seen.insert(file.clone()) {
            let answer = server.call("GET", &format!("/demo/{file}")).await;
            assert_eq!(answer.status, 200, "{file}");
            assert!(
                ["text/css; charset=utf-8", "text/javascript; charset=utf-8"]
                    .contains(&answer.headers["content-type"].as_str())
            );
            waiting.extend(loads(answer.body.as_str().expect("text")));
        }
    }
    assert!(seen.contains("player.js") && seen.contains("demo.css"), "{seen:?}");
    assert_eq!(server.call("GET", "/demo/no-such.js").await.status, 404);
    assert_eq!(server.call("POST", "/demo").await.status, 405);
}

#[tokio::test]
async fn without_it_there_is_no_such_route() {
    let server = TestServer::set_up(Setup { demo: false, ..Setup::default() }).await;
    for path in ["/demo", "/demo/demo.js"] {
        assert_eq!(server.call("GET", path).await.body["code"], "route-not-found");
    }
}

#[test]
fn it_is_there_on_loopback_unless_it_is_set_otherwise() {
    for (bind, setting, there) in [
        ("127.0.0.1:8080", "", true),
        ("[::1]:8080", "", true),
        ("0.0.0.0:8080", "", false),
        ("0.0.0.0:8080", "on", true),
        ("127.0.0.1:8080", "off", false),
    ] {
        let variables = [("STREAM_MANAGER__SERVER__BIND", bind), ("STREAM_MANAGER__SERVER__DEMO", setting)];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = Config::load(None, variables.into()).expect("valid");
        assert_eq!(config.demo(), there, "{bind} {setting}");
    }
}
