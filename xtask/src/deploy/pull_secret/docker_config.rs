//! Logins as Docker and Podman keep them: in the file itself, or with a program that is asked.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use base64::Engine as _;
use kedge_sim::secret::Secret;
use serde_json::Value;

use super::TOKEN_USER;
use crate::engine::Login;
use crate::image_reference::DOCKER_HUB;
use crate::process::Process;

/// What Docker calls Docker Hub in its files.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
const HELPER_LIMIT: Duration = Duration::from_secs(30);
/// With this name a helper says that its password is an identity token.
const TOKEN_NAME: &str = "<token>";

/// Where the file says that the login is.
#[derive(Debug)]
enum Place {
    /// In the file.
    Here(Login),
    /// With the program `docker-credential-…`.
    Helper(String),
}

/// The key of a registry in a file of Docker's.
#[must_use]
pub(in crate::deploy) fn key(registry: &str) -> &str {
    if registry == DOCKER_HUB { DOCKER_HUB_KEY } else { registry }
}

/// Reads the login for `registry` from this file, by default from the first of the user's that has one.
pub(super) async fn read(file: Option<&Path>, registry: &str) -> Result<Login> {
    let files = file.map_or_else(
        || user_files(std::env::var_os, std::env::home_dir().as_deref()),
        |file| vec![file.to_owned()],
    );
    first_in(&files, registry).await
}

/// The login in the first of these files that has one. What is wrong with an earlier one is told when no later one has.
async fn first_in(files: &[PathBuf], registry: &str) -> Result<Login> {
    let (mut wrong, mut looked_at) = (None, Vec::new());
    for file in files {
        let found = match fs_err::read_to_string(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                looked_at.push(format!("`{}` (not there)", file.display()));
                continue;
            }
            Err(error) => Err(error.into()),
            Ok(text) => in_text(&Secret::new(text), file, registry).await,
        };
        match found {
            Ok(Some(login)) => return Ok(login),
            Ok(None) => looked_at.push(format!("`{}`", file.display())),
            Err(error) => wrong = wrong.or(Some(error)),
        }
    }
    Err(wrong.unwrap_or_else(|| {
        anyhow!(
            "there is no login for the registry `{registry}` in {}; `docker login {registry}` or `podman login {registry}` \
             makes one",
            looked_at.join(", ")
        )
    }))
}

async fn in_text(text: &Secret, file: &Path, registry: &str) -> Result<Option<Login>> {
    match find(text, registry).with_context(|| format!("`{}` cannot be used", file.display()))? {
        Some(Place::Here(login)) => Ok(Some(login)),
        Some(Place::Helper(name)) => ask(&name, registry).await.map(Some),
        None => Ok(None),
    }
}

/// The login for `registry` in the text of such a file, if it is there itself.
pub(in crate::deploy) fn login_in(text: &Secret, registry: &str) -> Option<Login> {
    match find(text, registry) {
        Ok(Some(Place::Here(login))) => Some(login),
        _ => None,
    }
}

/// Where Docker and Podman keep a user's logins: what was named for Podman, Docker's file, and Podman's own, of which the
/// first lasts until the machine is started again.
fn user_files(variable: impl Fn(&'static str) -> Option<OsString>, home: Option<&Path>) -> Vec<PathBuf> {
    let path = |name: &'static str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let at_home = |name: &str| home.map(|home| home.join(name));
    let docker = path("DOCKER_CONFIG").or_else(|| at_home(".docker"));
    let runtime = path("XDG_RUNTIME_DIR").map(|folder| folder.join("containers"));
    let user = rustix::process::getuid().as_raw();
    let runtime = runtime.unwrap_or_else(|| format!("/run/containers/{user}").into());
    let config = path("XDG_CONFIG_HOME").or_else(|| at_home(".config"));
    let files = [
        path("REGISTRY_AUTH_FILE"),
        docker.map(|folder| folder.join("config.json")),
        Some(runtime.join("auth.json")),
        config.map(|folder| folder.join("containers/auth.json")),
    ];
    files.into_iter().flatten().collect()
}

fn find(text: &Secret, registry: &str) -> Result<Option<Place>> {
    // What the reader quotes may be a password.
    let config: Value = serde_json::from_str(text.expose()).ok().context("it is not JSON")?;
    let names = [
        key(registry).to_owned(),
        format!("https://{registry}"),
        format!("https://{registry}/v1/"),
        registry.to_owned(),
    ];
    let helper = names.iter().find_map(|name| config["credHelpers"][name].as_str());
    if let Some(helper) = helper {
        return Ok(Some(Place::Helper(helper.to_owned())));
    }
    let entry = names.iter().find_map(|name| config["auths"].get(name));
    if let Some(login) = entry.map(|entry| login_of(entry, registry)).transpose()?.flatten() {
        return Ok(Some(Place::Here(login)));
    }
    let store = config["credsStore"].as_str().filter(|store| !store.is_empty());
    Ok(store.map(|store| Place::Helper(store.to_owned())))
}

/// Nothing for an entry that only says that a helper has the login.
fn login_of(entry: &Value, registry: &str) -> Result<Option<Login>> {
    if let Some(token) = entry["identitytoken"].as_str().filter(|token| !token.is_empty()) {
        return identity_token(token, registry).map(Some);
    }
    if let (Some(user), Some(password)) = (entry["username"].as_str(), entry["password"].as_str()) {
        return Ok(Some(Login { username: user.into(), password: Secret::new(password) }));
    }
    let Some(auth) = entry["auth"].as_str().filter(|auth| !auth.is_empty()) else { return Ok(None) };
    let decoded = base64::engine::general_purpose::STANDARD.decode(auth).ok();
    let pair = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = pair.with_context(|| format!("the entry of `{registry}` is not base64"))?;
    let (user, password) =
        pair.split_once(':').with_context(|| format!("the entry of `{registry}` has no password"))?;
    Ok(Some(Login { username: user.into(), password: Secret::new(password.trim_end_matches('\0')) }))
}

/// Kubernetes does not know identity tokens; the ones of Azure's registries are as good as a password.
fn identity_token(token: &str, registry: &str) -> Result<Login> {
    ensure!(
        registry.ends_with(".azurecr.io"),
        "the login for `{registry}` is an identity token, which Kubernetes cannot use; log in there with a password, or \
         give one with `--registry-user` and `--registry-password-stdin`"
    );
    Ok(Login { username: TOKEN_USER.into(), password: Secret::new(token) })
}

async fn ask(helper: &str, registry: &str) -> Result<Login> {
    let program = format!("docker-credential-{helper}");
    let process = Process::new(format!("get the login for `{registry}`"), &program).args(["get"]);
    let answer = Secret::new(process.input(key(registry)).limit(HELPER_LIMIT).read().await?);
    let answer: Value = serde_json::from_str(answer.expose())
        .ok()
        .with_context(|| format!("`{program}` does not answer with JSON"))?;
    match (answer["Username"].as_str(), answer["Secret"].as_str()) {
        (Some(TOKEN_NAME), Some(token)) => identity_token(token, registry),
        (Some(user), Some(password)) => Ok(Login { username: user.into(), password: Secret::new(password) }),
        _ => bail!("`{program}` has no login for `{registry}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: &str, registry: &str) -> String {
        match find(&Secret::new(config), registry) {
            Ok(Some(Place::Here(login))) => format!("{}/{}", login.username, login.password.expose()),
            Ok(Some(Place::Helper(name))) => format!("helper {name}"),
            Ok(None) => "none".into(),
            Err(error) => format!("error: {error:#}"),
        }
    }

    #[test]
    fn a_login_is_found_as_docker_and_podman_write_it() {
        let cases = [
            (r#"{"auths":{"r.test":{"auth":"dTpwOnc="}}}"#, "r.test", "u/p:w"),
            (r#"{"auths":{"https://r.test":{"username":"u","password":"p"}}}"#, "r.test", "u/p"),
            (r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}"#, "docker.io", "u/p"),
            (r#"{"auths":{"r.test":{}},"credsStore":"desktop"}"#, "r.test", "helper desktop"),
            (
                r#"{"auths":{"r.test":{"auth":"dTpw"}},"credHelpers":{"r.test":"acr"}}"#,
                "r.test",
                "helper acr",
            ),
            (r#"{"auths":{"other.test":{"auth":"dTpw"}}}"#, "r.test", "none"),
            (
                r#"{"auths":{"f.azurecr.io":{"auth":"MDA6","identitytoken":"T"}}}"#,
                "f.azurecr.io",
                "00000000-0000-0000-0000-000000000000/T",
            ),
            ("{}", "r.test", "none"),
        ];
        for (config, registry, expected) in cases {
            assert_eq!(found(config, registry), expected, "{config}");
        }
    }

    #[test]
    fn what_is_damaged_is_told_without_the_secret() {
        for config in [
            r#"{"auths":{"r.test":{"auth":"s3cret!"}}}"#,
            r#"{"auths":{"r.test":{"auth":"czNjcmV0"}}}"#,
            "s3cret",
            r#"{"auths":{"r.test":{"identitytoken":"s3cret"}}}"#,
        ] {
            let told = found(config, "r.test");
            assert!(told.starts_with("error: ") && !told.contains("s3cret"), "{told}");
        }
    }

    #[test]
    fn the_files_of_docker_and_podman_are_looked_at() {
        let files = |set: &[(&str, &str)]| {
            let set: Vec<_> =
                set.iter().map(|(name, value)| (name.to_string(), OsString::from(value))).collect();
            let variable =
                |wanted: &str| set.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
            user_files(variable, Some(Path::new("/home/me")))
        };
        let named = files(&[
            ("REGISTRY_AUTH_FILE", "/a.json"),
            ("DOCKER_CONFIG", "/d"),
            ("XDG_RUNTIME_DIR", "/run/user/7"),
            ("XDG_CONFIG_HOME", "/c"),
        ]);
        let expected =
            ["/a.json", "/d/config.json", "/run/user/7/containers/auth.json", "/c/containers/auth.json"];
        assert_eq!(named, expected.map(PathBuf::from));
        let user = rustix::process::getuid().as_raw();
        let podman = format!("/run/containers/{user}/auth.json");
        let expected = ["/home/me/.docker/config.json", &podman, "/home/me/.config/containers/auth.json"];
        assert_eq!(files(&[("DOCKER_CONFIG", "")]), expected.map(PathBuf::from));
    }

    #[tokio::test]
    async fn a_file_and_its_helper_are_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs_err::write(
            &path,
            r#"{"auths":{"r.test":{"auth":"dTpw"}},"credHelpers":{"h.test":"kedge-no-such"}}"#,
        )
        .unwrap();
        let damaged = folder.path().join("damaged.json");
        fs_err::write(&damaged, "s3cret").unwrap();
        assert_eq!(read(Some(&path), "r.test").await.unwrap().username, "u");
        let error = read(Some(&path), "other.test").await.unwrap_err().to_string();
        assert!(
            error.contains("no login for the registry `other.test`") && error.contains("docker login"),
            "{error}"
        );
        let missing = folder.path().join("none.json");
        let error = read(Some(&missing), "r.test").await.unwrap_err().to_string();
        let expected =
            format!("`{}` (not there); `docker login r.test` or `podman login r.test`", missing.display());
        assert!(error.contains(&expected), "{error}");
        let login = first_in(&[missing, damaged, path.clone()], "r.test").await.unwrap();
        assert_eq!(login.username, "u", "a file without the login does not hide a later one");
        let error = read(Some(&path), "h.test").await.unwrap_err().to_string();
        assert!(error.contains("docker-credential-kedge-no-such"), "{error}");
    }
}
