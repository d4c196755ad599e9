//! Reads a key file, with limits on its size and on the time.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// # Errors
/// The file cannot be read within two seconds, or is larger than `max_bytes`.
pub(crate) async fn read(path: PathBuf, max_bytes: usize) -> io::Result<Vec<u8>> {
    let read = move |path: &Path| {
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
