//! The operations of the API: request extractors, handlers, response models, problems.

pub(crate) mod caller;
mod document;
pub(crate) mod extract;
pub(crate) mod grants;
pub mod health;
pub(crate) mod json;
pub(crate) mod model;
pub mod openapi;
pub mod problem_code;
pub mod problems;
pub mod rate_limits;
pub(crate) mod responses;
pub(crate) mod route_context;
pub(crate) mod streams;
pub(crate) mod tags;
pub(crate) mod users;
