//! Reads request bodies within their bounds of size and time.

use std::pin::pin;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use tokio::time::{Instant, timeout_at};

use crate::http::api::problems::{Problem, ProblemCode};

/// What happens to a request whose body cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyPolicy {
    /// The request is refused.
    Validated,
    /// The request is processed as if it had no body.
    Optional,
}

/// A longer optional body is not read to its end. The connection then closes after the response, and the client may lose
/// the response. Browsers send at most 64 KiB with a beacon.
const MAX_DISCARDED_BYTES: usize = 1024 * 1024;

impl BodyPolicy {
    /// The policy of an operation. `operation_id` is its id in the OpenAPI document.
    pub(crate) fn of(operation_id: &str) -> Self {
        match operation_id {
            // A player whose heartbeat or stop is refused loses its stream, or keeps a slot that it does not use.
            "heartbeat" | "stop" | "stopByPost" => Self::Optional,
            _ => Self::Validated,
        }
    }
}

/// Reads the whole body.
///
/// # Errors
/// 413 if the body is longer than `max_bytes`; 400 if it is incomplete, or not received by `deadline`.
pub(crate) async fn read<B>(body: B, max_bytes: usize, deadline: Instant) -> Result<Vec<u8>, Problem>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_large = || Problem::new(ProblemCode::PayloadTooLarge, format!("send at most {max_bytes} bytes"));
    // Checked before the body is read. A read makes hyper send "100 Continue" to a client that waits for it, and the
    // client would then send its body.
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_large());
    }
    let read = async {
        let mut body = pin!(Limited::new(body, max_bytes));
        let mut bytes = Vec::new();
        // Copies each frame instead of collecting the frames, because even a frame of one byte keeps 8 KB of hyper's
        // buffers alive.
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                Err(error) if error.is::<LengthLimitError>() => return Err(too_large()),
                Err(_) => return Err(Problem::new(ProblemCode::InvalidRequest, "the request body is incomplete")),
            }
        }
        Ok(bytes)
    };
    let late = |_| Problem::new(ProblemCode::InvalidRequest, "the request body did not arrive in time");
    timeout_at(deadline, read).await.map_err(late)?
}

/// Reads a body that may be ignored. Returns nothing if the body is longer than `max_bytes`, incomplete, or not received
/// by `deadline`. Reads a longer body up to a bound and discards it, so that the client can read the response.
pub(crate) async fn read_optional<B>(body: B, max_bytes: usize, deadline: Instant) -> Vec<u8>
where
    B: Body<Data = Bytes> + Send,
{
    if body.size_hint().lower() > MAX_DISCARDED_BYTES as u64 {
        return Vec::new();
    }
    let read = async {
        let (mut body, mut bytes, mut length) = (pin!(body), Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return Vec::new() };
            let data = frame.data_ref().map_or(&[][..], |data| data);
            length += data.len();
            match length {
                _ if length <= max_bytes => bytes.extend_from_slice(data),
                _ if length <= MAX_DISCARDED_BYTES => bytes = Vec::new(),
                _ => return Vec::new(),
            }
        }
        if length <= max_bytes { bytes } else { Vec::new() }
    };
    timeout_at(deadline, read).await.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use futures_util::StreamExt;
    use futures_util::stream::{iter, pending};
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    const MAX: usize = 8;

    async fn read_frames(frames: &[&'static str]) -> Vec<u8> {
        let frames: Vec<_> = frames.iter().map(|data| Ok::<_, Infallible>(Frame::data(Bytes::from(*data)))).collect();
        read_optional(StreamBody::new(iter(frames)), MAX, Instant::now() + Duration::from_secs(1)).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_optional_body_is_read_or_ignored() {
        assert_eq!(read_frames(&[]).await, b"");
        assert_eq!(read_frames(&["{\"a", "\":1}"]).await, b"{\"a\":1}");
        assert_eq!(read_frames(&["12345678"]).await, b"12345678");
        assert_eq!(read_frames(&["1234567", "89"]).await, b"", "too long");
        assert_eq!(read_frames(&["123456789", "", "1"]).await, b"", "too long at first");
    }

    #[tokio::test(start_paused = true)]
    async fn an_incomplete_optional_body_is_ignored() {
        let data = || Ok::<_, &str>(Frame::data(Bytes::from("{}")));
        let deadline = Instant::now() + Duration::from_secs(1);
        let broken = StreamBody::new(iter([data(), Err("closed")]));
        assert_eq!(read_optional(broken, MAX, deadline).await, b"");
        let slow = StreamBody::new(iter([data()]).chain(pending()));
        assert_eq!(read_optional(slow, MAX, deadline).await, b"");
        assert_eq!(Instant::now(), deadline);
    }

    #[tokio::test]
    async fn an_endless_optional_body_is_not_read_to_its_end() {
        let mut frames = 0;
        let body = futures_util::stream::repeat_with(|| {
            frames += 1;
            Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0; 1024])))
        });
        assert_eq!(read_optional(StreamBody::new(body), MAX, Instant::now() + Duration::from_secs(60)).await, b"");
        assert_eq!(frames, MAX_DISCARDED_BYTES / 1024 + 1);
    }
}
