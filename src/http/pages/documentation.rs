//! The OpenAPI document and Swagger UI.

use std::sync::LazyLock;

use poem::endpoint::make_sync;
use poem::http::{HeaderName, StatusCode, header};
use poem::{EndpointExt, Response};

use super::static_document::StaticDocument;
use crate::http::api::openapi::{Document, DocumentError, openapi_document};
use crate::http::pipeline::routes::Page;

/// Headers of the Swagger UI page. They allow inline scripts, because the page contains its scripts. Users enter tokens there,
/// so the page must not call other hosts or be framed.
const SWAGGER_UI: [(HeaderName, &str); 2] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
];

/// The OpenAPI document in its formats, compressed.
struct Documents {
    json: StaticDocument,
    yaml: StaticDocument,
    swagger_ui: StaticDocument,
}

static DOCUMENTS: LazyLock<Result<Documents, DocumentError>> = LazyLock::new(|| {
    let Document { json, yaml, swagger_ui } = openapi_document()?;
    Ok(Documents {
        json: StaticDocument::new(&[(header::CONTENT_TYPE, "application/json")], json),
        yaml: StaticDocument::new(&[(header::CONTENT_TYPE, "application/yaml")], yaml),
        swagger_ui: StaticDocument::new(&SWAGGER_UI, swagger_ui),
    })
});

/// The pages with the OpenAPI document. With `swagger`, also Swagger UI, and a redirect from `/` to it. Compresses the
/// documents now, so that no request has to wait for the compression.
///
/// # Errors
/// The OpenAPI document cannot be written.
pub(crate) fn pages(swagger: bool) -> Result<Vec<Page>, &'static DocumentError> {
    let documents = DOCUMENTS.as_ref()?;
    let mut pages = vec![page("/openapi.json", &documents.json), page("/openapi.yaml", &documents.yaml)];
    if swagger {
        let redirect = make_sync(|_| {
            Response::builder().status(StatusCode::FOUND).header(header::LOCATION, "/swagger").finish()
        });
        pages.push(Page { name: "documentation", path: "/", endpoint: redirect.boxed() });
        pages.push(page("/swagger", &documents.swagger_ui));
    }
    Ok(pages)
}

fn page(path: &'static str, document: &'static StaticDocument) -> Page {
    Page { name: "documentation", path, endpoint: make_sync(|request| document.respond(&request)).boxed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn swagger_ui_embeds_the_served_document() {
        let mut texts = Vec::new();
        for path in ["/openapi.json", "/swagger"] {
            let page = pages(true).unwrap().into_iter().find(|page| page.path == path).unwrap();
            let mut response = page.endpoint.call(poem::Request::default()).await.unwrap();
            texts.push(response.take_body().into_string().await.unwrap());
        }
        assert!(texts[1].contains(&format!("let spec = {};", texts[0])));
    }
}
