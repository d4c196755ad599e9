//! Where keys come from: reads or fetches them, keeps the last good set, and fetches again when a token names a key that
//! is not in it. Judges no token.

use std::error::Error as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use jsonwebtoken::Algorithm;
use reqwest::{Client, redirect};
use secrecy::ExposeSecret;
use thiserror::Error;
use tokio::sync::{Mutex, Semaphore};
use tracing::{info, warn};

use super::jwks::{Key, KeySet, KeySetError};
use super::{KeySource, TokenError};
use crate::clock::Clock;

const REFRESH_EVERY: Duration = Duration::from_secs(600);
/// While there are none at all.
const RETRY_EVERY: Duration = Duration::from_secs(2);
/// A token costs its sender nothing, and a fetch the issuer something.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(60);
const FETCH_WITHIN: Duration = Duration::from_secs(2);
const MAX_SET_BYTES: usize = 256 * 1024;

/// A set that could not be fetched for so long is not trusted any more: the issuer may have withdrawn its keys.
const MAX_STALENESS: Duration = Duration::from_secs(24 * 3600);
/// Whoever waits for a fetch holds the place of a request, and an unknown key costs nothing to make up.
const MAX_WAITING: usize = 16;

pub struct JwksCache {
    source: Source,
    allowed: Vec<Algorithm>,
    held: RwLock<Option<Held>>,
    /// One fetch at a time: the answer of an older one must not replace that of a newer one.
    fetching: Mutex<()>,
    /// When an unknown key last had the set fetched. Locked meanwhile, so that all who wait, wait for the same fetch.
    refetched: Mutex<Option<Duration>>,
    waiting: Semaphore,
    clock: Arc<dyn Clock>,
}

struct Held {
    set: Arc<KeySet>,
    /// By the monotonic clock, from when it was asked for.
    fetched_at: Duration,
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

impl JwksCache {
    pub async fn open(source: KeySource, allowed: Vec<Algorithm>, clock: Arc<dyn Clock>) -> Result<Self, KeysError> {
        let (source, held) = match source {
            KeySource::Secret(secret) => {
                let set = Arc::new(KeySet::secret(secret.expose_secret().as_bytes()));
                (Source::Fixed, Some(Held { set, fetched_at: clock.monotonic() }))
            }
            KeySource::File(path) => (Source::File(path), None),
            KeySource::Url(url) => (Source::Url(client(&url)?, url), None),
        };
        let keyring = Self {
            source,
            allowed,
            held: RwLock::new(held),
            fetching: Mutex::default(),
            refetched: Mutex::default(),
            waiting: Semaphore::new(MAX_WAITING),
            clock,
        };
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
        let _alone = self.fetching.lock().await;
        let fetched_at = self.clock.monotonic();
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
        let held = Held { set: Arc::new(set), fetched_at };
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(held);
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
        // Without an answer of the issuer nobody can say that it has no such key.
        if !self.refetch().await {
            return Err(TokenError::NoKeys);
        }
        self.held().ok_or(TokenError::NoKeys)?.find(kid, algorithm)
    }

    /// Whether the set that is held now was fetched because of this unknown key, or another one a short while ago.
    async fn refetch(&self) -> bool {
        let Ok(_waiting) = self.waiting.try_acquire() else { return false };
        let mut refetched = self.refetched.lock().await;
        let now = self.clock.monotonic();
        let at = match *refetched {
            Some(at) if now.saturating_sub(at) < MIN_REFRESH_INTERVAL => at,
            _ => {
                // Before the fetch: one that fails is not to be tried again at once either.
                *refetched = Some(now);
                if let Err(error) = self.refresh().await {
                    warn!(%error, "a token names a key that is not known, and there are no new keys");
                }
                now
            }
        };
        self.read_held().as_ref().is_some_and(|held| held.fetched_at >= at)
    }

    fn held(&self) -> Option<Arc<KeySet>> {
        let held = self.read_held();
        let held = held.as_ref()?;
        let age = self.clock.monotonic().saturating_sub(held.fetched_at);
        (matches!(self.source, Source::Fixed) || age < MAX_STALENESS).then(|| Arc::clone(&held.set))
    }

    fn read_held(&self) -> RwLockReadGuard<'_, Option<Held>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn client(url: &str) -> Result<Client, KeysError> {
    // A redirect could lead anywhere, also to plain HTTP.
    let client = Client::builder().connect_timeout(FETCH_WITHIN).timeout(FETCH_WITHIN);
    let client = client.redirect(redirect::Policy::none());
    // What is asked for on this host in plain text must not leave it by a proxy that is set for others.
    let client = if url.starts_with("http://") { client.no_proxy() } else { client };
    client.build().map_err(|error| KeysError::Unreachable(chain(error)))
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
    // A file on a network, or a pipe, may never answer.
    match tokio::time::timeout(FETCH_WITHIN, tokio::task::spawn_blocking(move || read(&path))).await {
        Ok(read) => read?,
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}
