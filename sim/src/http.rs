//! HTTP/1.1 over TLS, both sides: a small client, and a server loop for an axum router.
//!
//! The client opens a connection for each request, as the identity service of IoT Edge does; nothing here is
//! called often enough to need a pool. Sizes and times are bounded on both sides.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::tls::{self, Endpoint, Peer};

pub use hyper::{Method, Request, Response, StatusCode, header};

/// A request takes at most this long, unless the client is told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer that the client reads.
pub const MAX_RESPONSE: usize = 16 * 1024 * 1024;
/// A message over HTTPS has up to 100 properties, each of which is a header.
const MAX_HEADERS: usize = 160;
const MAX_HEAD_BYTES: usize = 32 * 1024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A request had no answer. An answer with an error status is not an error here.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection: name, address, or the server's certificate.
    #[error("failed to connect to {host}:{port}")]
    Connect {
        /// The server.
        host: String,
        /// Its port.
        port: u16,
        /// What went wrong.
        source: io::Error,
    },
    /// The time limit passed.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The exchange broke off or was not HTTP.
    #[error("the exchange with the server failed")]
    Protocol(#[from] hyper::Error),
    /// The request has no valid head.
    #[error("the request is malformed")]
    Request(#[from] hyper::http::Error),
    /// The answer is larger than [`MAX_RESPONSE`], or broke off.
    #[error("failed to read the answer")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A client of one server.
#[derive(Debug, Clone)]
pub struct HttpClient {
    endpoint: Endpoint,
    tls: Arc<ClientConfig>,
    limit: Duration,
}

impl HttpClient {
    /// A client with the default time limit.
    pub fn new(endpoint: Endpoint, tls: Arc<ClientConfig>) -> Self {
        Self { endpoint, tls, limit: DEFAULT_TIMEOUT }
    }

    /// The same client with another time limit for a whole request.
    pub fn with_timeout(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// The server.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends a request, whose URI is a path with an optional query, and reads the whole answer.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // Boxed, for it is large, and every caller would hold it on its stack.
        let exchange = Box::pin(self.exchange(request));
        timeout(self.limit, exchange).await.map_err(|_| HttpError::Timeout(self.limit))?
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let stream = tls::connect(&self.endpoint, self.tls.clone()).await.map_err(|source| {
            HttpError::Connect { host: self.endpoint.host.clone(), port: self.endpoint.port, source }
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut request = request.map(Full::new);
        request.headers_mut().insert(HOST, self.host_header()?);
        let answer = async {
            let response = sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_RESPONSE).collect().await.map_err(HttpError::Body)?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        // The connection is driven here, not by a task of its own, so that nothing outlives a cancelled request.
        tokio::pin!(answer, connection);
        tokio::select! {
            answer = &mut answer => answer,
            closed = &mut connection => {
                closed?;
                answer.await
            }
        }
    }

    fn host_header(&self) -> Result<HeaderValue, HttpError> {
        let Endpoint { host, port, .. } = &self.endpoint;
        let text = if *port == 443 { host.clone() } else { format!("{host}:{port}") };
        HeaderValue::try_from(text).map_err(|error| HttpError::Request(error.into()))
    }
}

/// Work that goes on with a connection after its last answer, which let the client change to another protocol. Each
/// request has one as an extension; the connection counts as open until the work is done.
#[derive(Clone, Default)]
pub struct AfterUpgrade(Arc<Mutex<Option<BoxFuture<'static, ()>>>>);

impl AfterUpgrade {
    /// To be run when the answer is sent.
    pub fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::pin(work));
    }

    fn take(&self) -> Option<BoxFuture<'static, ()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Marks an answer that is not to be given: the connection is closed in its place.
#[derive(Debug, Clone, Copy)]
pub struct CloseConnection;

impl CloseConnection {
    /// The answer of a handler that wants the connection closed.
    pub fn response() -> axum::response::Response {
        let mut response = axum::response::Response::new(axum::body::Body::empty());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.extensions_mut().insert(Self);
        response
    }
}

/// Gives an error that the framework made itself the body that `write` has for its status. The other headers stay.
pub(crate) fn error_in_json(
    mut response: axum::response::Response,
    write: impl FnOnce(StatusCode) -> axum::response::Response,
) -> axum::response::Response {
    let status = response.status();
    let is_json = response.headers().get(CONTENT_TYPE);
    let is_json = is_json.is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (written, body) = write(status).into_parts();
    response.headers_mut().remove(CONTENT_LENGTH);
    response.headers_mut().extend(written.headers);
    *response.body_mut() = body;
    response
}

/// Serves `router` over TLS until `shutdown`, with at most `limit` connections. Each request has the [`Peer`] that it
/// comes from as an extension.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    limit: usize,
    shutdown: CancellationToken,
    router: axum::Router,
) {
    tls::serve(listener, tls, limit, shutdown, move |stream, peer| {
        let (router, peer) = (router.clone(), Peer::of(&stream, peer));
        async move {
            let address = peer.address;
            if let Err(error) = serve_connection(stream, peer, router).await {
                tracing::debug!(peer = %address, %error, "HTTP connection ended");
            }
        }
    })
    .await;
}

async fn serve_connection<S>(stream: S, peer: Peer, router: axum::Router) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut server = hyper::server::conn::http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES);
    let (router, after) = (TowerToHyperService::new(router), AfterUpgrade::default());
    let for_requests = after.clone();
    let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(for_requests.clone());
        let answer = router.call(request);
        async move {
            match answer.await {
                Ok(answer) if answer.extensions().get::<CloseConnection>().is_some() => {
                    Err(io::Error::from(io::ErrorKind::ConnectionAborted))
                }
                Ok(answer) => Ok(answer),
                Err(never) => match never {},
            }
        }
    });
    server.serve_connection(TokioIo::new(stream), service).with_upgrades().await?;
    if let Some(work) = after.take() {
        work.await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::response::IntoResponse;
    use axum::routing::{get, post};
    use http_body_util::LengthLimitError;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::pki::CertificateAuthority;
    use crate::tls::{Trust, client_config, server_config};

    async fn start() -> (HttpClient, CancellationToken) {
        let authority = CertificateAuthority::generate("test CA").unwrap();
        let issued = authority.issue_server(&["server.test"], Duration::from_secs(3600)).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let endpoint = Endpoint::at("server.test", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/echo", post(|body: String| async move { body }))
            .route(
                "/host",
                get(|headers: header::HeaderMap| async move { headers[HOST].as_bytes().to_vec() }),
            )
            .route("/large", get(|| async { vec![0_u8; MAX_RESPONSE + 1] }))
            .route("/never", get(std::future::pending::<()>));
        let (shutdown, tls) = (CancellationToken::new(), server_config(&issued.chain_pem, &issued.key_pem));
        tokio::spawn(serve(listener, tls.unwrap(), 8, shutdown.clone(), router));
        let tls = client_config(Trust::Only(authority.certificate_pem())).unwrap();
        (HttpClient::new(endpoint, tls), shutdown)
    }

    fn request(method: Method, path: &str, body: &'static str) -> Request<Bytes> {
        Request::builder().method(method).uri(path).body(Bytes::from(body)).unwrap()
    }

    #[tokio::test]
    async fn a_request_is_answered_and_an_error_status_is_an_answer() {
        let (client, _shutdown) = start().await;
        let response = client.send(request(Method::POST, "/echo", "hello")).await.unwrap();
        assert_eq!((response.status(), response.body().as_ref()), (StatusCode::OK, b"hello".as_slice()));
        let response = client.send(request(Method::GET, "/missing", "")).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        let host = client.send(request(Method::GET, "/host", "")).await.unwrap().into_body();
        assert_eq!(host, format!("server.test:{}", client.endpoint().port));
    }

    #[tokio::test]
    async fn an_error_gets_another_body_and_keeps_its_headers() {
        let text = |status, kind: &'static str| {
            let headers = [("content-type", kind), ("content-length", "4"), ("retry-after", "7")];
            (status, headers, "text").into_response()
        };
        let write = |status: StatusCode| ([("content-type", "application/json")], status.as_str().to_owned());
        for (status, kind, expected) in [
            (StatusCode::CONFLICT, "text/plain", ("application/json", "409", false)),
            (
                StatusCode::CONFLICT,
                "application/json; charset=utf-8",
                ("application/json; charset=utf-8", "text", true),
            ),
            (StatusCode::OK, "text/plain", ("text/plain", "text", true)),
        ] {
            let answer = error_in_json(text(status, kind), |status| write(status).into_response());
            let (head, body) = answer.into_parts();
            assert_eq!((head.status, head.headers["retry-after"].as_bytes()), (status, b"7".as_slice()));
            let body = body.collect().await.unwrap().to_bytes();
            let has_length = head.headers.contains_key(CONTENT_LENGTH);
            let kind = head.headers[CONTENT_TYPE].to_str().unwrap();
            assert_eq!((kind, str::from_utf8(&body).unwrap(), has_length), expected);
        }
    }

    #[tokio::test]
    async fn a_slow_or_too_large_answer_is_an_error() {
        let (client, _shutdown) = start().await;
        let large = client.send(request(Method::GET, "/large", "")).await;
        assert!(matches!(large, Err(HttpError::Body(source)) if source.is::<LengthLimitError>()));
        let client = client.with_timeout(Duration::from_millis(50));
        let slow = client.send(request(Method::GET, "/never", "")).await;
        assert!(matches!(slow, Err(HttpError::Timeout(_))));
    }

    #[tokio::test]
    async fn no_listener_or_an_untrusted_server_is_a_connect_error() {
        let (client, _shutdown) = start().await;
        let stranger = CertificateAuthority::generate("stranger").unwrap();
        let tls = client_config(Trust::Only(stranger.certificate_pem())).unwrap();
        let untrusting = HttpClient::new(client.endpoint().clone(), tls.clone());
        let error = untrusting.send(request(Method::GET, "/host", "")).await.unwrap_err();
        assert!(matches!(error, HttpError::Connect { .. }));
        let free = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
        let nobody = HttpClient::new(Endpoint::at("server.test", free), tls);
        assert!(matches!(nobody.send(request(Method::GET, "/", "")).await, Err(HttpError::Connect { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_no_request_or_half_of_one_is_dropped() {
        for sent in ["", "GET / HTTP/1.1\r\nHost: x"] {
            let (mut client, server) = tokio::io::duplex(1024);
            let started = tokio::time::Instant::now();
            let peer = Peer { address: ([127, 0, 0, 1], 1).into(), certificate: None };
            let serving = tokio::spawn(serve_connection(server, peer, Router::new()));
            client.write_all(sent.as_bytes()).await.unwrap();
            assert!(serving.await.unwrap().is_err(), "{sent:?}");
            assert_eq!(started.elapsed().as_secs(), HEAD_TIMEOUT.as_secs(), "{sent:?}");
        }
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused() {
        let (client, _shutdown) = start().await;
        let mut large = request(Method::GET, "/host", "");
        let value = HeaderValue::try_from("x".repeat(4 * MAX_HEAD_BYTES)).unwrap();
        large.headers_mut().insert("x-large", value);
        // The server closes without reading the rest, so the answer may be lost while the head is still sent.
        let answer = client.send(large).await.map(|response| response.status());
        assert!(matches!(answer, Err(_) | Ok(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)), "{answer:?}");
    }
}
