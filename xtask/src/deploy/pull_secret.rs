//! The login with which the cluster pulls the image: where it comes from, never from an argument.

mod docker_config;

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail, ensure};
use kedge_sim::secret::Secret;
use serde::Deserialize;

use crate::engine::Login;
use crate::image_reference::ImageName;
use crate::secret_input::Source;

pub(super) use self::docker_config::{key, login_in};

/// The user of a token of Azure Container Registry.
const TOKEN_USER: &str = "00000000-0000-0000-0000-000000000000";

/// Flags that say where the login comes from.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LoginArgs {
    /// Login at the image's registry: `none`, `docker-config[:FILE]`, or `acr-token`, which is what
    /// `az acr login --expose-token` prints, on standard input [default: the one that the cluster has]
    #[arg(long, value_name = "SOURCE", conflicts_with = "registry_user")]
    registry_login: Option<LoginSource>,
    /// User at the image's registry
    #[arg(long, value_name = "NAME", requires = "registry_password_stdin")]
    registry_user: Option<String>,
    /// Read the password of that user from standard input
    #[arg(long, requires = "registry_user")]
    registry_password_stdin: bool,
}

/// Where the login comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LoginSource {
    None,
    DockerConfig(Option<PathBuf>),
    AcrToken,
}

impl FromStr for LoginSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("docker-config:")) {
            ("none", _) => Ok(Self::None),
            ("docker-config", _) => Ok(Self::DockerConfig(None)),
            ("acr-token", _) => Ok(Self::AcrToken),
            (_, Some(file)) if !file.is_empty() => Ok(Self::DockerConfig(Some(file.into()))),
            // What was typed may be a password.
            _ => Err("use `none`, `docker-config`, `docker-config:FILE` or `acr-token`".into()),
        }
    }
}

/// What was decided.
#[derive(Debug)]
pub enum Choice {
    /// The one that the cluster has, if it has one.
    Keep,
    /// The nodes may pull by themselves.
    Without,
    /// This one, which may be good for some hours only.
    Login {
        /// The login.
        login: Login,
        /// What is to be told about it.
        warning: Option<&'static str>,
    },
}

impl LoginArgs {
    /// Whether the login comes on standard input, so that nobody can be asked there.
    #[must_use]
    pub fn reads_standard_input(&self) -> bool {
        self.registry_password_stdin || self.registry_login == Some(LoginSource::AcrToken)
    }

    /// Reads the login for `registry`.
    ///
    /// # Errors
    /// When it cannot be read, or there is none for this registry.
    pub async fn choose(&self, registry: &str) -> Result<Choice> {
        if let Some(username) = &self.registry_user {
            let password = Source::Input.read_text().await?;
            return Ok(Choice::of(Login { username: username.clone(), password }));
        }
        Ok(match &self.registry_login {
            None => Choice::Keep,
            Some(LoginSource::None) => Choice::Without,
            Some(LoginSource::DockerConfig(file)) => {
                Choice::of(docker_config::read(file.as_deref(), registry).await?)
            }
            Some(LoginSource::AcrToken) => {
                Choice::of(acr_token(&Source::Input.read_text().await?, registry)?)
            }
        })
    }
}

impl Choice {
    /// A login, with what is to be told of its kind: also `az acr login` leaves a token.
    fn of(login: Login) -> Self {
        let warning = (login.username == TOKEN_USER).then_some(
            "the login is a token of Azure Container Registry, which is good for three hours; a node that pulls later cannot. \
             `az aks update --attach-acr` lets the nodes pull by themselves, with `--registry-login none`",
        );
        Self::Login { login, warning }
    }
}

/// The login at the registry of `image` that Docker or Podman has on this machine.
///
/// # Errors
/// When it has none.
pub async fn docker_login(image: &str) -> Result<Login> {
    docker_config::read(None, &ImageName::of(image).registry).await
}

/// What `az acr login --expose-token` prints, whole or with `--query accessToken --output tsv`.
fn acr_token(text: &Secret, registry: &str) -> Result<Login> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Exposed {
        access_token: Secret,
        login_server: Option<String>,
    }
    let text = text.expose().trim();
    let password = if text.starts_with('{') {
        // What a reader says of it may quote the token.
        let exposed: Exposed = serde_json::from_str(text)
            .ok()
            .context("standard input is not what `az acr login --expose-token` prints")?;
        if let Some(server) = exposed.login_server.filter(|server| server != registry) {
            bail!("the token is for the registry `{server}`, and the image is in `{registry}`");
        }
        exposed.access_token
    } else {
        ensure!(
            !text.contains(char::is_whitespace),
            "standard input is not what `az acr login --expose-token` prints"
        );
        Secret::new(text)
    };
    Ok(Login { username: TOKEN_USER.into(), password })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_one_of_four() {
        assert_eq!("none".parse(), Ok(LoginSource::None));
        assert_eq!("docker-config".parse(), Ok(LoginSource::DockerConfig(None)));
        assert_eq!("docker-config:/a b".parse(), Ok(LoginSource::DockerConfig(Some("/a b".into()))));
        assert_eq!("acr-token".parse(), Ok(LoginSource::AcrToken));
        for wrong in ["", "s3cret", "docker-config:", "none "] {
            let error = wrong.parse::<LoginSource>().unwrap_err();
            assert!(error.contains("docker-config:FILE") && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_token_is_taken_as_az_prints_it() {
        let printed = r#"{"accessToken": "T0K", "loginServer": "factory.azurecr.io", "refreshToken": "R", "username": "u"}"#;
        for text in [printed, "T0K", " T0K "] {
            let login = acr_token(&Secret::new(text), "factory.azurecr.io").unwrap();
            assert_eq!((login.username.as_str(), login.password.expose()), (TOKEN_USER, "T0K"));
        }
        let error = acr_token(&Secret::new(printed), "other.azurecr.io").unwrap_err().to_string();
        assert!(error.contains("`factory.azurecr.io`") && error.contains("`other.azurecr.io`"), "{error}");
        for wrong in ["{\"accessToken\": 5}", "{T0K", "WARNING: T0K is secret"] {
            let error = acr_token(&Secret::new(wrong), "r").unwrap_err();
            assert!(!format!("{error:#}").contains("T0K"), "{error:#}");
        }
    }
}
