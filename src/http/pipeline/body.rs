//! Reads request bodies within their bounds of size and time.

use std::pin::pin;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use tokio::time::{Instant, timeout_at};

use crate::http::api::problems::{Problem, ProblemCode};

/// The handling of a request whose body cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyPolicy {
    /// The request is refused.
    Validated,
    /// The request is processed as if it had no body.
    Optional,
}

/// Maximum size of a body that is read to its end. After the response to a longer body, the connection closes, and the
/// client may lose the response. A gateway then reports 502, and may take the instance out of service. Browsers send at most
/// 64 KiB with a beacon, so a stop by beacon is always below this size.
const MAX_DISCARDED_BYTES: usize = 1024 * 1024;

/// The result of reading a body.
#[derive(Debug, PartialEq, Eq)]
enum Received {
    Complete(Vec<u8>),
    TooLong,
    Incomplete,
}

impl BodyPolicy {
    /// The policy of an operation. `operation_id` is its id in the code.
    pub(crate) fn of(operation_id: &str) -> Self {
        match operation_id {
            // A refused heartbeat can cost the player its stream. After a refused stop, the slot stays taken until the lease
            // expires.
            "heartbeat" | "stop" | "stopByPost" => Self::Optional,
            _ => Self::Validated,
        }
    }
}

/// Reads the whole body. `expects_continue` is true if the client waits for "100 Continue" before it sends the body.
///
/// # Errors
/// 413 if the body is longer than `max_bytes`; 400 if it is incomplete, or not received by `deadline`.
pub(crate) async fn read<B>(
    body: B,
    max_bytes: usize,
    expects_continue: bool,
    deadline: Instant,
) -> Result<Vec<u8>, Problem>
where
    B: Body<Data = Bytes> + Send,
{
    let too_large = || Problem::new(ProblemCode::PayloadTooLarge, format!("send at most {max_bytes} bytes"));
    let length = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    // Refuses the body before the first read, because that read makes hyper send "100 Continue".
    if length > MAX_DISCARDED_BYTES || (expects_continue && length > max_bytes) {
        return Err(too_large());
    }
    match timeout_at(deadline, receive(body, max_bytes)).await {
        Ok(Received::Complete(bytes)) => Ok(bytes),
        Ok(Received::TooLong) => Err(too_large()),
        Err(_) if length > max_bytes => Err(too_large()),
        Ok(Received::Incomplete) => Err(Problem::new(ProblemCode::InvalidRequest, "the request body is incomplete")),
        Err(_) => Err(Problem::new(ProblemCode::InvalidRequest, "the request body did not arrive in time")),
    }
}

/// Reads a body that may be ignored. Returns an empty body if the body is longer than `max_bytes`, incomplete, or not received
/// by `deadline`.
pub(crate) async fn read_optional<B>(body: B, max_bytes: usize, deadline: Instant) -> Vec<u8>
where
    B: Body<Data = Bytes> + Send,
{
    if body.size_hint().lower() > MAX_DISCARDED_BYTES as u64 {
        return Vec::new();
    }
    match timeout_at(deadline, receive(body, max_bytes)).await {
        Ok(Received::Complete(bytes)) => bytes,
        _ => Vec::new(),
    }
}

/// Reads a body. If it is longer than `max_bytes`, discards it, but reads up to [`MAX_DISCARDED_BYTES`] so that the client
/// can read the response.
async fn receive<B>(body: B, max_bytes: usize) -> Received
where
    B: Body<Data = Bytes> + Send,
{
    let (mut body, mut bytes, mut length) = (pin!(body), Vec::new(), 0);
    // Copies each frame instead of collecting the frames, because even a frame of one byte keeps 8 KB of hyper's buffers
    // alive.
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Received::Incomplete };
        let data = frame.data_ref().map_or(&[][..], |data| data);
        length += data.len();
        match length {
            _ if length <= max_bytes => bytes.extend_from_slice(data),
            _ if length <= MAX_DISCARDED_BYTES => bytes = Vec::new(),
            _ => return Received::TooLong,
        }
    }
    if length <= max_bytes { Received::Complete(bytes) } else { Received::TooLong }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use futures_util::StreamExt;
    use futures_util::stream::{iter, pending};
    use http_body_util::StreamBody;
    use hyper::body::{Frame, SizeHint};

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
        assert_eq!(read_frames(&["123456789", "", "1"]).await, b"", "the first frame is already too long");
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

    fn problem(result: Result<Vec<u8>, Problem>) -> ProblemCode {
        result.unwrap_err().code
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_body_is_refused_after_it_is_discarded() {
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut frames = 0;
        let body = iter(0..3).map(|_| {
            frames += 1;
            Ok::<_, Infallible>(Frame::data(Bytes::from("12345678")))
        });
        assert_eq!(problem(read(StreamBody::new(body), MAX, false, deadline).await), ProblemCode::PayloadTooLarge);
        assert_eq!(frames, 3);
        let fits =
            StreamBody::new(iter(["1234", "5678"]).map(|data| Ok::<_, Infallible>(Frame::data(Bytes::from(data)))));
        assert_eq!(read(fits, MAX, true, deadline).await.unwrap(), b"12345678");
    }

    /// A body of a known length. Panics if it is read.
    struct Unread {
        length: usize,
    }

    impl Body for Unread {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
            panic!("the body must not be read")
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.length as u64)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_not_requested_if_its_length_is_refused() {
        let deadline = Instant::now() + Duration::from_secs(1);
        for (length, expects_continue) in [(9, true), (MAX_DISCARDED_BYTES + 1, false)] {
            let refused = read(Unread { length }, MAX, expects_continue, deadline).await;
            assert_eq!(problem(refused), ProblemCode::PayloadTooLarge);
        }
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
