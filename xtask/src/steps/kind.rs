//! The `kind` program: from `PATH`, else Debian's package, fetched with its signature checked into the cache.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::context::Context;
use crate::execute::Effect;
use crate::plan::Condition;
use crate::process::{Process, find_on_path};

/// The release of Debian whose `kind` still speaks the configuration of the Kubernetes in Debian 12.
const SUITE: &str = "trixie";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const LIMIT: Duration = Duration::from_secs(120);

/// Where `kind` is, if it is there.
#[must_use]
pub fn find(cache: &Path) -> Option<PathBuf> {
    let fetched = cache.join("kind/usr/bin/kind");
    find_on_path("kind").or_else(|| fetched.exists().then_some(fetched))
}

/// A `kind` child process in the environment of the engine.
///
/// # Errors
/// When `kind` is not there.
pub fn process(context: &Context, step: &str, purpose: &str) -> Result<Process> {
    let kind =
        find(&context.paths.cache).context("kind is not there; run `cargo xtask up`, which fetches it")?;
    Ok(context.process(step, purpose, kind).envs(context.engine.environment(context.network())))
}

/// Whether `kind` is there.
#[must_use]
pub fn observe(context: &Context) -> Condition {
    match find(&context.paths.cache) {
        Some(path) => Condition::Holds(format!("`{}`", path.display())),
        None => Condition::Differs("it is neither on PATH nor in the cache; Debian has it".into()),
    }
}

/// Finds or fetches `kind`.
///
/// # Errors
/// When it is not on `PATH` and cannot be fetched.
pub async fn ensure(context: &Context) -> Result<Effect> {
    if let Some(path) = find(&context.paths.cache) {
        return Ok(Effect::unchanged(format!("`{}`", path.display())));
    }
    let apt = PrivateApt::prepare(context).await?;
    apt.get(context, "read the package lists of Debian", &["update"]).await?;
    apt.get(context, "download the package of kind", &["download", "kind"]).await?;
    let package = apt.downloaded("kind_")?;
    let (unpacked, target) = (context.paths.cache.join("kind.new"), context.paths.cache.join("kind"));
    for old in [&unpacked, &target].into_iter().filter(|old| old.exists()) {
        fs_err::remove_dir_all(old)?;
    }
    context
        .process("kind", "unpack the package of kind", "dpkg-deb")
        .args(["--extract".as_ref(), package.as_os_str(), unpacked.as_os_str()])
        .run()
        .await?;
    fs_err::rename(&unpacked, target)?;
    fs_err::remove_dir_all(&apt.folder)?;
    Ok(Effect::changed("fetched from Debian"))
}

/// A package manager state of our own: it reads the machine's mirror and keys, and touches nothing else.
struct PrivateApt {
    folder: PathBuf,
}

impl PrivateApt {
    async fn prepare(context: &Context) -> Result<Self> {
        let folder = context.paths.cache.join("apt");
        if folder.exists() {
            // What an aborted run has left might be of another version.
            fs_err::remove_dir_all(&folder)?;
        }
        for part in ["lists/partial", "cache/archives/partial"] {
            fs_err::create_dir_all(folder.join(part))?;
        }
        let targets = context
            .process("kind", "read the machine's package sources", "apt-get")
            .args(["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"])
            .read()
            .await?;
        let mirror = debian_mirror(&targets).context(
            "the machine's package sources name no Debian mirror; install kind yourself and put it on PATH",
        )?;
        let source = format!("deb [signed-by={KEYRING}] {mirror} {SUITE} main\n");
        fs_err::write(folder.join("sources.list"), source)?;
        Ok(Self { folder })
    }

    async fn get(&self, context: &Context, purpose: &str, args: &[&str]) -> Result<()> {
        let option =
            |name: &str, below: &str| format!("--option={name}={}", self.folder.join(below).display());
        context
            .process("kind", purpose, "apt-get")
            .args([
                option("Dir::Etc::SourceList", "sources.list"),
                "--option=Dir::Etc::SourceParts=/dev/null".into(),
                option("Dir::State::Lists", "lists"),
                option("Dir::Cache", "cache"),
                "--option=APT::Sandbox::User=root".into(),
                "--option=Acquire::Languages=none".into(),
            ])
            .args(args)
            .dir(&self.folder)
            .limit(LIMIT)
            .run()
            .await?;
        Ok(())
    }

    fn downloaded(&self, prefix: &str) -> Result<PathBuf> {
        for entry in fs_err::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                return Ok(entry.path());
            }
        }
        bail!("apt-get downloaded no package `{prefix}…` into `{}`", self.folder.display())
    }
}

/// The mirror of Debian itself among lines of `<uri> <release> <component>`: of a suite's main part, and not
/// that of the security updates, which has no new packages.
fn debian_mirror(targets: &str) -> Option<&str> {
    targets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (uri, release, component) = (words.next()?, words.next()?, words.next()?);
        (component == "main" && !release.contains('-') && uri.contains("debian")).then_some(uri)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_that_of_the_distribution() {
        let targets = "https://tools.example/apt cloud-sdk main\nhttp://mirror.example/debian-security/ bookworm-security main\n\
                       http://mirror.example/debian/ bookworm-updates main\nhttp://mirror.example/debian/ bookworm main\n";
        assert_eq!(debian_mirror(targets), Some("http://mirror.example/debian/"));
        assert_eq!(debian_mirror("https://tools.example/apt stable main\n"), None);
    }
}
