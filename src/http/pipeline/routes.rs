//! The route table. Each request is matched once. Dispatch, load shedding, metrics, logs and traces all use the matched
//! route. Paths, methods and operation ids come from poem-openapi's metadata; the endpoints come from its `add_routes`.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use matchit::{InsertError, Router};
use poem::endpoint::{BoxEndpoint, make_sync};
use poem::error::NotFoundError;
use poem::http::Method;
use poem::{EndpointExt, Error, Response};
use poem_openapi::OpenApi;
use thiserror::Error;

use crate::http::api::openapi::DocumentError;
use crate::http::api::problems::{Problem, ProblemCode};
use crate::http::api::route_context::PathParams;
use crate::http::pipeline::body::BodyPolicy;
use crate::http::pipeline::load_shedding::Priority;
use crate::telemetry::metrics::{Metrics, RouteMetrics};

/// poem's router is not used, because it would match the path two more times and wrap the request in five heap-allocated
/// futures.
pub(crate) struct Routes {
    paths: Router<Arc<PathRoutes>>,
    not_found: Arc<Route>,
}

/// The endpoint of one method and path.
pub(crate) struct Route {
    /// The operation id in the code, or the name of a group of pages. It labels metrics, log lines and traces.
    pub(crate) name: &'static str,
    /// The path, with parameters in braces. `None` for the 404 response.
    pub(crate) template: Option<String>,
    pub(crate) priority: Priority,
    pub(crate) body_policy: BodyPolicy,
    /// Whether the request span is enabled at `info`, because the handler logs at that level.
    pub(crate) logs_at_info: bool,
    pub(crate) metrics: Option<Arc<RouteMetrics>>,
    pub(crate) endpoint: BoxEndpoint<'static>,
}

/// A GET route that is not in the OpenAPI document.
pub(crate) struct Page {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) endpoint: BoxEndpoint<'static>,
}

/// An error in the route table, detected at startup.
#[derive(Debug, Error)]
pub enum RouteError {
    #[error("{method} {path} has no operation id")]
    NoOperationId { method: Method, path: String },
    #[error("{method} {path} is in the OpenAPI document and has no endpoint")]
    NoEndpoint { method: Method, path: String },
    #[error("an endpoint is not in the OpenAPI document: {path}")]
    NotInDocument { path: String },
    #[error("route {path}: {source}")]
    Path { path: String, source: InsertError },
    #[error(transparent)]
    Document(#[from] &'static DocumentError),
}

/// The routes of one path, by method.
struct PathRoutes {
    params: Arc<[String]>,
    methods: Vec<(Method, Arc<Route>)>,
    method_not_allowed: Arc<Route>,
}

/// The endpoints by path (in poem's syntax) and method.
type Endpoints = HashMap<String, HashMap<Method, BoxEndpoint<'static>>>;

/// The operations whose requests may log at `info`. For example, the limiter logs denied starts, evictions and erasures.
const LOGS_AT_INFO: [&str; 5] = ["start", "stop", "evict", "setLimit", "eraseUser"];

/// The route name of the 404 and 405 responses.
const UNMATCHED: &str = "other";

impl Routes {
    /// # Errors
    /// The operations of `api` and its OpenAPI document do not match, or a path is malformed or conflicts with another
    /// path.
    pub(crate) fn new<A: OpenApi>(api: A, pages: Vec<Page>, metrics: Option<&Metrics>) -> Result<Self, RouteError> {
        let mut endpoints = Endpoints::new();
        api.add_routes(&mut endpoints);
        let mut paths = Router::new();
        for path in A::meta().into_iter().flat_map(|api| api.paths) {
            let mut by_method = endpoints.remove(&poem_path_pattern(&path.path)).unwrap_or_default();
            let mut methods = Vec::new();
            for operation in path.operations {
                let (method, path) = (operation.method, &path.path);
                let Some(name) = operation.operation_id else {
                    return Err(RouteError::NoOperationId { method, path: path.clone() });
                };
                let Some(endpoint) = by_method.remove(&method) else {
                    return Err(RouteError::NoEndpoint { method, path: path.clone() });
                };
                methods.push((method, Route::new(name, Some(path.clone()), metrics, endpoint)));
            }
            if !by_method.is_empty() {
                return Err(RouteError::NotInDocument { path: path.path });
            }
            insert(&mut paths, &path.path, methods, metrics)?;
        }
        if let Some(path) = endpoints.into_keys().next() {
            return Err(RouteError::NotInDocument { path });
        }
        for Page { name, path, endpoint } in pages {
            let route = Route::new(name, Some(path.to_owned()), metrics, endpoint);
            insert(&mut paths, path, vec![(Method::GET, route)], metrics)?;
        }
        let not_found = make_sync(|_| Err::<Response, Error>(NotFoundError.into())).boxed();
        Ok(Self { paths, not_found: Route::new(UNMATCHED, None, metrics, not_found) })
    }

    /// Always returns a route. An unknown path gets a route that responds 404. A method that the path does not support
    /// gets a route that responds 405. HEAD matches GET.
    pub(crate) fn find(&self, method: &Method, path: &str) -> (&Arc<Route>, PathParams) {
        let Ok(found) = self.paths.at(path) else { return (&self.not_found, PathParams::default()) };
        let routes = found.value;
        let method = if method == Method::HEAD { &Method::GET } else { method };
        match routes.methods.iter().find(|(known, _)| known == method) {
            Some((_, route)) => {
                let range = |name: &String| found.params.get(name).map_or(0..0, |value| range_of(value, path));
                (route, PathParams::new(Arc::clone(&routes.params), routes.params.iter().map(range).collect()))
            }
            None => (&routes.method_not_allowed, PathParams::default()),
        }
    }

    pub(crate) fn not_found(&self) -> &Route {
        &self.not_found
    }
}

impl Route {
    /// Health checks are frequent, so they are not traced.
    pub(crate) fn is_health_check(&self) -> bool {
        self.priority == Priority::Exempt
    }

    fn new(
        name: &'static str,
        template: Option<String>,
        metrics: Option<&Metrics>,
        endpoint: BoxEndpoint<'static>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            template,
            priority: Priority::of(name),
            body_policy: BodyPolicy::of(name),
            logs_at_info: LOGS_AT_INFO.contains(&name),
            metrics: metrics.map(|metrics| metrics.route(name)),
            endpoint,
        })
    }
}

fn insert(
    paths: &mut Router<Arc<PathRoutes>>,
    path: &str,
    methods: Vec<(Method, Arc<Route>)>,
    metrics: Option<&Metrics>,
) -> Result<(), RouteError> {
    let problem = method_not_allowed(methods.iter().map(|(method, _)| method.as_str()).collect());
    let method_not_allowed = make_sync(move |_| Err::<Response, Error>(problem.clone().into())).boxed();
    let param = |segment: &str| Some(segment.strip_prefix('{')?.strip_suffix('}')?.to_owned());
    let routes = Arc::new(PathRoutes {
        params: path.split('/').filter_map(param).collect(),
        methods,
        method_not_allowed: Route::new(UNMATCHED, Some(path.to_owned()), metrics, method_not_allowed),
    });
    for path in with_empty_params(path) {
        let inserted = paths.insert(&path, Arc::clone(&routes));
        inserted.map_err(|source| RouteError::Path { path, source })?;
    }
    Ok(())
}

/// Returns `path` and its variants with empty parameters. matchit does not match an empty parameter, but such a request
/// must get a 400 that names the parameter, not a 404.
fn with_empty_params(path: &str) -> Vec<String> {
    path.split('/').skip(1).fold(vec![String::new()], |paths, segment| {
        let append = |segment: &str| paths.iter().map(|path| format!("{path}/{segment}")).collect::<Vec<_>>();
        if segment.starts_with('{') { [append(segment), append("")].concat() } else { append(segment) }
    })
}

/// The position of `value` in `path`. `value` must be a slice of `path`.
fn range_of(value: &str, path: &str) -> Range<usize> {
    let start = value.as_ptr().addr().saturating_sub(path.as_ptr().addr());
    start..start + value.len()
}

fn method_not_allowed(mut methods: Vec<&str>) -> Problem {
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.sort_unstable();
    let allow = methods.join(", ");
    let mut problem = Problem::new(ProblemCode::MethodNotAllowed, format!("allowed methods: {allow}"));
    problem.extensions.allow = Some(allow);
    problem
}

/// Converts a path such as `/{userName}/{streamId}` to poem-openapi's key for its endpoints: `/:param0/:param1`.
fn poem_path_pattern(path: &str) -> String {
    let mut params = 0;
    let mut pattern = |segment: &str| {
        if !segment.starts_with('{') {
            return segment.to_owned();
        }
        params += 1;
        format!(":param{}", params - 1)
    };
    path.split('/').map(&mut pattern).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use poem::Endpoint;
    use poem_openapi::registry::{MetaApi, Registry};

    use super::*;
    use crate::http::api::openapi::{Apis, apis_for_spec};

    fn routes() -> Routes {
        Routes::new(apis_for_spec(), Vec::new(), None).unwrap()
    }

    async fn problem(route: &Route) -> Problem {
        route.endpoint.call(poem::Request::default()).await.unwrap_err().downcast().unwrap()
    }

    #[tokio::test]
    async fn every_operation_is_found_and_other_methods_get_405() {
        let routes = routes();
        for meta in Apis::meta().into_iter().flat_map(|api| api.paths) {
            let path = meta.path.replace("{userName}", "count").replace("{streamId}", "limit");
            for operation in &meta.operations {
                let (route, _) = routes.find(&operation.method, &path);
                assert_eq!((Some(route.name), route.template.as_ref()), (operation.operation_id, Some(&meta.path)));
            }
            let (route, _) = routes.find(&Method::PATCH, &path);
            assert_eq!((route.name, route.template.as_ref()), (UNMATCHED, Some(&meta.path)));
            let problem = problem(route).await;
            let allow = problem.extensions.allow.unwrap();
            assert_eq!(problem.code, ProblemCode::MethodNotAllowed);
            assert_eq!(allow.split(", ").filter(|method| *method != "HEAD").count(), meta.operations.len());
        }
    }

    #[test]
    fn literals_precede_params_and_each_param_is_decoded() {
        let routes = routes();
        let path = "/v1/users/a%2Fstreams/streams/count";
        let (route, params) = routes.find(&Method::HEAD, path);
        assert_eq!((route.name, params.get(path, "streamId")), ("count", None));
        assert_eq!(params.get(path, "userName").unwrap(), "a/streams");
        let path = "/v1/users/ann/streams/%ff";
        let (route, params) = routes.find(&Method::GET, path);
        assert_eq!((route.name, params.get(path, "streamId")), ("get", None));
        assert_eq!(params.get(path, "userName").unwrap(), "ann");
    }

    #[test]
    fn empty_params_match() {
        let routes = routes();
        for (path, name, user, stream) in [
            ("/v1/users//streams", "list", "", None),
            ("/v1/users//streams/count", "count", "", None),
            ("/v1/users//streams/1", "get", "", Some("1")),
            ("/v1/users/ann/streams/", "get", "ann", Some("")),
            ("/v1/users//streams/", "get", "", Some("")),
        ] {
            let (route, params) = routes.find(&Method::GET, path);
            let param = |name| params.get(path, name);
            assert_eq!((route.name, param("userName").unwrap()), (name, user.into()), "{path}");
            assert_eq!(param("streamId").as_deref(), stream, "{path}");
        }
    }

    #[test]
    fn unknown_paths_are_not_found() {
        let routes = routes();
        for path in ["", "*", "/v1/users", "/v1/users/ann/streams/a/b", "/v1/users/ann/streams/count/"] {
            assert!(std::ptr::eq(&**routes.find(&Method::GET, path).0, routes.not_found()), "{path}");
        }
        assert!(std::ptr::eq(&**routes.find(&Method::GET, &"/".repeat(200)).0, routes.not_found()));
    }

    struct WithoutEndpoints;

    impl OpenApi for WithoutEndpoints {
        fn meta() -> Vec<MetaApi> {
            Apis::meta()
        }

        fn register(_: &mut Registry) {}

        fn add_routes(self, _: &mut Endpoints) {}
    }

    struct Unnamed;

    #[OpenApi]
    impl Unnamed {
        #[oai(path = "/unnamed", method = "get")]
        async fn unnamed(&self) {}
    }

    struct Hidden;

    #[OpenApi]
    impl Hidden {
        #[oai(path = "/hidden", method = "get", operation_id = "hidden", hidden)]
        async fn hidden(&self) {}
    }

    #[test]
    fn incomplete_route_tables_are_errors() {
        let error = |routes: Result<Routes, RouteError>| routes.err().unwrap();
        assert!(matches!(error(Routes::new(WithoutEndpoints, vec![], None)), RouteError::NoEndpoint { .. }));
        assert!(matches!(error(Routes::new(Unnamed, vec![], None)), RouteError::NoOperationId { .. }));
        assert!(matches!(error(Routes::new(Hidden, vec![], None)), RouteError::NotInDocument { .. }));
    }

    #[test]
    fn malformed_and_conflicting_paths_are_errors() {
        for path in ["/v1/users/{userName", "/{a}{b}", "/health", "/v1/users/{name}/limit"] {
            let endpoint = make_sync(|_| ()).map_to_response().boxed();
            let routes = Routes::new(apis_for_spec(), vec![Page { name: "page", path, endpoint }], None);
            assert!(matches!(routes.err(), Some(RouteError::Path { .. })), "{path}");
        }
    }
}
