//! What the runtime falls back on while the hub is away: the last good deployment, and the generations of the
//! module identities, from which their keys follow.
//!
//! Each file says for which device it is. One that is another's, or cannot be read, is as good as none: the hub
//! tells all of it again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::state::{read_if_there, write_private};

/// The backup of one device.
#[derive(Debug, Clone)]
pub struct Backup {
    deployment: PathBuf,
    modules: PathBuf,
    owner: String,
    /// Modules get their identities at the same time, and none may write over what another has just kept.
    changing: Arc<Mutex<()>>,
}

#[derive(Serialize, Deserialize)]
struct File<T> {
    /// `{hub}/{device}`.
    owner: String,
    content: T,
}

impl Backup {
    /// The backup in a state folder. Nothing is read or written before it is needed.
    #[must_use]
    pub fn new(state: &Path, hub_name: &str, device_id: &str) -> Self {
        Self {
            deployment: state.join("edged/deployment.json"),
            modules: state.join("identityd/modules.json"),
            owner: format!("{}/{device_id}", hub_name.to_lowercase()),
            changing: Arc::default(),
        }
    }

    /// The desired properties of `$edgeAgent` that were last in force.
    #[must_use]
    pub fn deployment(&self) -> Option<Value> {
        self.read(&self.deployment)
    }

    /// Keeps the desired properties; they have the passwords of registries.
    pub fn keep_deployment(&self, desired: &Value) {
        self.write(&self.deployment, desired);
    }

    /// The generations of the module identities.
    #[must_use]
    pub fn generations(&self) -> BTreeMap<String, String> {
        self.read(&self.modules).unwrap_or_default()
    }

    /// Keeps or, without one, removes the generation of a module.
    pub fn keep_generation(&self, module_id: &str, generation: Option<&str>) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut generations = self.generations();
        let former = match generation {
            Some(generation) => generations.insert(module_id.to_owned(), generation.to_owned()),
            None => generations.remove(module_id),
        };
        if former.as_deref() != generation {
            self.write(&self.modules, &generations);
        }
    }

    fn read<T: DeserializeOwned>(&self, path: &Path) -> Option<T> {
        let read = || -> io::Result<Option<File<T>>> {
            read_if_there(path)?.map(|bytes| Ok(serde_json::from_slice(&bytes)?)).transpose()
        };
        match read() {
            Ok(file) => file.filter(|file| file.owner == self.owner).map(|file| file.content),
            Err(error) => {
                tracing::warn!("The backup {} cannot be read: {error}", path.display());
                None
            }
        }
    }

    /// A backup that cannot be written is no reason to stop.
    fn write<T: Serialize>(&self, path: &Path, content: T) {
        let file = File { owner: self.owner.clone(), content };
        let written = serde_json::to_vec(&file).map_err(io::Error::from);
        if let Err(error) = written.and_then(|bytes| write_private(path, &bytes)) {
            tracing::warn!("The backup {} cannot be written: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_device_finds_its_own_backup_again() {
        let folder = tempfile::tempdir().unwrap();
        let backup = Backup::new(folder.path(), "Hub.test", "d");
        assert_eq!((backup.deployment(), backup.generations()), (None, BTreeMap::new()));
        backup.keep_deployment(&json!({"$version": 4}));
        backup.keep_generation("m", Some("1"));
        backup.keep_generation("n", Some("2"));
        backup.keep_generation("m", None);
        let same = Backup::new(folder.path(), "hub.test", "d");
        assert_eq!(same.deployment(), Some(json!({"$version": 4})));
        assert_eq!(same.generations(), BTreeMap::from([("n".to_owned(), "2".to_owned())]));
        let other = Backup::new(folder.path(), "hub.test", "other");
        assert_eq!((other.deployment(), other.generations()), (None, BTreeMap::new()));
        let mode =
            fs_err::metadata(folder.path().join("edged/deployment.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn modules_that_get_their_identities_at_the_same_time_are_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        let backup = Backup::new(folder.path(), "h", "d");
        let names: Vec<String> = (0..8).map(|number| format!("m{number}")).collect();
        std::thread::scope(|scope| {
            for name in &names {
                let backup = backup.clone();
                scope.spawn(move || backup.keep_generation(name, Some("1")));
            }
        });
        assert!(backup.generations().keys().eq(&names), "{:?}", backup.generations());
    }

    #[test]
    fn a_damaged_backup_is_none_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let backup = Backup::new(folder.path(), "h", "d");
        for damage in ["", "{", "[]", r#"{"owner":"h/d"}"#] {
            backup.keep_deployment(&json!({"$version": 1}));
            fs_err::write(folder.path().join("edged/deployment.json"), damage).unwrap();
            assert_eq!(backup.deployment(), None, "{damage}");
        }
        backup.keep_deployment(&json!({"$version": 2}));
        assert_eq!(backup.deployment(), Some(json!({"$version": 2})));
    }
}
