//! The images that KEdge builds: from which files, on which base, and under which name.
//!
//! An image is named by the hash of its inputs, so an image that exists is an image that is up to date, and
//! an unchanged one is not even packed for the builder.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::inputs::{Fingerprint, Source};

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
    #[must_use]
    pub fn recipe(self, project: &Path, binaries: &Path) -> Option<Recipe> {
        let folder = |path: &str| Source::folder(project.join(path));
        let binary = |name: &str| Source::file(binaries.join(name), PathBuf::from("bin").join(name));
        let recipe = match self {
            Self::Base => return None,
            Self::Node => Recipe { sources: vec![folder("kind-cluster/node")], target: None, on_base: true },
            Self::Registry => {
                Recipe { sources: vec![folder("kind-cluster/registry")], target: None, on_base: true }
            }
            Self::Hub => Recipe {
                sources: vec![folder("image/hub"), binary("kedge-hub")],
                target: None,
                on_base: false,
            },
            Self::TemperatureSensor => Recipe {
                sources: vec![folder("image/temperature-sensor"), binary("kedge-sensor")],
                target: None,
                on_base: false,
            },
            Self::Edge => Recipe {
                sources: vec![
                    Source::file(project.join("image/Dockerfile"), "Dockerfile"),
                    Source::file(project.join("image/finish.sh"), "finish.sh"),
                    Source::folder_at(project.join("image/rootfs"), "rootfs"),
                    binary("kedge-edged"),
                ],
                target: Some("simulated"),
                on_base: true,
            },
        };
        Some(recipe)
    }
}

impl Recipe {
    /// The hash of everything that the image is made of. `base` is the reference of the base image, which
    /// names its own inputs.
    ///
    /// # Errors
    /// When a source file cannot be read.
    pub fn fingerprint(&self, base: Option<&str>) -> Result<Fingerprint> {
        Fingerprint::of(&self.sources, &[self.target.unwrap_or_default(), base.unwrap_or_default()])
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if *self == Self::TemperatureSensor { "temperature-sensor" } else { self.short_name() })
    }
}
