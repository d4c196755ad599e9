//! The demo page: static files that are compiled into the binary. They include the source of the player library in
//! `clients/web`. The page calls only the public API.

use std::collections::HashMap;
use std::sync::LazyLock;

use poem::endpoint::make_sync;
use poem::error::NotFoundError;
use poem::http::header;
use poem::{EndpointExt, Error};

use super::static_document::StaticDocument;
use crate::http::api::route_context::RouteContext;
use crate::http::pipeline::routes::Page;

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, media type and content of each file.
const CONTENTS: [(&str, &str, &str); 29] = [
    ("demo.css", "text/css; charset=utf-8", include_str!("demo/demo.css")),
    ("animation.js", SCRIPT, include_str!("demo/animation.js")),
    ("demo.js", SCRIPT, include_str!("demo/demo.js")),
    ("device-card.js", SCRIPT, include_str!("demo/device-card.js")),
    ("network.js", SCRIPT, include_str!("demo/network.js")),
    ("overlays.js", SCRIPT, include_str!("demo/overlays.js")),
    ("request-log.js", SCRIPT, include_str!("demo/request-log.js")),
    ("abandoned.js", SCRIPT, include_str!("../../../clients/web/src/abandoned.js")),
    ("attach.js", SCRIPT, include_str!("../../../clients/web/src/attach.js")),
    ("backoff.js", SCRIPT, include_str!("../../../clients/web/src/backoff.js")),
    ("client.js", SCRIPT, include_str!("../../../clients/web/src/client.js")),
    ("description.js", SCRIPT, include_str!("../../../clients/web/src/description.js")),
    ("device.js", SCRIPT, include_str!("../../../clients/web/src/device.js")),
    ("emitter.js", SCRIPT, include_str!("../../../clients/web/src/emitter.js")),
    ("grace.js", SCRIPT, include_str!("../../../clients/web/src/grace.js")),
    ("grant.js", SCRIPT, include_str!("../../../clients/web/src/grant.js")),
    ("labels.js", SCRIPT, include_str!("../../../clients/web/src/labels.js")),
    ("lifecycle.js", SCRIPT, include_str!("../../../clients/web/src/lifecycle.js")),
    ("media-grants.js", SCRIPT, include_str!("../../../clients/web/src/media-grants.js")),
    ("options.js", SCRIPT, include_str!("../../../clients/web/src/options.js")),
    ("platform.js", SCRIPT, include_str!("../../../clients/web/src/platform.js")),
    ("playback.js", SCRIPT, include_str!("../../../clients/web/src/playback.js")),
    ("player.js", SCRIPT, include_str!("../../../clients/web/src/player.js")),
    ("policy.js", SCRIPT, include_str!("../../../clients/web/src/policy.js")),
    ("presence.js", SCRIPT, include_str!("../../../clients/web/src/presence.js")),
    ("responses.js", SCRIPT, include_str!("../../../clients/web/src/responses.js")),
    ("session.js", SCRIPT, include_str!("../../../clients/web/src/session.js")),
    ("stops.js", SCRIPT, include_str!("../../../clients/web/src/stops.js")),
    ("uuid.js", SCRIPT, include_str!("../../../clients/web/src/uuid.js")),
];

/// The `Content-Security-Policy` of the page. Everything is loaded from this origin. Videos are canvas streams
/// (`mediastream:`).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     media-src blob: mediastream:; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static PAGE: LazyLock<StaticDocument> = LazyLock::new(|| {
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)];
    StaticDocument::new(&headers, include_str!("demo/index.html"))
});

static FILES: LazyLock<HashMap<&str, StaticDocument>> = LazyLock::new(|| {
    let file = |(name, media_type, text)| (name, StaticDocument::new(&[(header::CONTENT_TYPE, media_type)], text));
    CONTENTS.map(file).into()
});

/// The pages of the demo. Compresses the files now, so that no request has to wait for the compression.
pub(crate) fn pages() -> [Page; 2] {
    let (page, files) = (LazyLock::force(&PAGE), LazyLock::force(&FILES));
    let file = make_sync(|request| {
        let name = RouteContext::path_param(&request, "file").unwrap_or_default();
        let file = files.get(&*name).ok_or_else(|| Error::from(NotFoundError))?;
        Ok::<_, Error>(file.respond(&request))
    });
    [("/demo", make_sync(|request| page.respond(&request)).boxed()), ("/demo/{file}", file.boxed())]
        .map(|(path, endpoint)| Page { name: "documentation", path, endpoint })
}
