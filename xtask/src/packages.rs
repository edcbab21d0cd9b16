//! The Debian packages of Microsoft's runtime in a folder of the user, as far as their file names tell. What is in them is
//! checked again in the build, where they are installed (`image/azure/install.sh`).

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::inputs::Source;
use crate::settings::RuntimeSettings;

/// The daemon, and the services that it rests on.
const EDGE: &str = "aziot-edge";
const IDENTITY_SERVICE: &str = "aziot-identity-service";
const MOBY: &str = "moby-engine";

/// A file called as Debian calls packages: `name_version_architecture.deb`. Some have the distribution before the architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Package {
    file: String,
    name: String,
    version: String,
    architecture: String,
}

impl Package {
    fn parse(file: &str) -> Option<Self> {
        let parts: Vec<_> = file.strip_suffix(".deb")?.split('_').collect();
        let ([name, version, architecture] | [name, version, _, architecture]) = parts[..] else {
            return None;
        };
        let of = str::to_owned;
        Some(Self { file: of(file), name: of(name), version: of(version), architecture: of(architecture) })
    }

    /// Whether it is of this version, or of this line of versions. Debian's revision does not count.
    fn is_of(&self, wanted: &str) -> bool {
        let rest = self.version.strip_prefix(wanted);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
    }
}

/// The folder, if the packages come from one.
#[must_use]
pub fn folder(project: &Path, runtime: &RuntimeSettings) -> Option<PathBuf> {
    (!runtime.packages.is_empty()).then(|| project.join(&runtime.packages))
}

/// This machine's architecture, which is that of its images, as Debian calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Tells what is wrong with the packages in `folder`.
#[must_use]
pub fn problems(folder: &Path, runtime: &RuntimeSettings) -> Vec<String> {
    match files(folder) {
        Ok(files) => judge(&files, runtime, architecture()),
        Err(error) => vec![format!("the folder of packages cannot be read: {error:#}")],
    }
}

/// The names of the packages' files, in their order.
fn files(folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if Path::new(&name).extension().is_some_and(|extension| extension == "deb") {
            files.push(name);
        }
    }
    files.sort();
    Ok(files)
}

fn judge(files: &[String], runtime: &RuntimeSettings, architecture: &str) -> Vec<String> {
    let packages: Vec<_> = files.iter().filter_map(|file| Package::parse(file)).collect();
    let version = runtime.version.as_str();
    // The identity service has versions of its own, of the same line.
    let line = version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    let mut wanted = vec![(EDGE, Some(version)), (IDENTITY_SERVICE, Some(line.as_str()))];
    if runtime.engine == MOBY {
        wanted.push((MOBY, None));
    }
    let problem = |(name, version)| missing(&packages, name, version, architecture);
    wanted.into_iter().filter_map(problem).collect()
}

/// Why no package of this name can be used, or not a single one.
fn missing(packages: &[Package], name: &str, version: Option<&str>, architecture: &str) -> Option<String> {
    let named: Vec<_> = packages.iter().filter(|package| package.name == name).collect();
    let fits = |package: &&Package| {
        [architecture, "all"].contains(&package.architecture.as_str())
            && version.is_none_or(|version| package.is_of(version))
    };
    let wanted = version.map_or_else(String::new, |version| format!(" {version}"));
    let fitting: Vec<_> = named.iter().copied().filter(fits).collect();
    match fitting[..] {
        [_] => None,
        [] => {
            let found = |package: &&Package| format!("{} for {}", package.version, package.architecture);
            let found = named.iter().map(found).collect::<Vec<_>>().join(", ");
            let found = if found.is_empty() { "no such package" } else { found.as_str() };
            let instead = if name == MOBY {
                "runtime.engine to \"docker.io\""
            } else {
                "runtime.version to what is there"
            };
            Some(format!(
                "{name}: found {found}, wanted{wanted} for {architecture}; put `{name}_….deb` there, or set {instead}"
            ))
        }
        // The identity service is chosen by what the runtime depends on.
        [..] if name == IDENTITY_SERVICE => None,
        [..] => {
            let files =
                fitting.iter().map(|package| format!("`{}`", package.file)).collect::<Vec<_>>().join(" and ");
            Some(format!(
                "{name}: {files} are all{wanted} for {architecture}; keep one of them there, or set runtime.version"
            ))
        }
    }
}

/// What goes to the builder: the packages, or the key of the repository if it is not to be fetched.
///
/// # Errors
/// When the folder cannot be read.
pub fn sources(project: &Path, runtime: &RuntimeSettings) -> Result<Vec<Source>> {
    let Some(folder) = folder(project, runtime) else {
        let key = (!runtime.repository_key.is_empty()).then(|| project.join(&runtime.repository_key));
        return Ok(key.map(|key| Source::file(key, "azure/repository-key")).into_iter().collect());
    };
    let source = |file: String| Source::file(folder.join(&file), format!("azure/packages/{file}"));
    Ok(files(&folder)?.into_iter().map(source).collect())
}

/// The arguments of the build.
#[must_use]
pub fn arguments(runtime: &RuntimeSettings) -> Vec<(&'static str, String)> {
    let mut arguments = vec![("ENGINE", runtime.engine.clone()), ("VERSION", runtime.version.clone())];
    if runtime.packages.is_empty() {
        arguments.push(("REPOSITORY", runtime.repository.clone()));
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn runtime(version: &str, engine: &str) -> RuntimeSettings {
        RuntimeSettings { version: version.into(), engine: engine.into(), ..Settings::default().runtime }
    }

    fn judged(files: &[&str], version: &str) -> Vec<String> {
        let files: Vec<_> = files.iter().map(|file| (*file).to_owned()).collect();
        judge(&files, &runtime(version, "docker.io"), "amd64")
    }

    #[test]
    fn packages_that_go_together_are_taken() {
        let one = ["aziot-edge_1.6.0-1_amd64.deb", "aziot-identity-service_1.6.0-1_amd64.deb"];
        assert_eq!(judged(&one, "1.6"), [""; 0]);
        assert_eq!(judged(&one, "1.6.0"), [""; 0]);
        let release = [
            "aziot-edge_1.5.21-1_debian12_amd64.deb",
            "aziot-edge_1.5.21-1_debian12_arm64.deb",
            "aziot-edge_1.6.0-1_amd64.deb",
            "aziot-identity-service_1.5.5-1_debian12_amd64.deb",
            "aziot-identity-service_1.5.6-1_debian12_amd64.deb",
            "notes.deb",
        ];
        assert_eq!(judged(&release, "1.5"), [""; 0]);
    }

    #[test]
    fn each_thing_that_is_wrong_is_told_with_what_was_found_and_wanted() {
        let identity = "aziot-identity-service_1.6.0-1_amd64.deb";
        let cases: [(&[&str], &str, &str); 6] = [
            (
                &[identity],
                "1.6",
                "aziot-edge: found no such package, wanted 1.6 for amd64; put `aziot-edge_….deb` there",
            ),
            (
                &["aziot-edge_1.5.21-1_amd64.deb", identity],
                "1.6",
                "aziot-edge: found 1.5.21-1 for amd64, wanted 1.6 for",
            ),
            (
                &["aziot-edge_1.60.0-1_amd64.deb", identity],
                "1.6",
                "aziot-edge: found 1.60.0-1 for amd64, wanted 1.6 for",
            ),
            (
                &["aziot-edge_1.6.0-1_arm64.deb", identity],
                "1.6",
                "aziot-edge: found 1.6.0-1 for arm64, wanted 1.6 for amd64",
            ),
            (
                &["aziot-edge_1.6.0-1_amd64.deb", "aziot-edge_1.6.1-1_amd64.deb", identity],
                "1.6",
                "aziot-edge: `aziot-edge_1.6.0-1_amd64.deb` and `aziot-edge_1.6.1-1_amd64.deb` are all 1.6 for amd64; keep one",
            ),
            (
                &["aziot-edge_1.6.0-1_amd64.deb", "aziot-identity-service_1.5.6-1_amd64.deb"],
                "1.6.0",
                "aziot-identity-service: found 1.5.6-1 for amd64, wanted 1.6 for amd64",
            ),
        ];
        for (files, version, expected) in cases {
            let told = judged(files, version);
            assert!(told.len() == 1 && told[0].starts_with(expected), "{files:?}: {told:?}");
        }
        assert_eq!(judged(&[], "1.6").len(), 2, "all is told at once");
        assert_eq!(judge(&[], &runtime("1.6", MOBY), "amd64").len(), 3);
        let nowhere = problems(Path::new("/no/such/folder"), &runtime("1.6", MOBY));
        assert!(nowhere[0].contains("/no/such/folder"), "{nowhere:?}");
    }
}
