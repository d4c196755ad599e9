//! A bare hyper server: responds to every request with the same text, about as long as the response to a heartbeat.
//! `bare_hyper ADDRESS`

use hyper::Response;
use hyper::body::Bytes;

const BODY: [u8; 235] = [b'x'; 235];

#[tokio::main]
async fn main() -> std::io::Result<()> {
    peers::serve(|_| async { Response::new(Bytes::from_static(&BODY).into()) }).await
}
