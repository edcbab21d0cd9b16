//! A client of container registries, as far as looking up an image goes: the distribution API of the OCI, with a login by
//! Basic authentication or through the token server that the registry names.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, LOCATION, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use kedge_sim::http::{HttpClient, MAX_RESPONSE};
use kedge_sim::secret::Secret;
use kedge_sim::tls::{Endpoint, Trust, client_config};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::engine::Login;
use crate::image_reference::DOCKER_HUB;

const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// An engine pushes a manifest or an index, in Docker's format or in OCI's.
const MANIFEST_TYPES: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";

/// A registry, and how to log in there.
#[derive(Debug)]
pub struct RegistryClient {
    host: String,
    login: Option<Login>,
}

/// An image as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its digest.
    pub digest: String,
    /// What it runs on, such as `linux/amd64`.
    pub platforms: Vec<String>,
}

impl RegistryClient {
    /// A client of the registry called `host`, with or without a port.
    pub fn new(host: impl Into<String>, login: Option<Login>) -> Self {
        Self { host: host.into(), login }
    }

    /// What the registry answers when it is asked whether it is one.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn ping(&self) -> Result<StatusCode> {
        Ok(self.ask(Method::GET, "/v2/").await?.status())
    }

    /// The digest of the image with this tag; none when the registry has no such image.
    ///
    /// # Errors
    /// When the registry does not answer, or refuses.
    pub async fn digest(&self, repository: &str, tag: &str) -> Result<Option<String>> {
        let response = self.ask(Method::HEAD, &format!("/v2/{repository}/manifests/{tag}")).await?;
        match response.status() {
            StatusCode::OK => {
                let header = response.headers().get("docker-content-digest");
                let digest = header.and_then(|value| value.to_str().ok());
                Ok(Some(digest.context("the registry tells no digest")?.to_owned()))
            }
            StatusCode::NOT_FOUND => Ok(None),
            other => bail!("the registry answers {other} when asked for `{repository}:{tag}`"),
        }
    }

    /// The image with this tag or digest, and what it runs on.
    ///
    /// # Errors
    /// When the registry does not answer, refuses, or has no such image.
    pub async fn find(&self, repository: &str, tag_or_digest: &str) -> Result<Found> {
        let path = format!("/v2/{repository}/manifests/{tag_or_digest}");
        let response = self.ask(Method::GET, &path).await?;
        let image = format!("`{}/{repository}`, {tag_or_digest}", self.host);
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => bail!("the registry `{}` has no image {image}", self.host),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => bail!(
                "the registry `{}` does not let {} read {image}; `--registry-login` names another login",
                self.host,
                self.login
                    .as_ref()
                    .map_or("anybody".into(), |login| format!("the user `{}`", login.username))
            ),
            other => bail!("the registry `{}` answers {other} when asked for {image}", self.host),
        }
        // The digest is that of what was sent, whatever a header says.
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(response.body())));
        ensure!(
            !tag_or_digest.starts_with("sha256:") || tag_or_digest == digest,
            "the registry `{}` sends something else for {image}, with the digest {digest}",
            self.host
        );
        let manifest: Value = serde_json::from_slice(response.body())
            .with_context(|| format!("the manifest of the image {image} is not JSON"))?;
        let platforms = match manifest["manifests"].as_array() {
            Some(entries) => entries.iter().filter_map(|entry| platform(&entry["platform"])).collect(),
            None => self.platform_of_config(repository, &manifest).await?.into_iter().collect(),
        };
        Ok(Found { digest, platforms })
    }

    async fn platform_of_config(&self, repository: &str, manifest: &Value) -> Result<Option<String>> {
        let Some(digest) = manifest["config"]["digest"].as_str() else { return Ok(None) };
        let mut response = self.ask(Method::GET, &format!("/v2/{repository}/blobs/{digest}")).await?;
        if response.status().is_redirection() {
            // To where the registry keeps blobs, which knows no login.
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let uri: Uri = location.context("the registry redirects to nowhere")?.parse()?;
            response = fetch(&Method::GET, &uri, None).await?;
        }
        Ok(serde_json::from_slice(response.body()).ok().and_then(|config: Value| platform(&config)))
    }

    /// Asks with the login: the registry is asked again in the way in which it wants to be.
    async fn ask(&self, method: Method, path: &str) -> Result<Response<Bytes>> {
        let uri: Uri = format!("{}{path}", self.base()).parse()?;
        let exchange = async {
            let response = fetch(&method, &uri, self.basic().as_ref()).await?;
            let challenge = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
            let challenge = challenge.and_then(Challenge::of);
            match challenge.filter(|_| response.status() == StatusCode::UNAUTHORIZED) {
                Some(challenge) => match self.token(&challenge).await? {
                    Some(token) => fetch(&method, &uri, Some(&token)).await,
                    None => Ok(response),
                },
                None => Ok(response),
            }
        };
        exchange.await.with_context(|| format!("failed to ask the registry `{}`", self.host))
    }

    /// Gets a token for what the challenge asks for, as the value of a header; none when the login is refused.
    async fn token(&self, challenge: &Challenge) -> Result<Option<Secret>> {
        let mut query = format!("service={}", percent(&challenge.service));
        if let Some(scope) = &challenge.scope {
            query += &format!("&scope={}", percent(scope));
        }
        let separator = if challenge.realm.contains('?') { '&' } else { '?' };
        let uri: Uri = format!("{}{separator}{query}", challenge.realm).parse()?;
        ensure!(
            uri.scheme_str() == Some("https") || is_loopback(uri.host().unwrap_or_default()),
            "the registry wants its login sent to `{uri}`, which is not encrypted"
        );
        let response = fetch(&Method::GET, &uri, self.basic().as_ref()).await?;
        if !response.status().is_success() {
            return Ok(None);
        }
        let answer: Value =
            serde_json::from_slice(response.body()).context("the token server does not answer with JSON")?;
        let token = answer["token"].as_str().or(answer["access_token"].as_str());
        Ok(token.map(|token| Secret::new(format!("Bearer {token}"))))
    }

    fn basic(&self) -> Option<Secret> {
        self.login.as_ref().map(|login| {
            let pair = format!("{}:{}", login.username, login.password.expose());
            Secret::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
        })
    }

    /// As engines have it, a registry on the loopback interface needs no TLS.
    fn base(&self) -> String {
        match self.host.as_str() {
            DOCKER_HUB => "https://registry-1.docker.io".into(),
            host if is_loopback(host.rsplit_once(':').map_or(host, |(host, _)| host)) => {
                format!("http://{host}")
            }
            host => format!("https://{host}"),
        }
    }
}

/// What a registry wants before it answers: `Bearer realm="…",service="…",scope="…"`.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    realm: String,
    service: String,
    scope: Option<String>,
}

impl Challenge {
    fn of(header: &str) -> Option<Self> {
        let (scheme, rest) = header.split_once(' ')?;
        let of = |name: &str| {
            let (_, value) = rest.split_once(&format!("{name}=\""))?;
            value.split_once('"').map(|(value, _)| value.to_owned())
        };
        let realm = of("realm").filter(|_| scheme.eq_ignore_ascii_case("bearer"))?;
        Some(Self { realm, service: of("service").unwrap_or_default(), scope: of("scope") })
    }
}

fn platform(of: &Value) -> Option<String> {
    let (os, architecture) = (of["os"].as_str()?, of["architecture"].as_str()?);
    // What signs an image stands beside it, and runs nowhere.
    (os != "unknown").then(|| format!("{os}/{architecture}"))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// One request, with or without TLS.
async fn fetch(method: &Method, uri: &Uri, authorization: Option<&Secret>) -> Result<Response<Bytes>> {
    let host = uri.host().with_context(|| format!("`{uri}` has no host"))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(method).uri(path).header(ACCEPT, MANIFEST_TYPES);
    if let Some(authorization) = authorization {
        request = request.header(AUTHORIZATION, authorization.expose());
    }
    let request = request.body(Bytes::new())?;
    if uri.scheme_str() == Some("https") {
        let endpoint = Endpoint::new(host, uri.port_u16().unwrap_or(443));
        let tls = client_config(Trust::SystemAnd(None))?;
        return Ok(HttpClient::new(endpoint, tls).with_timeout(REQUEST_LIMIT).send(request).await?);
    }
    ensure!(is_loopback(host), "`{host}` is asked for without encryption");
    tokio::time::timeout(REQUEST_LIMIT, plainly(host, uri.port_u16().unwrap_or(80), request))
        .await
        .context("no answer in time")?
}

async fn plainly(host: &str, port: u16, mut request: Request<Bytes>) -> Result<Response<Bytes>> {
    // The name may lead to IPv6 first, where nobody listens.
    let address = if host == "localhost" { "127.0.0.1" } else { host };
    let stream = tokio::net::TcpStream::connect((address, port)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    request.headers_mut().insert(HOST, format!("{host}:{port}").parse()?);
    let answer = async {
        let (head, body) = sender.send_request(request.map(Full::new)).await?.into_parts();
        let body = Limited::new(body, MAX_RESPONSE).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
        anyhow::Ok(Response::from_parts(head, body.to_bytes()))
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        closed = &mut connection => {
            closed?;
            answer.await
        }
    }
}

#[cfg(test)]
mod tests;
