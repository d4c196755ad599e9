//! Why a report fails.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

#[derive(Debug, Error)]
pub enum ReportError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "cannot use temporary files in {}; set TMPDIR to a folder with space for a quarter of the uncompressed events",
        std::env::temp_dir().display()
    )]
    TemporaryFile(#[from] io::Error),
    #[error("a temporary file is damaged")]
    Record(#[from] postcard::Error),
}
