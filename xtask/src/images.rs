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
                sources: vec![
                    folder("image/temperature-sensor"),
                    binary("kedge-sensor"),
                    binary("kedge-load"),
                ],
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const ALL: [Image; 6] =
        [Image::Base, Image::Node, Image::Registry, Image::Hub, Image::Edge, Image::TemperatureSensor];
    const BASE: &str = "localhost/kedge/base:1";

    /// The project's image sources and stand-ins for the compiled programs, in a folder of their own.
    fn project() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for part in ["image", "kind-cluster", "manifests", "config"] {
            copy(&root.join(part), &folder.path().join(part));
        }
        fs_err::create_dir(folder.path().join("programs")).unwrap();
        for program in ["kedge-hub", "kedge-edged", "kedge-sensor", "kedge-load"] {
            fs_err::write(folder.path().join("programs").join(program), program).unwrap();
        }
        folder
    }

    fn copy(from: &Path, to: &Path) {
        fs_err::create_dir(to).unwrap();
        for entry in fs_err::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let (kind, to) = (entry.file_type().unwrap(), to.join(entry.file_name()));
            if kind.is_dir() {
                copy(&entry.path(), &to);
            } else if kind.is_symlink() {
                std::os::unix::fs::symlink(fs_err::read_link(entry.path()).unwrap(), to).unwrap();
            } else {
                fs_err::copy(entry.path(), to).unwrap();
            }
        }
    }

    fn fingerprints(project: &Path, base: &str) -> BTreeMap<Image, String> {
        let recipes =
            ALL.iter().filter_map(|image| Some((*image, image.recipe(project, &project.join("programs"))?)));
        let fingerprint = |recipe: Recipe| recipe.fingerprint(recipe.on_base.then_some(base)).unwrap();
        recipes.map(|(image, recipe)| (image, fingerprint(recipe).to_string())).collect()
    }

    fn changed(before: &BTreeMap<Image, String>, after: &BTreeMap<Image, String>) -> Vec<Image> {
        before.keys().copied().filter(|image| before[image] != after[image]).collect()
    }

    #[test]
    fn after_a_change_to_one_file_only_what_depends_on_it_is_rebuilt() {
        let cases: [(&str, &[Image]); 23] = [
            ("image/Dockerfile", &[Image::Edge]),
            ("image/finish.sh", &[Image::Edge]),
            ("image/rootfs/common/etc/docker/daemon.json", &[Image::Edge]),
            ("image/rootfs/common/usr/local/sbin/kedge-entrypoint", &[Image::Edge]),
            ("image/rootfs/simulated/etc/systemd/system/aziot-edged.service", &[Image::Edge]),
            ("programs/kedge-edged", &[Image::Edge]),
            ("image/hub/Dockerfile", &[Image::Hub]),
            ("programs/kedge-hub", &[Image::Hub]),
            ("image/temperature-sensor/Dockerfile", &[Image::TemperatureSensor]),
            ("programs/kedge-sensor", &[Image::TemperatureSensor]),
            ("programs/kedge-load", &[Image::TemperatureSensor]),
            ("kind-cluster/registry/Dockerfile", &[Image::Registry]),
            ("kind-cluster/registry/config.yml", &[Image::Registry]),
            ("kind-cluster/node/Dockerfile", &[Image::Node]),
            ("kind-cluster/node/finish.sh", &[Image::Node]),
            ("kind-cluster/node/images/assemble.sh", &[Image::Node]),
            ("kind-cluster/node/kubernetes/build.sh", &[Image::Node]),
            ("kind-cluster/node/rootfs/etc/containerd/config.toml", &[Image::Node]),
            // These are given to the cluster or to the hub, and are in no image.
            ("kind-cluster/kind.yaml", &[]),
            ("kind-cluster/kind-upstream.yaml", &[]),
            ("manifests/kedgedeployment.yaml", &[]),
            ("config/deployment.json", &[]),
            ("config/config.toml", &[]),
        ];
        let project = project();
        let before = fingerprints(project.path(), BASE);
        assert_eq!(before.len(), ALL.len() - 1, "the base is made of no file");
        for (file, expected) in cases {
            let path = project.path().join(file);
            let text = fs_err::read(&path).unwrap();
            fs_err::write(&path, [&text[..], b"\n"].concat()).unwrap();
            assert_eq!(changed(&before, &fingerprints(project.path(), BASE)), expected, "{file}");
            fs_err::write(&path, text).unwrap();
        }
        assert_eq!(before, fingerprints(project.path(), BASE), "the time of a change does not count");
    }

    #[test]
    fn another_base_rebuilds_what_is_on_it() {
        let project = project();
        let other = fingerprints(project.path(), "localhost/kedge/base:2");
        let before = fingerprints(project.path(), BASE);
        assert_eq!(changed(&before, &other), [Image::Node, Image::Registry, Image::Edge]);
    }

    #[test]
    fn every_file_beside_a_dockerfile_is_in_an_image() {
        fn files(folder: &Path, all: &mut Vec<PathBuf>) {
            for entry in fs_err::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    files(&entry.path(), all);
                } else {
                    all.push(entry.path());
                }
            }
        }
        let project = project();
        let mut all = Vec::new();
        for folder in ["image", "kind-cluster/node", "kind-cluster/registry"] {
            files(&project.path().join(folder), &mut all);
        }
        let before = fingerprints(project.path(), BASE);
        for file in all {
            let kept = project.path().join("kept");
            fs_err::rename(&file, &kept).unwrap();
            fs_err::write(&file, "something else").unwrap();
            let after = fingerprints(project.path(), BASE);
            assert_eq!(changed(&before, &after).len(), 1, "{}", file.display());
            fs_err::rename(&kept, &file).unwrap();
        }
    }
}
