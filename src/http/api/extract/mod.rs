//! Extractors for path parameters, headers, the query and request bodies. Each extractor validates its whole input, and
//! its error names all invalid fields.
//!
//! poem-openapi's own extractors are not used: their errors contain Rust terms and omit field names, and they silently
//! use the first of repeated headers or query parameters.

pub(crate) mod body;
mod field_names;
mod json_body;
pub(crate) mod params;
pub(crate) mod path;
mod patterns;
