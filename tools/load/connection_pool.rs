//! A bounded pool of HTTP/1.1 keep-alive connections, plain or TLS, for one thread.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::rt::{Read, Write};
use hyper::service::Service;
use hyper::{Method, Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;

use crate::options::Options;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Body = Full<Bytes>;

/// Opens connections. All threads share one connector, because loading the certificates is slow.
#[derive(Clone)]
pub enum Connector {
    Plain(TowerToHyperService<HttpConnector>),
    Tls(TowerToHyperService<HttpsConnector<HttpConnector>>),
}

pub struct ConnectionPool {
    connector: Connector,
    base_url: Uri,
    /// Headers that every request contains.
    headers: HeaderMap,
    timeout: Duration,
    idle: RefCell<Vec<SendRequest<Body>>>,
    permits: Semaphore,
    pub opened: Cell<u64>,
}

pub struct Response {
    /// `None` if the connection failed or the request timed out.
    pub status: Option<u16>,
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
        let tls = tls.map_err(|error| format!("cannot load the certificates of this host: {error}"))?;
        Ok(Self::Tls(TowerToHyperService::new(tls.https_only().enable_http1().wrap_connector(tcp))))
    }
}

impl ConnectionPool {
    pub fn new(options: &Options, connector: Connector, max_connections: usize) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        let host = options.base_url.authority().map_or("", |authority| authority.as_str());
        headers.insert(HOST, HeaderValue::from_str(host).map_err(|error| format!("--base-url: {error}"))?);
        if let Some(token) = &options.token {
            let value = HeaderValue::from_str(&format!("Bearer {token}"));
            headers.insert(AUTHORIZATION, value.map_err(|error| format!("the token: {error}"))?);
        }
        Ok(Self {
            connector,
            base_url: options.base_url.clone(),
            headers,
            timeout: options.timeout_seconds,
            idle: RefCell::default(),
            permits: Semaphore::new(max_connections),
            opened: Cell::new(0),
        })
    }

    /// Opens one connection to check whether the service is reachable.
    pub async fn check(&self) -> Result<(), String> {
        let error = match tokio::time::timeout(self.timeout, self.open()).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => with_sources(&*error),
            Err(_) => "timed out".to_owned(),
        };
        Err(format!("cannot reach {}: {error}", self.base_url))
    }

    /// The request target for `path`, which is relative to the base URL.
    pub fn target(&self, path: &str) -> Uri {
        let base = self.base_url.path().trim_end_matches('/');
        format!("{base}{path}").parse().unwrap_or_default()
    }

    /// Whether the next request has to wait for a connection.
    pub fn all_busy(&self) -> bool {
        self.permits.available_permits() == 0
    }

    /// Sends a request. The timeout includes the wait for a connection.
    pub async fn send(&self, mut request: Request<Body>) -> Response {
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        match tokio::time::timeout(self.timeout, self.try_send(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(_)) | Err(_) => Response { status: None, retry_after: None, body: Bytes::new() },
        }
    }

    async fn try_send(&self, request: Request<Body>) -> Result<Response, Error> {
        let _permit = self.permits.acquire().await?;
        let (connection, response) = self.send_on_any_connection(request).await?;
        let status = Some(response.status().as_u16());
        let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.into_body().collect().await?.to_bytes();
        self.idle.borrow_mut().push(connection);
        Ok(Response { status, retry_after: seconds.map(Duration::from_secs), body })
    }

    /// Sends a request on an idle or a new connection. The server may close an idle connection at any time. If the request
    /// could not be sent for this reason, tries another connection.
    async fn send_on_any_connection(
        &self,
        mut request: Request<Body>,
    ) -> Result<(SendRequest<Body>, hyper::Response<Incoming>), Error> {
        loop {
            let idle = self.idle.borrow_mut().pop();
            let mut connection = match idle {
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
            Connector::Plain(connector) => spawn_connection(connector.call(url).await?).await?,
            Connector::Tls(connector) => spawn_connection(connector.call(url).await?).await?,
        };
        self.opened.set(self.opened.get() + 1);
        Ok(connection)
    }
}

async fn spawn_connection(stream: impl Read + Write + Unpin + 'static) -> Result<SendRequest<Body>, hyper::Error> {
    let (sender, connection) = handshake(stream).await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

/// A request with an empty body.
pub fn request(method: Method, target: &Uri) -> Request<Body> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = method;
    *request.uri_mut() = target.clone();
    request
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {}", with_sources(source)));
    format!("{error}{}", source.unwrap_or_default())
}
