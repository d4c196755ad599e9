//! Routes outside the API: documentation, the demo and the metrics.

pub(crate) mod demo;
pub(crate) mod documentation;
pub(crate) mod exposition;
mod static_document;

/// The optional pages of the public server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// Whether to serve `/demo`.
    pub demo: bool,
    /// Whether to serve `/swagger`, and to redirect `/` to it.
    pub swagger: bool,
}
