//! A bounded number of HTTP/1.1 connections of one thread, plain or TLS, each kept for as long as it lasts. Knows
//! nothing of what is asked.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::rt::{Read, Write};
use hyper::service::Service;
use hyper::{Method, Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;

use crate::options::Options;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Body = Full<Bytes>;

/// How connections are opened. One is enough for all threads.
#[derive(Clone)]
pub enum Connector {
    Plain(TowerToHyperService<HttpConnector>),
    Tls(TowerToHyperService<HttpsConnector<HttpConnector>>),
}

pub struct Connections {
    connector: Connector,
    base_url: Uri,
    /// What every request has.
    headers: HeaderMap,
    timeout: Duration,
    free: RefCell<Vec<SendRequest<Body>>>,
    places: Semaphore,
    pub opened: Cell<u64>,
}

pub struct Reply {
    /// 0 for no answer.
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub body: Bytes,
}

impl Connector {
    pub fn new(base_url: &Uri) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        if base_url.scheme_str() == Some("http") {
            return Ok(Self::Plain(TowerToHyperService::new(tcp)));
        }
        tcp.enforce_http(false);
        let tls = HttpsConnectorBuilder::new().with_native_roots();
        let tls = tls.map_err(|error| format!("the certificates of this host: {error}"))?;
        Ok(Self::Tls(TowerToHyperService::new(tls.https_only().enable_http1().wrap_connector(tcp))))
    }
}

impl Connections {
    pub fn new(options: &Options, connector: Connector, places: usize) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        let host = options.base_url.authority().map_or("", |authority| authority.as_str());
        headers.insert(HOST, HeaderValue::from_str(host).map_err(|error| format!("the host: {error}"))?);
        if let Some(token) = &options.token {
            let value = HeaderValue::from_str(&format!("Bearer {token}"));
            headers.insert(AUTHORIZATION, value.map_err(|error| format!("the token: {error}"))?);
        }
        Ok(Self {
            connector,
            base_url: options.base_url.clone(),
            headers,
            timeout: options.timeout_seconds,
            free: RefCell::default(),
            places: Semaphore::new(places),
            opened: Cell::new(0),
        })
    }

    /// Whether there is a service at all.
    pub async fn try_one(&self) -> Result<(), String> {
        let opened = tokio::time::timeout(self.timeout, self.open()).await;
        let error = match opened {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => causes(&*error),
            Err(_) => "no connection in time".to_owned(),
        };
        Err(format!("cannot reach {}: {error}", self.base_url))
    }

    /// A path below the base URL, ready to be asked any number of times.
    pub fn target(&self, rest: &str) -> Uri {
        let base = self.base_url.path().trim_end_matches('/');
        format!("{base}{rest}").parse().unwrap_or_default()
    }

    /// Whether the next request would have to wait for a connection.
    pub fn all_busy(&self) -> bool {
        self.places.available_permits() == 0
    }

    /// Waits for a connection too, all within the timeout.
    pub async fn ask(&self, mut request: Request<Body>) -> Reply {
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        match tokio::time::timeout(self.timeout, self.send(request)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) | Err(_) => Reply { status: 0, retry_after: None, body: Bytes::new() },
        }
    }

    async fn send(&self, request: Request<Body>) -> Result<Reply, Error> {
        let _place = self.places.acquire().await?;
        let (connection, response) = self.respond(request).await?;
        let status = response.status().as_u16();
        let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.into_body().collect().await?.to_bytes();
        self.free.borrow_mut().push(connection);
        Ok(Reply { status, retry_after: seconds.map(Duration::from_secs), body })
    }

    /// A kept connection may have been closed meanwhile: what was not sent on it goes on another.
    async fn respond(
        &self,
        mut request: Request<Body>,
    ) -> Result<(SendRequest<Body>, Response<hyper::body::Incoming>), Error> {
        loop {
            let kept = self.free.borrow_mut().pop();
            let mut connection = match kept {
                Some(mut connection) => match connection.ready().await {
                    Ok(()) => connection,
                    Err(_) => continue,
                },
                None => self.open().await?,
            };
            match connection.try_send_request(request).await {
                Ok(response) => return Ok((connection, response)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
    }

    async fn open(&self) -> Result<SendRequest<Body>, Error> {
        let url = self.base_url.clone();
        let connection = match &self.connector {
            Connector::Plain(connector) => begin(connector.call(url).await?).await?,
            Connector::Tls(connector) => begin(connector.call(url).await?).await?,
        };
        self.opened.set(self.opened.get() + 1);
        Ok(connection)
    }
}

async fn begin(stream: impl Read + Write + Unpin + 'static) -> Result<SendRequest<Body>, hyper::Error> {
    let (connection, driver) = handshake(stream).await?;
    tokio::task::spawn_local(driver);
    Ok(connection)
}

pub fn request(method: Method, target: &Uri, body: &'static str) -> Request<Body> {
    let mut request = Request::new(Full::new(Bytes::from_static(body.as_bytes())));
    *request.method_mut() = method;
    *request.uri_mut() = target.clone();
    request
}

fn causes(error: &dyn std::error::Error) -> String {
    let next = error.source().map(|source| format!(": {}", causes(source)));
    format!("{error}{}", next.unwrap_or_default())
}
