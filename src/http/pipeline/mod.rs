//! The request pipeline: route matching, request context, CORS, load shedding, the request body and the deadline.

pub mod app;
mod body;
mod context;
pub mod cors;
mod detach;
mod host;
pub mod load_shedding;
mod request_span;
pub(crate) mod routes;
