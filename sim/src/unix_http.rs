//! HTTP/1.1 over unix sockets, both sides: the runtime's local APIs and their clients.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A local service answers at once or not at all.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_RESPONSE: usize = 1024 * 1024;

/// Why a request over a unix socket failed.
#[derive(Debug, thiserror::Error)]
pub enum UnixHttpError {
    /// Nobody listens on the socket.
    #[error("cannot connect to {path}: {source}")]
    Connect {
        /// The socket.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The exchange broke off.
    #[error("the request failed: {0}")]
    Exchange(String),
    /// The service does not answer.
    #[error("no answer within {} seconds", REQUEST_TIMEOUT.as_secs())]
    Timeout,
}

/// Sends one request and reads the whole answer.
pub async fn request(
    socket: &Path,
    method: Method,
    path_and_query: &str,
    body: Bytes,
) -> Result<Response<Bytes>, UnixHttpError> {
    timeout(REQUEST_TIMEOUT, exchange(socket, method, path_and_query, body))
        .await
        .map_err(|_| UnixHttpError::Timeout)?
}

async fn exchange(
    socket: &Path,
    method: Method,
    path_and_query: &str,
    body: Bytes,
) -> Result<Response<Bytes>, UnixHttpError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| UnixHttpError::Connect { path: socket.display().to_string(), source })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let request = Request::builder()
        .method(method)
        .uri(path_and_query)
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(failed)?;
    let answer = async {
        let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
        let body = Limited::new(body, MAX_RESPONSE).collect().await.map_err(failed)?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        closed = &mut connection => {
            closed.map_err(failed)?;
            answer.await
        }
    }
}

fn failed(error: impl std::fmt::Display) -> UnixHttpError {
    UnixHttpError::Exchange(error.to_string())
}

/// Listens on a socket file with the given mode, in place of one that a former process left.
pub async fn listen(path: &Path, mode: u32) -> std::io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs_err::tokio::create_dir_all(folder).await?;
    }
    match fs_err::tokio::remove_file(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(|error| {
        std::io::Error::new(error.kind(), format!("failed to listen on {}: {error}", path.display()))
    })?;
    fs_err::tokio::set_permissions(path, std::fs::Permissions::from_mode(mode)).await?;
    Ok(listener)
}

/// Serves the router until the shutdown.
pub async fn serve(listener: UnixListener, router: Router, shutdown: CancellationToken) {
    let stop = shutdown.clone();
    let server = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    // Open connections are dropped on shutdown: a client that holds one must not delay the exit.
    if let Some(Err(error)) = shutdown.run_until_cancelled(server.into_future()).await {
        tracing::warn!("A local API ended: {error}");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::post;

    use super::*;

    #[tokio::test]
    async fn a_request_is_answered_over_the_socket_and_a_stale_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/api.sock");
        drop(listen(&path, 0o600).await.unwrap());
        let listener = listen(&path, 0o666).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        let shutdown = CancellationToken::new();
        let router = Router::new().route("/echo", post(|body: Bytes| async move { body }));
        let server = tokio::spawn(serve(listener, router, shutdown.clone()));
        let answer = request(&path, Method::POST, "/echo?a=b", Bytes::from_static(b"hello")).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (200, b"hello".as_slice()));
        shutdown.cancel();
        server.await.unwrap();
        let gone = request(&path, Method::GET, "/", Bytes::new()).await;
        assert!(matches!(gone, Err(UnixHttpError::Connect { .. })));
        assert!(matches!(
            request(&path, Method::GET, "not a uri", Bytes::new()).await,
            Err(UnixHttpError::Connect { .. })
        ));
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_folder_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs_err::write(&file, "").unwrap();
        let error = listen(&file.join("api.sock"), 0o600).await.unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
    }
}
