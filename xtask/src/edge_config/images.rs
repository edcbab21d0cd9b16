//! `[images]`: which image is pulled in the place of the one that a file names.

use std::collections::BTreeMap;

/// The user's names and what stands for them.
pub type Images = BTreeMap<String, String>;

/// Where the images come from that the files name.
#[derive(Debug, Clone, Copy)]
pub struct Supply<'a> {
    /// What is pulled in their place.
    pub images: &'a Images,
    /// What is in the edge's image, and not pulled.
    pub preload: &'a [String],
}

impl<'a> Supply<'a> {
    /// The reference by which the edge gets `image`. What is preloaded has the name by which it was preloaded.
    #[must_use]
    pub fn reference(self, image: &'a str) -> &'a str {
        if self.is_preloaded(image) { image } else { mapped(self.images, image) }
    }

    /// Whether it is in the edge's image.
    #[must_use]
    pub fn is_preloaded(self, reference: &str) -> bool {
        self.preload.iter().any(|preloaded| preloaded == reference)
    }
}

/// The reference that is pulled for `image`: an entry for exactly this, else one for its name without tag and digest,
/// else the image itself.
#[must_use]
pub fn mapped<'a>(images: &'a Images, image: &'a str) -> &'a str {
    entry(images, image).map_or(image, |(_, reference)| reference)
}

/// The names to which none of these images leads, so that they are probably misspelt.
#[must_use]
pub fn unused<'a>(images: &'a Images, named: &[String]) -> Vec<&'a str> {
    let used: Vec<_> = named.iter().filter_map(|image| entry(images, image)).map(|(name, _)| name).collect();
    images.keys().map(String::as_str).filter(|name| !used.contains(name)).collect()
}

fn entry<'a>(images: &'a Images, image: &str) -> Option<(&'a str, &'a str)> {
    let found = images.get_key_value(image).or_else(|| images.get_key_value(name(image)));
    found.map(|(name, reference)| (name.as_str(), reference.as_str()))
}

/// The name without tag and digest.
pub(super) fn name(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    let path = image.rfind('/').map_or(0, |slash| slash + 1);
    image[path..].find(':').map_or(image, |colon| &image[..path + colon])
}

/// The tag, if there is one.
pub(super) fn tag(image: &str) -> Option<&str> {
    let rest = image.split_once('@').map_or(image, |(name, _)| name);
    rest[name(image).len()..].strip_prefix(':')
}

/// The registry from which an image is pulled.
pub(super) fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host == "localhost" || host.contains(['.', ':']) => host,
        _ => "docker.io",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Images {
        let entries = [
            ("mcr.test/agent:1.6", "factory.test:5000/agent@sha256:ab"),
            ("mcr.test/agent", "factory.test:5000/agent:old"),
            ("sensor", "factory.test:5000/sensor:1"),
            ("h:5000/a", "h2/a"),
        ];
        entries.map(|(name, reference)| (name.to_owned(), reference.to_owned())).into()
    }

    #[test]
    fn the_whole_reference_counts_before_the_name() {
        let images = images();
        let cases = [
            ("mcr.test/agent:1.6", "factory.test:5000/agent@sha256:ab"),
            ("mcr.test/agent:1.5", "factory.test:5000/agent:old"),
            ("mcr.test/agent@sha256:00", "factory.test:5000/agent:old"),
            ("mcr.test/agent", "factory.test:5000/agent:old"),
            ("sensor:2", "factory.test:5000/sensor:1"),
            ("h:5000/a", "h2/a"),
            ("h:5000/a:1", "h2/a"),
            ("mcr.test/agent2:1.6", "mcr.test/agent2:1.6"),
        ];
        for (image, expected) in cases {
            assert_eq!(mapped(&images, image), expected, "{image}");
        }
    }

    #[test]
    fn what_nothing_leads_to_is_found() {
        let named = ["sensor:1".to_owned(), "mcr.test/agent:1.6".to_owned()];
        assert_eq!(unused(&images(), &named), ["h:5000/a", "mcr.test/agent"]);
    }

    #[test]
    fn the_parts_of_a_reference_are_told_apart() {
        assert_eq!((name("h:5000/a"), tag("h:5000/a"), registry("h:5000/a")), ("h:5000/a", None, "h:5000"));
        assert_eq!((tag("h/a:1.6@sha256:0"), registry("library/a")), (Some("1.6"), "docker.io"));
    }
}
