//! The registry beside the cluster: it asks for a login, so that the pull secret is proved as well.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use http_body_util::Empty;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

use crate::context::Context;
use crate::credentials::Credentials;
use crate::engine::{ContainerFile, ContainerSpec};
use crate::images::Image;
use crate::wait::{Observation, wait_for};

/// The registry's name and port on the cluster's network.
pub const INNER_HOST: &str = "kedge-registry:5000";
const PORT: u16 = 5000;
const READY_LIMIT: Duration = Duration::from_secs(60);
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// The password is random and long, so slow hashing protects nothing, and every request pays for it.
const BCRYPT_COST: u32 = 4;
const MANIFEST_TYPES: &str =
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json";

/// The registry's address on the machine, which is also its name in image references for Kubernetes.
#[must_use]
pub fn published_host(context: &Context) -> String {
    format!("localhost:{}", context.settings.registry.port)
}

/// Starts the registry and proves that it wants the login and takes it.
///
/// # Errors
/// When the port or the name is taken, or the registry does not answer.
pub async fn ensure(context: &Context) -> Result<String> {
    let name = context.registry_container();
    let image = context.reference(Image::Registry)?;
    let note = match context.engine.container(&name).await? {
        Some(state) if state.running && same_image(&state.image, &image) => "was there",
        _ => {
            context.engine.remove_container(&name).await?;
            context.engine.start_container(&spec(context, image)?).await?;
            "started"
        }
    };
    wait_until_answering(context, &name).await?;
    Ok(format!("{note} at {}", published_host(context)))
}

/// Pushes an image unless the registry has it, and returns its reference by digest as the cluster knows it.
///
/// # Errors
/// When the registry refuses.
pub async fn push(context: &Context, image: Image) -> Result<String> {
    let tag = context.fingerprint(image)?.to_string();
    if let Some(digest) = digest(context, &image.repository(), &tag).await? {
        return Ok(format!("unchanged: {digest}"));
    }
    let repository = format!("{}/{}", published_host(context), image.repository());
    let login = context.credentials.registry_login();
    context.engine.push(&context.reference(image)?, &repository, &tag, &login).await?;
    let digest = digest(context, &image.repository(), &tag).await?;
    digest.with_context(|| format!("the registry has no `{}:{tag}` after the push", image.repository()))
}

/// The digest of an image of this tool in the registry.
///
/// # Errors
/// When the image has not been pushed.
pub async fn pushed_digest(context: &Context, image: Image) -> Result<String> {
    let tag = context.fingerprint(image)?.to_string();
    let digest = digest(context, &image.repository(), &tag).await?;
    digest.with_context(|| format!("the {image} image is not in the registry; run `cargo xtask image push`"))
}

fn same_image(one: &str, other: &str) -> bool {
    one.trim_start_matches("localhost/") == other.trim_start_matches("localhost/")
}

fn spec(context: &Context, image: String) -> Result<ContainerSpec> {
    let password = context.credentials.registry_password.expose();
    let hash = bcrypt::hash(password, BCRYPT_COST).context("failed to hash the registry's password")?;
    let contents = format!("{}:{hash}\n", Credentials::REGISTRY_USER).into_bytes();
    Ok(ContainerSpec {
        name: context.registry_container(),
        image,
        network: Some(context.network().to_owned()),
        aliases: vec![INNER_HOST.split(':').next().unwrap_or_default().to_owned()],
        ports: vec![(PORT, context.settings.registry.port)],
        files: vec![ContainerFile { path: "/etc/kedge-registry/htpasswd".into(), contents }],
        privileged: false,
    })
}

async fn wait_until_answering(context: &Context, name: &str) -> Result<()> {
    wait_for("the registry", READY_LIMIT, || async {
        if let Ok(Some(state)) = context.engine.container(name).await
            && !state.running
        {
            let log = context.engine.container_log(name, 5).await.unwrap_or_default();
            return Observation::Failed(format!("its container ended: {}", log.trim()));
        }
        let (with, without) = (
            request(context, Method::GET, "/v2/", true).await,
            request(context, Method::GET, "/v2/", false).await,
        );
        match (with, without) {
            (Ok(with), Ok(without)) => match (with.status(), without.status()) {
                (StatusCode::OK, StatusCode::UNAUTHORIZED) => Observation::Ready(()),
                (StatusCode::OK, other) => Observation::Failed(format!("it answers {other} to a stranger")),
                (other, _) => Observation::NotYet(format!("it answers {other} to its user")),
            },
            (Err(error), _) | (_, Err(error)) => Observation::NotYet(format!("{error:#}")),
        }
    })
    .await?;
    Ok(())
}

async fn digest(context: &Context, repository: &str, tag: &str) -> Result<Option<String>> {
    let response = request(context, Method::HEAD, &format!("/v2/{repository}/manifests/{tag}"), true).await?;
    match response.status() {
        StatusCode::OK => {
            let digest =
                response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
            Ok(Some(digest.context("the registry tells no digest")?.to_owned()))
        }
        StatusCode::NOT_FOUND => Ok(None),
        other => bail!("the registry answers {other} when asked for `{repository}:{tag}`"),
    }
}

/// Asks the registry, with its user's login or as a stranger.
async fn request(context: &Context, method: Method, path: &str, login: bool) -> Result<Response<()>> {
    let port = context.settings.registry.port;
    let exchange = async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, published_host(context))
            .header(ACCEPT, MANIFEST_TYPES);
        if login {
            let pair =
                format!("{}:{}", Credentials::REGISTRY_USER, context.credentials.registry_password.expose());
            let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
            request = request.header(AUTHORIZATION, format!("Basic {encoded}"));
        }
        let answer = sender.send_request(request.body(Empty::<bytes::Bytes>::new())?);
        tokio::select! {
            answer = answer => anyhow::Ok(answer?.map(drop)),
            closed = connection => bail!("it closed the connection{}", closed.err().map(|error| format!(": {error}")).unwrap_or_default()),
        }
    };
    tokio::time::timeout(REQUEST_LIMIT, exchange)
        .await
        .context("no answer in time")?
        .with_context(|| format!("failed to ask the registry at 127.0.0.1:{port}"))
}
