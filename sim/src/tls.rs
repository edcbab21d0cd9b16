//! TLS on both sides: configurations from PEM, a client connection, and the accept loop of every TLS listener.
//!
//! TLS 1.2 stays on beside 1.3 because device SDKs pin it. The provider of cryptography is *ring*, named at each
//! place instead of installed for the process, so that a test or a library user is never affected.
//!
//! A server asks each client for a certificate and lets those without one go on, as IoT Hub does. Of one with a
//! certificate the handshake proves that it has the key; whether that lets it in is decided by the server's caller.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use crate::pki::IssuedCertificate;
use crate::secret::Secret;
use crate::x509::ClientCertificate;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// `accept` fails when the process has no file descriptor left; trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The client's side of a connection.
pub type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;
/// The server's side of a connection.
pub type ServerStream = tokio_rustls::server::TlsStream<TcpStream>;

/// A TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The text has no certificate.
    #[error("the text has no PEM certificate")]
    NoCertificate,
    /// Neither the system nor the caller gave a certificate authority.
    #[error("no certificate authority is trusted: the system has no store and none was given")]
    NoTrustAnchor,
    /// The text is not PEM.
    #[error("malformed PEM")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// Certificate and key do not fit, or are of an unknown kind.
    #[error("the certificate or its key cannot be used")]
    Tls(#[from] rustls::Error),
}

/// Whom a client trusts.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// The system's store (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured), and the given authorities.
    SystemAnd(Option<&'a str>),
    /// The given authorities alone.
    Only(&'a str),
}

/// Makes the configuration of a server from its certificate chain and key.
pub fn server_config(chain_pem: &str, key_pem: &Secret) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(chain_pem)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.expose().as_bytes())?;
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(PossessionVerifier { provider }))
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}

/// Takes any certificate of which the client proves to have the key.
#[derive(Debug)]
struct PossessionVerifier {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for PossessionVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain: Vec<_> = [end_entity].into_iter().chain(intermediates).cloned().collect();
        match ClientCertificate::from_chain(&chain) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(_) => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The other side of a server's connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it connects from.
    pub address: SocketAddr,
    /// The certificate that it has shown, and of which it has the key.
    pub certificate: Option<ClientCertificate>,
}

impl Peer {
    /// The other side of a connection whose handshake is done.
    pub fn of(stream: &ServerStream, address: SocketAddr) -> Self {
        let chain = stream.get_ref().1.peer_certificates();
        Self { address, certificate: chain.and_then(|chain| ClientCertificate::from_chain(chain).ok()) }
    }
}

/// Makes the configuration of a client.
pub fn client_config(trust: Trust<'_>) -> Result<Arc<ClientConfig>, TlsError> {
    client_config_as(trust, None)
}

/// Makes the configuration of a client that shows a certificate of its own when it is asked for one.
pub fn client_config_as(
    trust: Trust<'_>,
    certificate: Option<&IssuedCertificate>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    let given = match trust {
        Trust::SystemAnd(extra) => {
            // A broken file in the system's store must not hide the good ones beside it.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            extra
        }
        Trust::Only(pem) => Some(pem),
    };
    if let Some(pem) = given {
        for certificate in certificates(pem)? {
            roots.add(certificate)?;
        }
    }
    if roots.is_empty() {
        return Err(TlsError::NoTrustAnchor);
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match certificate {
        Some(IssuedCertificate { chain_pem, key_pem }) => {
            let key = PrivateKeyDer::from_pem_slice(key_pem.expose().as_bytes())?;
            config.with_client_auth_cert(certificates(chain_pem)?, key)?
        }
        None => config.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    if certificates.is_empty() { Err(TlsError::NoCertificate) } else { Ok(certificates) }
}

/// Where a server is, and the name that its certificate must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// DNS name or IP address; the name that is verified.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Connect here instead of resolving `host`, for a server that is published elsewhere under its own name.
    pub address: Option<SocketAddr>,
}

impl Endpoint {
    /// A server that is found by its name.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, address: None }
    }

    /// A server that is reached at `address` but proves to be `host`.
    pub fn at(host: impl Into<String>, address: SocketAddr) -> Self {
        Self { host: host.into(), port: address.port(), address: Some(address) }
    }
}

/// Connects and shakes hands. The caller sets the time limit.
pub async fn connect(endpoint: &Endpoint, config: Arc<ClientConfig>) -> io::Result<ClientStream> {
    let name = ServerName::try_from(endpoint.host.clone())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let stream = match endpoint.address {
        Some(address) => TcpStream::connect(address).await?,
        None => TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?,
    };
    stream.set_nodelay(true)?;
    TlsConnector::from(config).connect(name, stream).await
}

/// Accepts connections until `shutdown`, and gives each to `handler` after its handshake. At most `limit` are
/// open; further ones wait in the listener's backlog. On shutdown open connections are dropped.
pub async fn serve<H, F>(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    limit: usize,
    shutdown: CancellationToken,
    handler: H,
) where
    H: Fn(ServerStream, SocketAddr) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(config);
    let permits = Arc::new(Semaphore::new(limit));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &permits) => accepted,
        };
        let (stream, peer, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, handler) = (acceptor.clone(), handler.clone());
        connections.spawn(async move {
            let _permit = permit;
            match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => handler(stream, peer).await,
                Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "TLS handshake timed out"),
            }
        });
    }
    connections.shutdown().await;
}

/// Safe to cancel: a permit without a connection is given back.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, permit))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::pki::CertificateAuthority;

    /// A server that sends `hello` and waits for the client to close.
    struct Server {
        authority: CertificateAuthority,
        address: SocketAddr,
        shutdown: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    async fn start(limit: usize) -> Server {
        let authority = CertificateAuthority::generate("test CA").unwrap();
        let issued = authority.issue_server(&["server.test"], Duration::from_secs(3600)).unwrap();
        let config = server_config(&issued.chain_pem, &issued.key_pem).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let task =
            tokio::spawn(serve(listener, config, limit, shutdown.clone(), |mut stream, _| async move {
                let _ = stream.write_all(b"hello").await;
                let _ = stream.read_u8().await;
            }));
        Server { authority, address, shutdown, task }
    }

    async fn greet(server: &Server, host: &str, trust: Trust<'_>) -> io::Result<ClientStream> {
        let mut stream = connect(&Endpoint::at(host, server.address), client_config(trust).unwrap()).await?;
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting).await?;
        assert_eq!(&greeting, b"hello");
        Ok(stream)
    }

    #[tokio::test]
    async fn a_client_connects_when_it_trusts_the_authority_and_the_name_is_right() {
        let server = start(4).await;
        let pem = server.authority.certificate_pem();
        assert!(greet(&server, "server.test", Trust::Only(pem)).await.is_ok());
        assert!(greet(&server, "server.test", Trust::SystemAnd(Some(pem))).await.is_ok());
        assert!(greet(&server, "other.test", Trust::Only(pem)).await.is_err());
        assert!(greet(&server, "not a name", Trust::Only(pem)).await.is_err());
        let stranger = CertificateAuthority::generate("test CA").unwrap();
        assert!(greet(&server, "server.test", Trust::Only(stranger.certificate_pem())).await.is_err());
    }

    #[tokio::test]
    async fn a_client_that_pins_tls_1_2_connects() {
        let server = start(4).await;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(server.authority.certificate_pem()).unwrap());
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let endpoint = Endpoint::at("server.test", server.address);
        let stream = connect(&endpoint, Arc::new(config)).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    }

    #[tokio::test]
    async fn connections_above_the_limit_wait_until_one_closes() {
        let server = start(1).await;
        let pem = server.authority.certificate_pem();
        let first = greet(&server, "server.test", Trust::Only(pem)).await.unwrap();
        let mut second = Box::pin(greet(&server, "server.test", Trust::Only(pem)));
        assert!(timeout(Duration::from_millis(50), &mut second).await.is_err());
        drop(first);
        assert!(timeout(Duration::from_secs(5), second).await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn shutdown_drops_open_connections() {
        let server = start(4).await;
        let mut stream =
            greet(&server, "server.test", Trust::Only(server.authority.certificate_pem())).await.unwrap();
        server.shutdown.cancel();
        timeout(Duration::from_secs(5), server.task).await.unwrap().unwrap();
        assert!(!matches!(stream.read(&mut [0; 1]).await, Ok(1..)));
    }

    #[test]
    fn bad_pem_is_refused() {
        assert!(matches!(client_config(Trust::Only("")), Err(TlsError::NoCertificate)));
        assert!(matches!(client_config(Trust::Only("no PEM at all")), Err(TlsError::NoCertificate)));
        let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        assert!(matches!(client_config(Trust::Only(broken)), Err(TlsError::Pem(_))));
        let one = CertificateAuthority::generate("one").unwrap();
        let two = CertificateAuthority::generate("two").unwrap();
        assert!(matches!(server_config(one.certificate_pem(), two.key_pem()), Err(TlsError::Tls(_))));
        assert!(matches!(server_config(one.certificate_pem(), &Secret::new("")), Err(TlsError::Pem(_))));
    }
}
