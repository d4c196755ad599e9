//! The operations of the API: request extractors, handlers, response models, problems.

pub mod caller;
pub mod extract;
pub mod health;
pub mod json;
pub mod limits;
pub mod model;
pub mod openapi;
pub mod problems;
pub mod rate_limits;
pub mod responses;
pub mod route_context;
pub mod streams;
