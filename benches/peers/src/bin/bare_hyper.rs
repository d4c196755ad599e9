//! A bare hyper server that sends the same response to every request. The body is about as long as that of a heartbeat response.
//! Usage: `bare_hyper ADDRESS`

use hyper::Response;
use hyper::body::Bytes;

const BODY: [u8; 235] = [b'x'; 235];

#[tokio::main]
async fn main() -> std::io::Result<()> {
    peers::serve(|_| async { Response::new(Bytes::from_static(&BODY).into()) }).await
}
