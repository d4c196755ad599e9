//! The JSON of requests and responses. Every doc comment on these types and fields becomes a description in the OpenAPI
//! document.

mod examples;
pub(crate) mod grants;
mod json_text;
pub(crate) mod problem;
pub(crate) mod problem_schemas;
pub(crate) mod requests;
pub(crate) mod responses;
mod rfc3339;
