//! The lock that prevents other processes from opening the database file.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::error::OpenError;

/// Resolves symbolic links, so that all paths to one file use the same lock. Creates missing parent folders.
pub(crate) fn canonical_path(path: &Path) -> std::io::Result<PathBuf> {
    if path.exists() {
        // Fail now if the file is read-only, not when the first stream starts.
        File::options().write(true).open(path)?;
        return path.canonicalize();
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    Ok(folder.canonicalize()?.join(path.file_name().unwrap_or_default()))
}

/// Locks the database until the returned file is closed. `shown` is the path for error messages. The lock is a
/// separate file, because SQLite uses its own locks in the database file.
pub(crate) fn lock(canonical: &Path, shown: &Path) -> Result<File, OpenError> {
    let mut lock_path = canonical.as_os_str().to_owned();
    lock_path.push(".lock");
    let io = |error: std::io::Error| OpenError::Io { path: PathBuf::from(&lock_path), problem: error.to_string() };
    let file = File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(shown.to_owned())),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}
