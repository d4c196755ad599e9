//! Which routes there are, read from the OpenAPI document: names them for metrics and logs, and tells a wrong method
//! which ones are right.

use serde_json::Value;

pub struct Routes(Vec<Route>);

struct Route {
    template: &'static str,
    segments: Vec<Segment>,
    /// Method in upper case, and the operation's name.
    operations: Vec<(String, &'static str)>,
}

enum Segment {
    Literal(String),
    Parameter,
}

impl Routes {
    /// `pages` are routes that the document does not list.
    pub fn new(document: &Value, pages: &[&'static str]) -> Self {
        let mut routes = Vec::new();
        for (path, operations) in document["paths"].as_object().into_iter().flatten() {
            let operations = operations.as_object().into_iter().flatten();
            let operations = operations.map(|(method, operation)| {
                let name = operation["operationId"].as_str().unwrap_or("unnamed");
                // A metric's label is a static text; the document is read once in the life of the process.
                (method.to_uppercase(), &*String::leak(name.to_owned()))
            });
            let template = String::leak(path.clone());
            routes.push(Route { template, segments: segments(path), operations: operations.collect() });
        }
        for path in pages {
            let operations = vec![("GET".to_owned(), "documentation")];
            routes.push(Route { template: path, segments: segments(path), operations });
        }
        // A literal goes before a parameter in the same place, as it does in poem's router.
        routes.sort_by_key(|route| route.segments.iter().filter(|part| matches!(part, Segment::Parameter)).count());
        Self(routes)
    }

    /// The routes of the management port.
    pub fn management() -> Self {
        let operations = vec![("GET".to_owned(), "metrics")];
        Self(vec![Route { template: "/metrics", segments: segments("/metrics"), operations }])
    }

    /// The operation that a request asks for; `other` when there is none.
    pub fn operation(&self, method: &str, path: &str) -> &'static str {
        let method = if method == "HEAD" { "GET" } else { method };
        let operations = self.find(path).map(|route| &route.operations).into_iter().flatten();
        operations.into_iter().find(|(known, _)| known == method).map_or("other", |(_, name)| name)
    }

    /// The path with names for its parameters.
    pub fn template(&self, path: &str) -> Option<&'static str> {
        self.find(path).map(|route| route.template)
    }

    /// The methods of a path, as the `Allow` header lists them.
    pub fn allow(&self, path: &str) -> Option<String> {
        let mut methods: Vec<&str> = self.find(path)?.operations.iter().map(|(method, _)| method.as_str()).collect();
        if methods.contains(&"GET") {
            methods.push("HEAD");
        }
        methods.sort_unstable();
        Some(methods.join(", "))
    }

    /// The path is taken apart once, and compared only with routes of as many parts.
    fn find(&self, path: &str) -> Option<&Route> {
        let mut parts = [&b""[..]; MOST_SEGMENTS];
        let mut count = 0;
        // Of bytes: half the work of a text's, for every request.
        for part in path.as_bytes().split(|byte| *byte == b'/') {
            *parts.get_mut(count)? = part;
            count += 1;
        }
        let parts = &parts[..count];
        self.0.iter().find(|route| {
            route.segments.len() == parts.len()
                && route.segments.iter().zip(parts).all(|(segment, part)| match segment {
                    Segment::Literal(literal) => literal.as_bytes() == *part,
                    Segment::Parameter => true,
                })
        })
    }
}

/// More than any route has.
const MOST_SEGMENTS: usize = 10;

fn segments(path: &str) -> Vec<Segment> {
    let segment = |part: &str| {
        // In the document's way of writing, or in poem's.
        if part.starts_with(['{', ':']) { Segment::Parameter } else { Segment::Literal(part.to_owned()) }
    };
    path.split('/').map(segment).collect()
}
