//! The demo page: files inside the binary, and the player of `clients/web` as its sources are. The page calls the API as any
//! player does; nothing here knows of it.

use poem::endpoint::make_sync;
use poem::error::NotFoundError;
use poem::http::header;
use poem::{Endpoint, Error, Response};

use crate::http::api::route_context::RouteContext;

const SCRIPT: &str = "text/javascript; charset=utf-8";

const FILES: [(&str, &str, &str); 16] = [
    ("demo.css", "text/css; charset=utf-8", include_str!("demo/demo.css")),
    ("calls.js", SCRIPT, include_str!("demo/calls.js")),
    ("card.js", SCRIPT, include_str!("demo/card.js")),
    ("demo.js", SCRIPT, include_str!("demo/demo.js")),
    ("picture.js", SCRIPT, include_str!("demo/picture.js")),
    ("screens.js", SCRIPT, include_str!("demo/screens.js")),
    ("answers.js", SCRIPT, include_str!("../../../clients/web/src/answers.js")),
    ("attach.js", SCRIPT, include_str!("../../../clients/web/src/attach.js")),
    ("client.js", SCRIPT, include_str!("../../../clients/web/src/client.js")),
    ("device.js", SCRIPT, include_str!("../../../clients/web/src/device.js")),
    ("emitter.js", SCRIPT, include_str!("../../../clients/web/src/emitter.js")),
    ("page.js", SCRIPT, include_str!("../../../clients/web/src/page.js")),
    ("platform.js", SCRIPT, include_str!("../../../clients/web/src/platform.js")),
    ("playback.js", SCRIPT, include_str!("../../../clients/web/src/playback.js")),
    ("player.js", SCRIPT, include_str!("../../../clients/web/src/player.js")),
    ("session.js", SCRIPT, include_str!("../../../clients/web/src/session.js")),
];

const PAGE: &str = include_str!("demo/index.html");

/// It talks to its own service and loads nothing from elsewhere; its videos are drawn by itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     media-src blob: mediastream:; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub fn page() -> impl Endpoint<Output = Response> {
    make_sync(|_| {
        let page = Response::builder().content_type("text/html; charset=utf-8");
        page.header(header::CONTENT_SECURITY_POLICY, POLICY).body(PAGE)
    })
}

/// For `/demo/{file}`.
pub fn file() -> impl Endpoint<Output = Response> {
    make_sync(|request| {
        let name = RouteContext::parameter(&request, "file").unwrap_or_default();
        let (_, media_type, text) =
            FILES.iter().find(|(known, ..)| *known == name).ok_or_else(|| Error::from(NotFoundError))?;
        Ok::<_, Error>(Response::builder().content_type(media_type).body(*text))
    })
}
