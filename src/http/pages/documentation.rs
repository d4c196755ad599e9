//! The OpenAPI document and Swagger UI.

use hyper::body::Bytes;
use poem::endpoint::make_sync;
use poem::http::{HeaderName, StatusCode, header};
use poem::{Endpoint, EndpointExt, Response};

use crate::http::api::openapi::{deny_additional_properties, openapi_service};
use crate::http::pipeline::routes::Page;

/// Swagger UI is one file that contains its scripts. Users enter tokens there, so it may not call other hosts or be framed.
const SWAGGER_UI: [(HeaderName, &str); 2] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
];

pub(crate) fn pages() -> Vec<Page> {
    let service = openapi_service();
    let [json, yaml, html] = [service.spec(), service.spec_yaml(), service.swagger_ui_html()]
        .map(|text| deny_additional_properties(&text));
    let page = |path, endpoint| Page { name: "documentation", path, endpoint };
    let redirect =
        make_sync(|_| Response::builder().status(StatusCode::FOUND).header(header::LOCATION, "/swagger").finish());
    vec![
        page("/", redirect.boxed()),
        page("/openapi.json", text(&[(header::CONTENT_TYPE, "application/json")], json).boxed()),
        page("/openapi.yaml", text(&[(header::CONTENT_TYPE, "application/yaml")], yaml).boxed()),
        page("/swagger", text(&SWAGGER_UI, html).boxed()),
    ]
}

/// A constant text. Responses share its bytes: Swagger UI has over a megabyte of them.
fn text(headers: &'static [(HeaderName, &'static str)], text: String) -> impl Endpoint<Output = Response> {
    let bytes = Bytes::from(text);
    make_sync(move |_| {
        let response =
            headers.iter().fold(Response::builder(), |response, (name, value)| response.header(name, *value));
        response.body(bytes.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn swagger_ui_embeds_the_served_document() {
        let mut texts = Vec::new();
        for path in ["/openapi.json", "/swagger"] {
            let page = pages().into_iter().find(|page| page.path == path).unwrap();
            let mut response = page.endpoint.call(poem::Request::default()).await.unwrap();
            texts.push(response.take_body().into_string().await.unwrap());
        }
        assert!(texts[0].contains("\"additionalProperties\": false"));
        assert!(texts[1].contains(&format!("let spec = {};", texts[0])));
    }
}
