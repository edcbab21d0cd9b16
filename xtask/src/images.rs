//! The images that KEdge builds: from which files, on which base, and under which name.
//!
//! An image is named by the hash of its inputs, so an image that exists is an image that is up to date, and
//! an unchanged one is not even packed for the builder.

mod dockerfile;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::inputs::{Fingerprint, Source};
use crate::packages;
use crate::preload::{self, Preloaded};
use crate::settings::{Runtime, RuntimeSettings};
use crate::tier::Profiles;

/// An image that KEdge builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Image {
    /// Debian 12, from the machine's own Debian mirror.
    Base,
    /// The kind node made from Debian packages.
    Node,
    /// The container registry.
    Registry,
    /// The local IoT Hub.
    Hub,
    /// The edge: systemd, the inner engine and the edge runtime.
    Edge,
    /// The simulated temperature sensor, a module.
    TemperatureSensor,
}

/// How to build an image with a Dockerfile.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The files that go to the builder.
    pub sources: Vec<Source>,
    /// The target stage of the Dockerfile, if it has several.
    pub target: Option<&'static str>,
    /// Whether the Dockerfile wants `BASE_IMAGE`.
    pub on_base: bool,
    /// The other build arguments; never a secret.
    pub args: Vec<(&'static str, String)>,
}

/// What images are made of, besides the files of the project.
#[derive(Debug, Clone, Copy)]
pub struct Ingredients<'a> {
    /// The root of the workspace.
    pub project: &'a Path,
    /// Where the compiled programs are.
    pub binaries: &'a Path,
    /// The runtime of the edge.
    pub runtime: &'a RuntimeSettings,
    /// The images of modules in that of the edge.
    pub preloaded: &'a [Preloaded],
}

impl Image {
    /// The name used where space is short.
    #[must_use]
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Node => "node",
            Self::Registry => "registry",
            Self::Hub => "hub",
            Self::Edge => "edge",
            Self::TemperatureSensor => "sensor",
        }
    }

    /// The repository of the image, in the engine (`localhost/…`) and in the registry alike.
    #[must_use]
    pub fn repository(self) -> String {
        format!("kedge/{self}")
    }

    /// The reference of the image in the engine. Podman needs the host part, else kind tries to pull.
    #[must_use]
    pub fn local_reference(self, fingerprint: &Fingerprint) -> String {
        format!("localhost/{}:{fingerprint}", self.repository())
    }

    /// How to build it, where that is done with a Dockerfile.
    ///
    /// # Errors
    /// When a file that says how cannot be read.
    pub fn recipe(self, from: Ingredients<'_>) -> Result<Option<Recipe>> {
        let folder = |path: &str| Source::folder(from.project.join(path));
        let simple = |sources: Vec<Source>, on_base| Recipe { sources, target: None, on_base, args: vec![] };
        Ok(Some(match self {
            Self::Base => return Ok(None),
            Self::Node => simple(vec![folder("kind-cluster/node")], true),
            Self::Registry => simple(vec![folder("kind-cluster/registry")], true),
            Self::Hub => simple(vec![folder("image/hub"), from.binary("kedge-hub")], false),
            Self::TemperatureSensor => {
                let programs = ["kedge-sensor", "kedge-load"].map(|name| from.binary(name));
                simple([vec![folder("image/temperature-sensor")], programs.to_vec()].concat(), false)
            }
            Self::Edge => from.edge()?,
        }))
    }
}

impl Ingredients<'_> {
    fn binary(&self, name: &str) -> Source {
        Source::file(self.binaries.join(name), PathBuf::from("bin").join(name))
    }

    fn edge(&self) -> Result<Recipe> {
        let target = match self.runtime.kind {
            Runtime::Simulated => "simulated",
            Runtime::Azure => "azure",
        };
        let image = self.project.join("image");
        let folder = |name: &str| Source::folder_at(image.join(name), name);
        let dockerfile = fs_err::read_to_string(image.join("Dockerfile"))?;
        let profiles = Profiles::read(self.project)?;
        let mut sources = vec![
            Source::text(dockerfile::for_target(&dockerfile, target), "Dockerfile"),
            Source::file(image.join("finish.sh"), "finish.sh"),
            folder("rootfs/common"),
            folder(&format!("rootfs/{target}")),
            folder("preload"),
            folder("security"),
            Source::text(profiles.seccomp, "security/seccomp.json"),
            Source::text(profiles.seccomp_name, "security/seccomp.name"),
        ];
        sources.extend(preload::sources(self.preloaded));
        let mut args = Vec::new();
        match self.runtime.kind {
            Runtime::Simulated => sources.push(self.binary("kedge-edged")),
            Runtime::Azure => {
                sources.push(folder("azure"));
                sources.extend(packages::sources(self.project, self.runtime)?);
                args.extend(packages::arguments(self.runtime));
            }
        }
        Ok(Recipe { sources, target: Some(target), on_base: true, args })
    }
}

impl Recipe {
    /// The hash of everything that the image is made of. `base` is the reference of the base image, which
    /// names its own inputs.
    ///
    /// # Errors
    /// When a source file cannot be read.
    pub fn fingerprint(&self, base: Option<&str>) -> Result<Fingerprint> {
        let mut settings = vec![self.target.unwrap_or_default(), base.unwrap_or_default()];
        settings.extend(self.args.iter().flat_map(|(name, value)| [*name, value.as_str()]));
        Fingerprint::of(&self.sources, &settings)
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if *self == Self::TemperatureSensor { "temperature-sensor" } else { self.short_name() })
    }
}

#[cfg(test)]
mod tests;
