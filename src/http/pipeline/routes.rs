//! Every path with what answers it, in one table: a request's path is matched once, for its operation, its metrics, its log
//! and the wrong method's `Allow` alike. Names come from the OpenAPI document, endpoints from poem-openapi.

use std::collections::HashMap;
use std::sync::Arc;

use poem::endpoint::BoxEndpoint;
use poem::http::Method;
use serde_json::Value;

use crate::http::api::problems::{Problem, ProblemCode};
use crate::http::api::route_context::PathParams;
use crate::http::pipeline::load_shedding::Priority;
use crate::telemetry::metrics::{Metrics, RouteMetrics};

/// By hand and not by poem's routes, which match each path once more and move the request through five more futures on the heap.
pub struct Routes {
    routes: Vec<Route>,
    /// Of requests for which there is no operation.
    pub other: Arc<RouteMetrics>,
}

/// As poem-openapi gives them: by its way of writing a path, and by method.
pub type Endpoints = HashMap<String, HashMap<Method, BoxEndpoint<'static>>>;

pub struct Operation {
    method: Method,
    pub priority: Priority,
    /// The path with names for its parameters.
    pub template: &'static str,
    /// Whether it has something to tell the log when nothing has failed.
    pub tells: bool,
    pub metrics: Arc<RouteMetrics>,
    pub endpoint: BoxEndpoint<'static>,
}

struct Route {
    segments: Vec<Segment>,
    operations: Vec<Arc<Operation>>,
}

enum Segment {
    Literal(&'static str),
    Parameter(&'static str),
}

/// More than any route has.
const MAX_SEGMENTS: usize = 10;

impl Routes {
    /// `pages` are what the document does not list, each for GET.
    pub fn new(
        document: &Value,
        mut endpoints: Endpoints,
        pages: Vec<(&'static str, BoxEndpoint<'static>)>,
        metrics: &Metrics,
    ) -> Self {
        let mut routes = Vec::new();
        for (path, operations) in document["paths"].as_object().into_iter().flatten() {
            // A metric's label is a static text; the document is read once in the life of the process.
            let template: &'static str = String::leak(path.clone());
            let mut endpoints = endpoints.remove(&poem_path_pattern(path)).unwrap_or_default();
            let operations = operations.as_object().into_iter().flatten().filter_map(|(method, operation)| {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).ok()?;
                let endpoint = endpoints.remove(&method)?;
                let name: &'static str = String::leak(operation["operationId"].as_str()?.to_owned());
                Some(Arc::new(Operation::new(method, metrics.route(name), template, endpoint)))
            });
            routes.push(Route { segments: segments(template), operations: operations.collect() });
        }
        routes.extend(
            pages.into_iter().map(|(path, endpoint)| Route::page(path, metrics.route("documentation"), endpoint)),
        );
        // A literal goes before a parameter in the same place.
        routes
            .sort_by_key(|route| route.segments.iter().filter(|part| matches!(part, Segment::Parameter(_))).count());
        Self { routes, other: metrics.route("other") }
    }

    /// The routes of the management port.
    pub fn management(exposition: BoxEndpoint<'static>, metrics: &Metrics) -> Self {
        let routes = vec![Route::page("/metrics", metrics.route("metrics"), exposition)];
        Self { routes, other: metrics.route("other") }
    }

    /// What answers, and where the path has its parameters.
    ///
    /// # Errors
    /// 404 when no route has this path, 405 when it has other methods.
    pub fn find(&self, method: &Method, path: &str) -> Result<(Arc<Operation>, PathParams), Problem> {
        let Some((route, parameters)) = self.route(path) else {
            return Err(Problem::new(ProblemCode::RouteNotFound, "see /openapi.json for the routes"));
        };
        let method = if method == Method::HEAD { &Method::GET } else { method };
        match route.operations.iter().find(|operation| operation.method == *method) {
            Some(operation) => Ok((Arc::clone(operation), parameters)),
            None => Err(route.refused()),
        }
    }

    /// The path is taken apart once, and compared only with routes of as many parts.
    fn route(&self, path: &str) -> Option<(&Route, PathParams)> {
        let mut parts = [(0, 0); MAX_SEGMENTS];
        let (mut count, mut begin) = (0, 0);
        // Of bytes, by hand: half the work of a text's `split`, for every request.
        let bytes = path.as_bytes();
        for (end, byte) in bytes.iter().enumerate() {
            if *byte == b'/' {
                *parts.get_mut(count)? = (begin, end);
                (count, begin) = (count + 1, end + 1);
            }
        }
        *parts.get_mut(count)? = (begin, bytes.len());
        count += 1;
        let parts = &parts[..count];
        let fits = |route: &&Route| {
            route.segments.len() == count
                && route.segments.iter().zip(parts).all(|(segment, (begin, end))| match segment {
                    Segment::Literal(literal) => literal.as_bytes() == &bytes[*begin..*end],
                    Segment::Parameter(_) => true,
                })
        };
        let route = self.routes.iter().find(fits)?;
        let mut parameters = PathParams::default();
        let named = route.segments.iter().zip(parts).filter_map(|(segment, (begin, end))| match segment {
            Segment::Parameter(name) => Some((*name, *begin, *end)),
            Segment::Literal(_) => None,
        });
        parameters.0.iter_mut().zip(named).for_each(|(place, parameter)| *place = parameter);
        Some((route, parameters))
    }
}

impl Operation {
    fn new(
        method: Method,
        metrics: Arc<RouteMetrics>,
        template: &'static str,
        endpoint: BoxEndpoint<'static>,
    ) -> Self {
        let name = metrics.route();
        Self { method, priority: Priority::of(name), template, tells: TELLING.contains(&name), metrics, endpoint }
    }
}

/// By the limiter: of denials and evictions.
const TELLING: [&str; 2] = ["start", "stop"];

impl Route {
    fn page(path: &'static str, metrics: Arc<RouteMetrics>, endpoint: BoxEndpoint<'static>) -> Self {
        let operation = Operation::new(Method::GET, metrics, path, endpoint);
        Self { segments: segments(path), operations: vec![Arc::new(operation)] }
    }

    fn refused(&self) -> Problem {
        let mut methods: Vec<&str> = self.operations.iter().map(|operation| operation.method.as_str()).collect();
        if methods.contains(&"GET") {
            methods.push("HEAD");
        }
        methods.sort_unstable();
        let allow = methods.join(", ");
        let mut problem = Problem::new(ProblemCode::MethodNotAllowed, format!("this route has {allow}"));
        problem.extensions.allow = Some(allow);
        problem
    }
}

fn segments(path: &'static str) -> Vec<Segment> {
    let segment = |part: &'static str| match part.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
        Some(name) => Segment::Parameter(name),
        None => Segment::Literal(part),
    };
    path.split('/').map(segment).collect()
}

/// `/{userName}/{streamId}` is `/:param0/:param1` there.
fn poem_path_pattern(path: &str) -> String {
    let mut count = 0;
    let mut word = |part: &str| {
        if !part.starts_with('{') {
            return part.to_owned();
        }
        count += 1;
        format!(":param{}", count - 1)
    };
    path.split('/').map(&mut word).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use poem_openapi::OpenApi;

    use super::*;
    use crate::http::api::problems::ProblemCode;

    fn endpoints() -> Endpoints {
        let mut endpoints = Endpoints::new();
        crate::http::api::openapi::idle().add_routes(&mut endpoints);
        endpoints
    }

    fn routes() -> (Value, Routes) {
        let document: Value = serde_json::from_str(&crate::http::api::openapi::openapi_document()).unwrap();
        let routes = Routes::new(&document, endpoints(), Vec::new(), &Metrics::new());
        (document, routes)
    }

    #[test]
    fn every_operation_of_the_document_is_found_and_a_wrong_method_is_told_the_right_ones() {
        let (document, routes) = routes();
        for (template, operations) in document["paths"].as_object().unwrap() {
            let path = template.replace("{userName}", "count").replace("{streamId}", "limit");
            for (method, operation) in operations.as_object().unwrap() {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                let (found, _) = routes.find(&method, &path).unwrap();
                assert_eq!((found.template, &operation["operationId"]), (&**template, &found.metrics.route().into()));
            }
            let refused = routes.find(&Method::PATCH, &path).err().unwrap();
            let allow = refused.extensions.allow.unwrap();
            assert_eq!(
                allow.split(", ").filter(|method| *method != "HEAD").count(),
                operations.as_object().unwrap().len()
            );
        }
    }

    #[test]
    fn a_literal_goes_before_a_parameter_and_the_parameters_are_decoded_one_by_one() {
        let (_, routes) = routes();
        let path = "/v1/users/a%2Fstreams/streams/count";
        let (count, parameters) = routes.find(&Method::HEAD, path).unwrap();
        assert_eq!((count.metrics.route(), parameters.get(path, "streamId")), ("count", None));
        assert_eq!(parameters.get(path, "userName").unwrap(), "a/streams");
        let path = "/v1/users//streams/%ff";
        let (get, parameters) = routes.find(&Method::GET, path).unwrap();
        assert_eq!((get.metrics.route(), parameters.get(path, "streamId")), ("get", None));
        assert_eq!(parameters.get(path, "userName").unwrap(), "");
        for nowhere in ["", "/v1/users/ann", "/v1/users/ann/streams/a/b", "*", &"/".repeat(200)] {
            let refused = routes.find(&Method::GET, nowhere).err().unwrap();
            assert_eq!(refused.code, ProblemCode::RouteNotFound, "{nowhere}");
        }
    }
}
