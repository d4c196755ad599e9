//! Reads the key files again after they change. A file that becomes unusable keeps its previous keys.

use std::path::PathBuf;

use aws_lc_rs::digest;
use tracing::warn;

use super::key_parser::Key;
use super::{FileAlgorithm, GrantKeyError};
use crate::http::auth::key_file;

const MAX_FILE_BYTES: usize = 64 * 1024;

pub(super) struct KeyFiles {
    signing: KeyFile,
    published: Vec<KeyFile>,
}

struct KeyFile {
    role: Role,
    path: PathBuf,
    /// The SHA-256 hash of the content that was parsed last, usable or not.
    hash: Vec<u8>,
    keys: Vec<Key>,
    /// The logged error, until the file is usable again.
    failure: Option<String>,
}

#[derive(Clone, Copy)]
enum Role {
    Signing(FileAlgorithm),
    Published,
}

impl KeyFiles {
    /// # Errors
    /// A file cannot be read, or has no suitable key.
    pub(super) async fn open(
        algorithm: FileAlgorithm,
        key_file: PathBuf,
        published: Vec<PathBuf>,
    ) -> Result<Self, GrantKeyError> {
        let signing = KeyFile::open(Role::Signing(algorithm), key_file).await?;
        let mut files = Vec::new();
        for path in published {
            files.push(KeyFile::open(Role::Published, path).await?);
        }
        Ok(Self { signing, published: files })
    }

    /// Reads all files. Returns whether the keys of a file changed. Logs each new failure once.
    pub(super) async fn refresh(&mut self) -> bool {
        let mut changed = self.signing.refresh().await;
        for file in &mut self.published {
            changed |= file.refresh().await;
        }
        changed
    }

    pub(super) fn signing(&self) -> Option<&Key> {
        self.signing.keys.first()
    }

    pub(super) fn published(&self) -> impl Iterator<Item = &Key> {
        self.published.iter().flat_map(|file| &file.keys)
    }
}

impl KeyFile {
    async fn open(role: Role, path: PathBuf) -> Result<Self, GrantKeyError> {
        let mut file = Self { role, path, hash: Vec::new(), keys: Vec::new(), failure: None };
        file.read().await?;
        Ok(file)
    }

    async fn refresh(&mut self) -> bool {
        let error = match self.read().await {
            // An unchanged file that was unusable before is still unusable.
            Ok(false) => return false,
            Ok(true) => {
                self.failure = None;
                return true;
            }
            Err(error) => error.to_string(),
        };
        if self.failure.as_ref() != Some(&error) {
            warn!(
                event = "grant_keys_reload_failed",
                error, "grant key file unusable; its previous keys stay in use"
            );
            self.failure = Some(error);
        }
        false
    }

    /// Reads the file. Replaces the keys and returns true if its content changed.
    async fn read(&mut self) -> Result<bool, GrantKeyError> {
        let (setting, path) = (self.role.setting(), self.path.clone());
        let content = match key_file::read(path.clone(), MAX_FILE_BYTES).await {
            Ok(content) => content,
            Err(error) => {
                // The next readable content is new, even if it equals the last one.
                self.hash.clear();
                return Err(GrantKeyError::Unreadable { setting, path, error });
            }
        };
        let hash = digest::digest(&digest::SHA256, &content);
        if self.hash == hash.as_ref() {
            return Ok(false);
        }
        self.hash = hash.as_ref().to_vec();
        let keys = match self.role {
            Role::Signing(algorithm) => Key::parse_signing(&content, algorithm).map(|key| vec![key]),
            Role::Published => Key::parse_published(&content),
        };
        self.keys = keys.map_err(|problem| GrantKeyError::Invalid { setting, path, problem })?;
        Ok(true)
    }
}

impl Role {
    fn setting(self) -> &'static str {
        match self {
            Self::Signing(_) => "grants.key_file",
            Self::Published => "grants.published_keys",
        }
    }
}
