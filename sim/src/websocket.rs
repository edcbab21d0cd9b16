//! MQTT over WebSockets, as a byte stream: for clients behind proxies that let only HTTPS through.
//!
//! Frames have nothing to do with packets: a packet may be split over frames, and a frame may have several packets.
//! Pings are answered, a close is answered by a close, and a text frame is an error.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::{Buf, Bytes};
use futures_util::{SinkExt, StreamExt};
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::http::AfterUpgrade;
use crate::tls::{self, ClientStream, Endpoint};

/// Where IoT Hub and the gateway of an edge device listen.
pub const PATH: &str = "/$iothub/websocket";
const PROTOCOL: &str = "mqtt";
const VERSION: &str = "13";
/// The largest frame that is sent; larger writes take several.
const MAX_SENT_FRAME: usize = 64 * 1024;
/// The largest message that is taken, all its frames together. A larger packet needs several messages.
const MAX_MESSAGE: usize = 1024 * 1024;
const BUFFER: usize = 4 * 1024;

/// A WebSocket connection as a stream of bytes.
#[derive(Debug)]
pub struct ByteStream<S> {
    socket: WebSocketStream<S>,
    /// What was received and is not yet read.
    received: Bytes,
}

/// The server's side of a connection.
pub type ServerByteStream = ByteStream<TokioIo<Upgraded>>;

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_MESSAGE)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

/// Connects to a server's [`PATH`].
pub async fn connect(endpoint: &Endpoint, tls: Arc<ClientConfig>) -> io::Result<ByteStream<ClientStream>> {
    let stream = tls::connect(endpoint, tls).await?;
    // The parameter is what the SDKs send.
    let uri = format!("wss://{}{PATH}?iothub-no-client-cert=true", endpoint.host);
    let mut request = uri.into_client_request().map_err(into_io)?;
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    let answered = tokio_tungstenite::client_async_with_config(request, stream, Some(config())).await;
    let (socket, _) = answered.map_err(into_io)?;
    Ok(ByteStream { socket, received: Bytes::new() })
}

/// Answers the request of a client that wants a WebSocket for MQTT. When it may have one, `serve` gets the
/// connection, and runs in its place.
pub fn accept<F, Fut>(mut request: Request, serve: F) -> Response
where
    F: FnOnce(ServerByteStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let Some(key) = wanted(&request) else {
        let headers = [(SEC_WEBSOCKET_VERSION, VERSION)];
        return (StatusCode::BAD_REQUEST, headers).into_response();
    };
    let Some(after) = request.extensions().get::<AfterUpgrade>().cloned() else {
        return StatusCode::NOT_IMPLEMENTED.into_response();
    };
    let upgrade = hyper::upgrade::on(&mut request);
    after.run(async move {
        match upgrade.await {
            Ok(upgraded) => {
                serve(ByteStream::accepted(TokioIo::new(upgraded)).await).await;
            }
            Err(error) => tracing::debug!(%error, "no WebSocket"),
        }
    });
    let headers = [
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL)),
        (SEC_WEBSOCKET_ACCEPT, key),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
}

/// The key for the answer, when the request is one for a WebSocket with MQTT.
fn wanted(request: &Request) -> Option<HeaderValue> {
    let headers = request.headers();
    let valid = request.method() == Method::GET
        && has(headers, &CONNECTION, "upgrade")
        && has(headers, &UPGRADE, "websocket")
        && has(headers, &SEC_WEBSOCKET_VERSION, VERSION)
        && has(headers, &SEC_WEBSOCKET_PROTOCOL, PROTOCOL);
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| valid)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}

/// True when a header, which may stand several times, has the value in its list.
fn has(headers: &HeaderMap, name: &HeaderName, value: &str) -> bool {
    let lists = headers.get_all(name).into_iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|entry| entry.trim().eq_ignore_ascii_case(value))
}

impl<S: AsyncRead + AsyncWrite + Unpin> ByteStream<S> {
    /// The server's side of a connection on which a WebSocket was agreed on.
    pub async fn accepted(stream: S) -> Self {
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config())).await;
        Self { socket, received: Bytes::new() }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ByteStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.received.is_empty() {
            match ready!(this.socket.poll_next_unpin(context)) {
                Some(Ok(Message::Binary(bytes))) => this.received = bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                // The answer to a close is sent by the next read, which then finds the end.
                Some(Ok(Message::Close(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    let reason = "a text frame has no MQTT";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason)));
                }
                Some(Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed))
                | None => {
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
            }
        }
        let count = this.received.len().min(buffer.remaining());
        buffer.put_slice(&this.received.split_to(count));
        if !this.received.has_remaining() {
            // Gives the memory back.
            this.received = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ByteStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.socket.poll_ready_unpin(context)).map_err(into_io)?;
        let count = bytes.len().min(MAX_SENT_FRAME);
        let frame = Bytes::copy_from_slice(bytes.get(..count).unwrap_or_default());
        this.socket.start_send_unpin(Message::Binary(frame)).map_err(into_io)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().socket.poll_flush_unpin(context).map_err(into_io)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.get_mut().socket.poll_close_unpin(context)) {
            Ok(()) | Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => {
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(into_io(error))),
        }
    }
}

fn into_io(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            io::ErrorKind::BrokenPipe.into()
        }
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    async fn pair() -> (WebSocketStream<DuplexStream>, ByteStream<DuplexStream>) {
        let (one, two) = duplex(4 * MAX_MESSAGE);
        let peer = WebSocketStream::from_raw_socket(one, Role::Client, None).await;
        (peer, ByteStream::accepted(two).await)
    }

    fn binary(bytes: impl Into<Bytes>) -> Message {
        Message::Binary(bytes.into())
    }

    #[tokio::test]
    async fn frames_are_read_as_one_stream_whatever_their_sizes() {
        let (mut peer, mut stream) = pair().await;
        for frame in [&b"ab"[..], b"", b"c", b"defg"] {
            peer.send(binary(frame.to_vec())).await.unwrap();
        }
        peer.send(Message::Ping(Bytes::from_static(b"?"))).await.unwrap();
        peer.send(binary("h")).await.unwrap();
        let mut read = [0; 5];
        stream.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"abcde");
        stream.read_exact(&mut read[..3]).await.unwrap();
        assert_eq!(&read[..3], b"fgh");
        assert_eq!(peer.next().await.unwrap().unwrap(), Message::Pong(Bytes::from_static(b"?")));
    }

    #[tokio::test]
    async fn what_is_written_comes_in_binary_frames_and_a_close_is_answered() {
        let (mut peer, mut stream) = pair().await;
        let data: Vec<u8> = (0..MAX_SENT_FRAME + 3).map(|n| n as u8).collect();
        stream.write_all(&data).await.unwrap();
        stream.flush().await.unwrap();
        let mut received = Vec::new();
        while received.len() < data.len() {
            match peer.next().await.unwrap().unwrap() {
                Message::Binary(bytes) => received.extend_from_slice(&bytes),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(received, data);
        peer.send(Message::Close(None)).await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(matches!(peer.next().await, Some(Ok(Message::Close(_)))));
    }

    #[tokio::test]
    async fn a_shutdown_is_a_close() {
        let (mut peer, mut stream) = pair().await;
        let closing = async { stream.shutdown().await };
        let (closed, frame) = tokio::join!(closing, peer.next());
        closed.unwrap();
        assert!(matches!(frame, Some(Ok(Message::Close(_)))));
    }

    #[tokio::test]
    async fn text_and_what_is_too_large_is_refused() {
        for message in [Message::Text("x".into()), binary(vec![0; MAX_MESSAGE + 1])] {
            let (mut peer, mut stream) = pair().await;
            peer.send(message).await.unwrap();
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        let (peer, mut stream) = pair().await;
        drop(peer);
        assert!(!matches!(stream.read(&mut [0; 1]).await, Ok(1..)));
    }

    #[test]
    fn only_a_request_for_a_websocket_with_mqtt_is_one() {
        let good = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "other, mqtt"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let request = |leave_out: Option<&str>, method: Method| {
            let mut request = Request::builder().method(method).uri(PATH);
            for (name, value) in good.iter().filter(|(name, _)| Some(*name) != leave_out) {
                request = request.header(*name, *value);
            }
            request.body(Body::empty()).unwrap()
        };
        // The example of RFC 6455.
        assert_eq!(wanted(&request(None, Method::GET)).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for (name, _) in good {
            assert!(wanted(&request(Some(name), Method::GET)).is_none(), "{name}");
        }
        assert!(wanted(&request(None, Method::POST)).is_none());
    }
}
