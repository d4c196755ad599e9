//! Reads a key file, with limits on its size and on the time.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::Semaphore;

const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// The maximum number of reads at a time. A read that timed out still blocks its thread, and the next reload begins another one.
const MAX_READS: usize = 8;
static READS: Semaphore = Semaphore::const_new(MAX_READS);

/// # Errors
/// The file cannot be read within two seconds, or is larger than `max_bytes`.
pub(crate) async fn read(path: PathBuf, max_bytes: usize) -> io::Result<Vec<u8>> {
    let Ok(permit) = READS.try_acquire() else { return Err(io::Error::other("earlier reads have not ended")) };
    let read = move |path: &Path| {
        let _permit = permit;
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(max_bytes as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > max_bytes {
            return Err(io::Error::other(format!("the file has more than {max_bytes} bytes")));
        }
        Ok(bytes)
    };
    // Reading from a network file system or a pipe can block indefinitely.
    match tokio::time::timeout(READ_TIMEOUT, tokio::task::spawn_blocking(move || read(&path))).await {
        Ok(read) => read?,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
