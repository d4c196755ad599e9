//! Where keys come from: reads or fetches them, keeps the last good set, and fetches again when a token names a key that
//! is not in it. Judges no token.

use std::error::Error as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::Algorithm;
use reqwest::{Client, redirect};
use secrecy::ExposeSecret;
use thiserror::Error;
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::keys::{Key, KeySet, KeySetError};
use super::{KeySource, TokenError};
use crate::clock::Clock;

const REFRESH_EVERY: Duration = Duration::from_secs(600);
/// While there are none at all.
const RETRY_EVERY: Duration = Duration::from_secs(2);
/// A token costs its sender nothing, and a fetch the issuer something.
const REFETCH_AFTER: Duration = Duration::from_secs(60);
const FETCH_WITHIN: Duration = Duration::from_secs(2);
const MAX_SET_BYTES: usize = 256 * 1024;

pub struct Keyring {
    source: Source,
    allowed: Vec<Algorithm>,
    held: RwLock<Option<Arc<KeySet>>>,
    /// When an unknown key last had the set fetched. Locked meanwhile, so that all who wait, wait for the same fetch.
    refetched: Mutex<Option<Duration>>,
    clock: Arc<dyn Clock>,
}

enum Source {
    Url(Client, String),
    File(PathBuf),
    /// A secret: nothing to fetch.
    Fixed,
}

/// Why there are no new keys.
#[derive(Debug, Error)]
pub enum KeysError {
    #[error("auth.jwks_file {0:?} cannot be read: {1}")]
    Unreadable(PathBuf, std::io::Error),
    #[error("auth.jwks_file {0:?} {1}")]
    BadFile(PathBuf, KeySetError),
    #[error("auth.jwks_url cannot be fetched: {0}")]
    Unreachable(String),
    #[error("what auth.jwks_url answers {0}")]
    BadAnswer(KeySetError),
}

impl Keyring {
    pub async fn open(source: KeySource, allowed: Vec<Algorithm>, clock: Arc<dyn Clock>) -> Result<Self, KeysError> {
        let (source, held) = match source {
            KeySource::Secret(secret) => {
                (Source::Fixed, Some(Arc::new(KeySet::secret(secret.expose_secret().as_bytes()))))
            }
            KeySource::File(path) => (Source::File(path), None),
            KeySource::Url(url) => (Source::Url(client()?, url), None),
        };
        let keyring = Self { source, allowed, held: RwLock::new(held), refetched: Mutex::default(), clock };
        match (keyring.refresh().await, &keyring.source) {
            // The issuer may be away for a moment, a file that is not there is a mistake.
            (Err(error), Source::Url(..)) => warn!(%error, "no keys yet: not ready until there are"),
            (Err(error), _) => return Err(error),
            (Ok(()), _) => {}
        }
        Ok(keyring)
    }

    pub fn has_keys(&self) -> bool {
        self.held().is_some()
    }

    pub async fn keep_fresh(&self) {
        loop {
            let had_keys = self.has_keys();
            tokio::time::sleep(if had_keys { REFRESH_EVERY } else { RETRY_EVERY }).await;
            match self.refresh().await {
                Ok(()) if !had_keys => info!("the keys are there: tokens can be checked"),
                Ok(()) => {}
                Err(error) => warn!(%error, had_keys, "no new keys"),
            }
        }
    }

    pub async fn refresh(&self) -> Result<(), KeysError> {
        let set = match &self.source {
            Source::Fixed => return Ok(()),
            Source::File(path) => {
                let set = read(path.clone()).await.map_err(|error| KeysError::Unreadable(path.clone(), error))?;
                KeySet::parse(&set, &self.allowed).map_err(|error| KeysError::BadFile(path.clone(), error))?
            }
            Source::Url(client, url) => {
                let set = fetch(client, url).await.map_err(KeysError::Unreachable)?;
                KeySet::parse(&set, &self.allowed).map_err(KeysError::BadAnswer)?
            }
        };
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(set));
        Ok(())
    }

    /// The key that a token names. Fetches the set once more if it has no such key, for the issuer may just have
    /// changed keys.
    pub async fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<Key>, TokenError> {
        let held = self.held().ok_or(TokenError::NoKeys)?;
        match held.find(kid, algorithm) {
            Err(TokenError::UnknownKey) => {}
            found => return found,
        }
        self.refetch().await;
        self.held().ok_or(TokenError::NoKeys)?.find(kid, algorithm)
    }

    async fn refetch(&self) {
        let mut refetched = self.refetched.lock().await;
        let now = self.clock.monotonic();
        if refetched.is_some_and(|at| now.saturating_sub(at) < REFETCH_AFTER) {
            return;
        }
        // Before the fetch: one that fails is not to be tried again at once either.
        *refetched = Some(now);
        if let Err(error) = self.refresh().await {
            warn!(%error, "a token names a key that is not known, and there are no new keys");
        }
    }

    fn held(&self) -> Option<Arc<KeySet>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn client() -> Result<Client, KeysError> {
    // A redirect could lead anywhere, also to plain HTTP.
    let client = Client::builder().connect_timeout(FETCH_WITHIN).timeout(FETCH_WITHIN);
    let client = client.redirect(redirect::Policy::none()).build();
    client.map_err(|error| KeysError::Unreachable(chain(error)))
}

async fn fetch(client: &Client, url: &str) -> Result<Vec<u8>, String> {
    let mut answer = client.get(url).send().await.map_err(chain)?;
    if answer.status() != 200 {
        return Err(format!("it answers {}", answer.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(chain)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_SET_BYTES {
            return Err(format!("it answers more than {MAX_SET_BYTES} bytes"));
        }
    }
    Ok(body)
}

/// The library says the cause in a chain of errors.
fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

async fn read(path: PathBuf) -> std::io::Result<Vec<u8>> {
    let read = |path: &Path| {
        let mut set = Vec::new();
        std::fs::File::open(path)?.take(MAX_SET_BYTES as u64 + 1).read_to_end(&mut set)?;
        if set.len() > MAX_SET_BYTES {
            return Err(std::io::Error::other(format!("it has more than {MAX_SET_BYTES} bytes")));
        }
        Ok(set)
    };
    tokio::task::spawn_blocking(move || read(&path)).await?
}
