//! The registry beside the cluster: it asks for a login, so that the pull secret is proved as well.

use std::io::ErrorKind;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use hyper::StatusCode;
use sha2::{Digest, Sha256};

use crate::context::Context;
use crate::credentials::Credentials;
use crate::engine::{ContainerFile, ContainerSpec, Fit, Foreign};
use crate::execute::Effect;
use crate::images::Image;
use crate::plan::Condition;
use crate::registry_client::RegistryClient;

/// The registry's name and port on the cluster's network.
pub const INNER_HOST: &str = "kedge-registry:5000";
const PORT: u16 = 5000;
/// The password is random and long, so slow hashing protects nothing, and every request pays for it.
const BCRYPT_COST: u32 = 4;

/// The registry's address on the machine, which is also its name in image references for Kubernetes.
#[must_use]
pub fn published_host(context: &Context) -> String {
    format!("localhost:{}", context.settings.registry.port)
}

/// Whether the registry runs as described, and answers.
///
/// # Errors
/// When the port or the name is taken, or the engine cannot be asked.
pub async fn observe(context: &Context) -> Result<Condition> {
    let fit = context.engine.fit(&spec(context, context.reference(Image::Registry)?)?).await?;
    if fit != Fit::Runs {
        let port = context.settings.registry.port;
        let present = context.engine.container(&context.settings.registry_container()).await?;
        // The one that is there gives its own port back when it is replaced.
        if !present.is_some_and(|state| state.running && state.ports.values().any(|own| *own == port)) {
            refuse_taken_port(port)?;
        }
    }
    Ok(match fit.reason() {
        Some(reason) => Condition::Differs(reason.into()),
        None => match asks_for_the_login(context).await {
            Ok(()) => Condition::Holds(published_host(context)),
            Err(error) => Condition::Differs(format!("{error:#}")),
        },
    })
}

/// Refuses a port at which somebody else listens.
fn refuse_taken_port(port: u16) -> Result<()> {
    match std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(Foreign::at(format!(
            "another program listens at port {port}; stop it or choose another `registry.port`"
        ))
        .into()),
        Err(error) => Err(error).with_context(|| format!("failed to try port {port}")),
        Ok(_) => Ok(()),
    }
}

/// Starts the registry and proves that it wants the login and takes it.
///
/// # Errors
/// When the port or the name is taken, or the registry does not answer.
pub async fn ensure(context: &Context) -> Result<Effect> {
    let spec = spec(context, context.reference(Image::Registry)?)?;
    let found = context.ensure_container("the registry", &spec, || asks_for_the_login(context)).await?;
    let host = published_host(context);
    Ok(if found == Fit::Runs {
        Effect::unchanged(host)
    } else {
        Effect::changed(format!("started at {host}"))
    })
}

/// Whether the registry has an image of the present inputs.
///
/// # Errors
/// When the registry does not answer.
pub async fn observe_push(context: &Context, image: Image) -> Result<Condition> {
    let tag = context.fingerprint(image)?.to_string();
    Ok(match digest(context, &image.repository(), &tag).await? {
        Some(digest) => Condition::Holds(digest),
        None => Condition::Differs(format!("the registry has no `{}:{tag}`", image.repository())),
    })
}

/// Pushes an image unless the registry has it, and returns its digest there.
///
/// # Errors
/// When the registry refuses.
pub async fn push(context: &Context, image: Image) -> Result<Effect> {
    let tag = context.fingerprint(image)?.to_string();
    if let Some(digest) = digest(context, &image.repository(), &tag).await? {
        return Ok(Effect::unchanged(digest));
    }
    let repository = format!("{}/{}", published_host(context), image.repository());
    let login = context.credentials.registry_login();
    context.engine.push(&context.reference(image)?, &repository, &tag, &login).await?;
    let digest = digest(context, &image.repository(), &tag).await?;
    digest
        .map(Effect::changed)
        .with_context(|| format!("the registry has no `{}:{tag}` after the push", image.repository()))
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

fn spec(context: &Context, image: String) -> Result<ContainerSpec> {
    let password = context.credentials.registry_password.expose();
    // A salt that follows from the password keeps the file, and so the container, the same from run to run.
    let salt: [u8; 16] = std::array::from_fn(|at| Sha256::digest(password)[at]);
    let hash = bcrypt::hash_with_salt(password, BCRYPT_COST, salt)
        .context("failed to hash the registry's password")?;
    let contents = format!("{}:{hash}\n", Credentials::REGISTRY_USER).into_bytes();
    Ok(ContainerSpec {
        name: context.settings.registry_container(),
        image,
        network: Some(context.network().to_owned()),
        aliases: vec![INNER_HOST.split(':').next().unwrap_or_default().to_owned()],
        ports: vec![(PORT, context.settings.registry.port)],
        files: vec![ContainerFile { path: "/etc/kedge-registry/htpasswd".into(), contents }],
        ..ContainerSpec::default()
    })
}

/// The registry takes its user's login, and lets no stranger in.
async fn asks_for_the_login(context: &Context) -> Result<()> {
    for (login, expected) in [(true, StatusCode::OK), (false, StatusCode::UNAUTHORIZED)] {
        let status = client(context, login).ping().await?;
        ensure!(status == expected, "it answers {status} where {expected} was expected");
    }
    Ok(())
}

async fn digest(context: &Context, repository: &str, tag: &str) -> Result<Option<String>> {
    client(context, true).digest(repository, tag).await
}

/// Asks the registry with its user's login, or as a stranger.
fn client(context: &Context, with_login: bool) -> RegistryClient {
    RegistryClient::new(published_host(context), with_login.then(|| context.credentials.registry_login()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_at_which_somebody_listens_is_told_before_anything_is_changed() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = refuse_taken_port(port).unwrap_err();
        assert!(error.is::<Foreign>() && error.to_string().contains(&port.to_string()), "{error}");
        drop(listener);
        refuse_taken_port(port).unwrap();
    }
}
