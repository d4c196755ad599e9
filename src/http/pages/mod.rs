//! Routes outside the API: documentation, the demo and the metrics.

pub(crate) mod demo;
pub(crate) mod documentation;
pub(crate) mod exposition;
