//! What an image is named by.

use std::collections::BTreeMap;

use super::*;
use crate::settings::Settings;

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
    fs_err::create_dir(folder.path().join("packages")).unwrap();
    for file in ["aziot-edge_1.6.0-1_amd64.deb", "README"] {
        fs_err::write(folder.path().join("packages").join(file), file).unwrap();
    }
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
    fingerprints_with(project, base, &Settings::default().runtime)
}

/// The hashes of the images, by the runtime that is chosen.
fn fingerprints_with(project: &Path, base: &str, runtime: &RuntimeSettings) -> BTreeMap<Image, String> {
    let from = Ingredients { project, binaries: &project.join("programs"), runtime, preloaded: &[] };
    let recipes = ALL.iter().filter_map(|image| Some((*image, image.recipe(from).unwrap()?)));
    let fingerprint = |recipe: Recipe| recipe.fingerprint(recipe.on_base.then_some(base)).unwrap();
    recipes.map(|(image, recipe)| (image, fingerprint(recipe).to_string())).collect()
}

/// Microsoft's runtime, from packages in the project.
fn azure() -> RuntimeSettings {
    RuntimeSettings { kind: Runtime::Azure, packages: "packages".into(), ..Settings::default().runtime }
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
fn microsofts_runtime_is_made_of_its_own_files_and_settings() {
    let project = project();
    let of =
        |runtime: &RuntimeSettings| fingerprints_with(project.path(), BASE, runtime)[&Image::Edge].clone();
    let (before, simulated) = (of(&azure()), of(&Settings::default().runtime));
    for (file, counts) in [
        ("image/azure/install.sh", true),
        ("image/preload/load", true),
        ("image/rootfs/azure/usr/local/libexec/kedge-runtime-health", true),
        ("packages/aziot-edge_1.6.0-1_amd64.deb", true),
        ("packages/README", false),
        ("image/rootfs/simulated/etc/systemd/system/aziot-edged.service", false),
        ("programs/kedge-edged", false),
    ] {
        let path = project.path().join(file);
        let text = fs_err::read(&path).unwrap();
        fs_err::write(&path, "other").unwrap();
        assert_eq!(of(&azure()) != before, counts, "{file}");
        fs_err::write(&path, text).unwrap();
    }
    for other in [
        RuntimeSettings { version: "1.5".into(), ..azure() },
        RuntimeSettings { engine: "moby-engine".into(), ..azure() },
        RuntimeSettings { packages: String::new(), ..azure() },
    ] {
        assert_ne!(of(&other), before, "{other:?}");
    }
    let elsewhere = RuntimeSettings { repository: "https://mirror.test/x".into(), ..azure() };
    assert_eq!(of(&elsewhere), before, "the packages come from the folder");
    let version = RuntimeSettings { version: "1.5".into(), ..Settings::default().runtime };
    assert_eq!(of(&version), simulated, "the simulated runtime has no such version");
}

#[test]
fn what_is_preloaded_is_in_the_image_of_the_edge() {
    let project = project();
    let runtime = Settings::default().runtime;
    let of = |preloaded: &[Preloaded]| {
        let binaries = project.path().join("programs");
        let from = Ingredients { project: project.path(), binaries: &binaries, runtime: &runtime, preloaded };
        Image::Edge.recipe(from).unwrap().unwrap().fingerprint(None).unwrap().to_string()
    };
    let saved = |id| {
        let image = Preloaded::new(project.path(), "a:1", id);
        fs_err::create_dir_all(image.archive.parent().unwrap()).unwrap();
        fs_err::write(&image.archive, "").unwrap();
        image
    };
    assert_ne!(of(&[]), of(&[saved("0a")]));
    assert_ne!(of(&[saved("0b")]), of(&[saved("0a")]));
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
    let fingerprints = |path: &Path| {
        let azure = fingerprints_with(path, BASE, &azure())[&Image::Edge].clone();
        (fingerprints(path, BASE), azure)
    };
    let before = fingerprints(project.path());
    for file in all {
        let kept = project.path().join("kept");
        fs_err::rename(&file, &kept).unwrap();
        // Still of its kind: some files are read to make others of them.
        fs_err::write(&file, [fs_err::read(&kept).unwrap(), b"\n# something else\n".to_vec()].concat())
            .unwrap();
        let after = fingerprints(project.path());
        let runtimes = usize::from(before.1 != after.1);
        assert_eq!(changed(&before.0, &after.0).len().max(runtimes), 1, "{}", file.display());
        fs_err::rename(&kept, &file).unwrap();
    }
}
