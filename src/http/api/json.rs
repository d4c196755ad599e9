//! A JSON answer. In place of poem-openapi's own, which makes a tree of maps first and text of that: half of what a heartbeat
//! cost beyond the framework. Knows no field: the types in [`crate::http::api::model`] name them for serde and for the document, and a test there
//! holds the two together.

use poem::http::StatusCode;
use poem::{IntoResponse, Response};
use poem_openapi::payload::Payload;
use poem_openapi::registry::{MetaSchemaRef, Registry};
use poem_openapi::types::Type;
use serde::Serialize;

pub struct Json<T>(pub T);

impl<T: Type> Payload for Json<T> {
    const CONTENT_TYPE: &'static str = "application/json; charset=utf-8";

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

/// Holds one stream with all its names, so that its text moves only once.
const USUAL_BYTES: usize = 512;

impl<T: Serialize + Type> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut body = Vec::with_capacity(USUAL_BYTES);
        match serde_json::to_writer(&mut body, &self.0) {
            Ok(()) => Response::builder().content_type(Self::CONTENT_TYPE).body(body),
            // Not to be met: there are no maps in these types, and nothing else of JSON can fail in memory.
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into(),
        }
    }
}
