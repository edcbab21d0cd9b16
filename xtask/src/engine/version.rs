//! Whether an engine is new enough: what is too old is told before anything is made with it.

use anyhow::{Result, bail};
use bollard::models::SystemVersion;

/// Version of the interface that containers and networks are made with.
const OLDEST: (u32, u32) = (1, 41);

/// Checks what the engine tells about itself.
///
/// # Errors
/// When it is too old, or tells no version that can be read.
pub(super) fn check(version: &SystemVersion) -> Result<()> {
    let release = version.version.as_deref().unwrap_or("of an unknown version");
    let Some(interface) = version.api_version.as_deref() else {
        bail!("the engine {release} does not tell the version of its interface");
    };
    let numbers =
        interface.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    match numbers {
        None => bail!("the engine {release} tells {interface:?} as the version of its interface"),
        Some(numbers) if numbers < OLDEST => bail!(
            "the engine {release} is too old: its interface has the version {interface}, and {}.{} is needed, which \
             Docker 20.10, Podman 4.0 and later have; upgrade it",
            OLDEST.0,
            OLDEST.1
        ),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(interface: Option<&str>) -> Option<String> {
        let version = SystemVersion {
            version: Some("19.03".into()),
            api_version: interface.map(Into::into),
            ..SystemVersion::default()
        };
        check(&version).err().map(|error| error.to_string())
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(["1.41", "1.52", "2.0"].iter().all(|version| told(Some(version)).is_none()));
        for version in ["1.40", "1.24", "1.9", "0.99"] {
            let told = told(Some(version)).unwrap();
            assert!(
                told.contains("19.03") && told.contains(version) && told.contains("1.41 is needed"),
                "{told}"
            );
        }
    }

    #[test]
    fn an_engine_that_does_not_tell_is_refused() {
        assert!(told(None).unwrap().contains("does not tell"));
        assert!(told(Some("new")).unwrap().contains("\"new\""));
    }
}
