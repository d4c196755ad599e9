//! The API, and the pages beside it. Matches no path beyond its beginning: poem does.

use poem::endpoint::BoxEndpoint;
use poem::{Endpoint, Request, Response, Result};

use super::auth::caller::Access;

pub struct Endpoints {
    /// With what the operations are told of callers.
    pub operations: Option<(Access, BoxEndpoint<'static>)>,
    pub pages: BoxEndpoint<'static>,
}

impl Endpoint for Endpoints {
    type Output = Response;

    /// By hand and not by nesting poem's routes, which would match the path twice and move the request through four more
    /// futures on the heap.
    async fn call(&self, mut request: Request) -> Result<Response> {
        let path = request.uri().path();
        let of_the_api = path.starts_with("/v1/") || path == "/health" || path.starts_with("/health/");
        match &self.operations {
            Some((access, operations)) if of_the_api => {
                request.set_data(access.clone());
                operations.call(request).await
            }
            _ => self.pages.call(request).await,
        }
    }
}
