//! The OpenAPI document and Swagger UI.

use std::{io, iter};

use futures_util::stream;
use hyper::body::Bytes;
use poem::endpoint::make_sync;
use poem::http::{HeaderName, StatusCode, header};
use poem::{Body, Endpoint, EndpointExt, Response};

use crate::http::api::openapi::openapi_service;
use crate::http::pipeline::routes::Page;

/// Headers of the Swagger UI page. Its scripts are inline. Users enter tokens there, so the page must not call other
/// hosts or be framed.
const SWAGGER_UI: [(HeaderName, &str); 2] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
];

/// The pages with the OpenAPI document. With `swagger`, also Swagger UI, and `/`, which redirects to it.
pub(crate) fn pages(swagger: bool) -> Vec<Page> {
    let service = openapi_service();
    let page = |path, endpoint| Page { name: "documentation", path, endpoint };
    let [json, yaml] = [service.spec(), service.spec_yaml()];
    let mut pages = vec![
        page("/openapi.json", text(&[(header::CONTENT_TYPE, "application/json")], json).boxed()),
        page("/openapi.yaml", text(&[(header::CONTENT_TYPE, "application/yaml")], yaml).boxed()),
    ];
    if swagger {
        let html = service.swagger_ui_html();
        let redirect = make_sync(|_| {
            Response::builder().status(StatusCode::FOUND).header(header::LOCATION, "/swagger").finish()
        });
        pages.push(page("/", redirect.boxed()));
        pages.push(page("/swagger", text(&SWAGGER_UI, html).boxed()));
    }
    pages
}

/// An endpoint that returns a constant text. All responses share its bytes.
fn text(headers: &'static [(HeaderName, &'static str)], text: String) -> impl Endpoint<Output = Response> {
    let bytes = Bytes::from(text);
    make_sync(move |_| {
        let response =
            headers.iter().fold(Response::builder(), |response, (name, value)| response.header(name, *value));
        response.header(header::CONTENT_LENGTH, bytes.len()).body(in_frames(bytes.clone()))
    })
}

/// Maximum size of a body frame. The server copies each frame into the connection's write buffer. If Swagger UI were sent
/// as one frame, each slow client would hold a copy of more than a megabyte.
const FRAME_BYTES: usize = 16 * 1024;

fn in_frames(mut bytes: Bytes) -> Body {
    let next = move || (!bytes.is_empty()).then(|| Ok::<_, io::Error>(bytes.split_to(FRAME_BYTES.min(bytes.len()))));
    Body::from_bytes_stream(stream::iter(iter::from_fn(next)))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use http_body_util::combinators::BoxBody;

    use super::*;

    #[tokio::test]
    async fn swagger_ui_embeds_the_served_document() {
        let mut texts = Vec::new();
        for path in ["/openapi.json", "/swagger"] {
            let page = pages(true).into_iter().find(|page| page.path == path).unwrap();
            let mut response = page.endpoint.call(poem::Request::default()).await.unwrap();
            texts.push(response.take_body().into_string().await.unwrap());
        }
        assert!(texts[1].contains(&format!("let spec = {};", texts[0])));
    }

    #[tokio::test]
    async fn large_pages_are_sent_in_small_frames() {
        let mut body = BoxBody::from(in_frames(Bytes::from(vec![b'x'; 40_000])));
        let mut frames = Vec::new();
        while let Some(frame) = body.frame().await {
            frames.push(frame.unwrap().into_data().unwrap().len());
        }
        assert_eq!(frames, [16_384, 16_384, 7_232]);
    }
}
