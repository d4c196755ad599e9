//! An empty poem-openapi endpoint on poem's server. It parses the path of a heartbeat, and returns constant JSON of the same size
//! as a heartbeat response. Usage: `empty_endpoint ADDRESS`

use poem::listener::TcpListener;
use poem::{Route, Server};
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi, OpenApiService};

/// Must equal the length of the service's response to a heartbeat in the benchmark `compare`.
const BODY_BYTES: usize = 204;

struct Api;

#[derive(Object)]
struct Body {
    text: String,
}

#[OpenApi]
impl Api {
    #[oai(path = "/v1/users/:user/streams/:stream/heartbeat", method = "post")]
    async fn heartbeat(&self, user: Path<String>, stream: Path<String>) -> Json<Body> {
        // Use the parameters, so that the compiler cannot remove their extraction. They are never empty, so `empty` is always false.
        let empty = user.len() + stream.len() == 0;
        Json(Body { text: "x".repeat(BODY_BYTES - r#"{"text":""}"#.len() - usize::from(empty)) })
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let service = OpenApiService::new(Api, "empty", "0");
    Server::new(TcpListener::bind(peers::address())).run(Route::new().nest("/", service)).await
}
