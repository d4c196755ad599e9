//! The least that poem-openapi on poem's own server can do: takes the request of a heartbeat apart, and answers one text of the
//! same size. `empty ADDRESS`

use poem::listener::TcpListener;
use poem::{Route, Server};
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi, OpenApiService};

/// As many bytes of JSON as the service answers to a heartbeat in the same benchmark.
const BYTES: usize = 204;

struct Api;

#[derive(Object)]
struct Answer {
    text: String,
}

#[OpenApi]
impl Api {
    #[oai(path = "/v1/users/:user/streams/:stream/heartbeat", method = "post")]
    async fn heartbeat(&self, user: Path<String>, stream: Path<String>) -> Json<Answer> {
        let named = user.len() + stream.len() > 0;
        Json(Answer { text: "x".repeat(BYTES - r#"{"text":""}"#.len() - usize::from(!named)) })
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let service = OpenApiService::new(Api, "empty", "0");
    Server::new(TcpListener::bind(address)).run(Route::new().nest("/", service)).await
}
