//! JSON response bodies, written by serde. poem-openapi's own `Json` first builds a tree of values. That would double the CPU
//! time that a heartbeat takes outside poem. A test in [`crate::http::api::model`] checks that both write the same JSON.

use poem::http::StatusCode;
use poem::{IntoResponse, Response};
use poem_openapi::payload::Payload;
use poem_openapi::registry::{MetaSchemaRef, Registry};
use poem_openapi::types::Type;
use serde::Serialize;

pub(crate) struct Json<T>(pub(crate) T);

impl<T: Type> Payload for Json<T> {
    // The OpenAPI document omits the `charset` parameter of the header, because some client generators do not accept it.
    const CONTENT_TYPE: &'static str = "application/json";

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

const CONTENT_TYPE: &str = "application/json; charset=utf-8";

/// Initial capacity of a body. It fits one stream without reallocation.
const INITIAL_CAPACITY: usize = 512;

impl<T: Serialize + Type> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut body = Vec::with_capacity(INITIAL_CAPACITY);
        match serde_json::to_writer(&mut body, &self.0) {
            Ok(()) => Response::builder().content_type(CONTENT_TYPE).body(body),
            // Unreachable, because only maps with non-string keys fail, and the response models have none.
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into(),
        }
    }
}
