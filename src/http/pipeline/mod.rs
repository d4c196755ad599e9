//! What every request passes before its operation: routing, request context, load shedding, CORS, deadline.

pub mod app;
pub mod coalesce;
pub mod context;
pub mod cors;
pub mod detach;
pub mod load_shedding;
pub mod routes;
mod trace_attributes;
