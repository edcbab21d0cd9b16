//! Images of modules that become part of the edge's image, as archives in the user's cache. An archive is named after the
//! reference of its image and after its id, so the name says what is in it, and a look at the folder what there is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::inputs::Source;

/// Between reference and id in the name of an archive; a reference by tag has none.
const SEPARATOR: char = '@';
/// In the build context.
const FOLDER: &str = "preload";

/// An image of a module, saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preloaded {
    /// Its reference, by tag.
    pub reference: String,
    /// Its id, which is a hash.
    pub id: String,
    /// The archive.
    pub archive: PathBuf,
}

impl Preloaded {
    /// The image of this reference and id, with the place where its archive belongs.
    #[must_use]
    pub fn new(cache: &Path, reference: &str, id: &str) -> Self {
        let mut image = Self { reference: reference.to_owned(), id: id.to_owned(), archive: folder(cache) };
        image.archive.push(image.archive_name());
        image
    }

    /// The name of the archive, which says what is in it.
    fn archive_name(&self) -> String {
        format!("{}{SEPARATOR}{}.tar", file_name(&self.reference), self.id)
    }
}

/// A reference as a part of a file's name. None has a `%`.
fn file_name(reference: &str) -> String {
    reference.replace('/', "%2F").replace(':', "%3A")
}

fn folder(cache: &Path) -> PathBuf {
    cache.join("preload")
}

/// Every saved image of this reference.
///
/// # Errors
/// When the cache cannot be read.
pub fn kept(cache: &Path, reference: &str) -> Result<Vec<Preloaded>> {
    let folder = folder(cache);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let wanted = file_name(reference);
    let mut kept = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let parts = name.strip_suffix(".tar").and_then(|name| name.split_once(SEPARATOR));
        if let Some((_, id)) = parts.filter(|(name, _)| *name == wanted) {
            kept.push(Preloaded::new(cache, reference, id));
        }
    }
    Ok(kept)
}

/// The saved images of all these references.
///
/// # Errors
/// When one has not been saved, or the cache cannot be read.
pub fn all(cache: &Path, references: &[String]) -> Result<Vec<Preloaded>> {
    let one = |reference: &String| {
        let kept = kept(cache, reference)?.pop();
        kept.with_context(|| {
            format!("the image `{reference}`, which is to be preloaded, has not been saved yet")
        })
    };
    references.iter().map(one).collect()
}

/// What goes to the builder: the archives, and the list by which they are loaded in the edge.
#[must_use]
pub fn sources(preloaded: &[Preloaded]) -> Vec<Source> {
    // Two references of one image have an archive each, since it is by the archive that an image gets its name.
    let named: BTreeMap<_, _> = preloaded.iter().map(|image| (image.archive_name(), image)).collect();
    let archive =
        |(name, image): (&String, &&Preloaded)| Source::named(&image.archive, format!("{FOLDER}/{name}"));
    let mut sources: Vec<_> = named.iter().map(archive).collect();
    if !named.is_empty() {
        let lines: String =
            named.iter().map(|(name, image)| format!("{name} {}\n", image.reference)).collect();
        sources.push(Source::text(lines, format!("{FOLDER}/images")));
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_found_by_the_reference_of_its_image() {
        let cache = tempfile::tempdir().unwrap();
        assert!(kept(cache.path(), "a:1").unwrap().is_empty());
        let image = Preloaded::new(cache.path(), "registry:5000/a/b:1", "0a");
        fs_err::create_dir(image.archive.parent().unwrap()).unwrap();
        fs_err::write(&image.archive, "").unwrap();
        assert_eq!(kept(cache.path(), "registry:5000/a/b:1").unwrap(), std::slice::from_ref(&image));
        assert!(kept(cache.path(), "b:1").unwrap().is_empty());
        let references = [image.reference.clone(), "b:1".to_owned()];
        assert_eq!(all(cache.path(), &references[..1]).unwrap(), [image]);
        assert!(all(cache.path(), &references).unwrap_err().to_string().contains("`b:1`"));
    }

    #[test]
    fn several_names_of_one_image_have_an_archive_each_and_a_name_counts_once() {
        let image = |reference| Preloaded::new(Path::new("/cache"), reference, "0a");
        let two = sources(&[image("m:1"), image("m:latest"), image("m:1")]);
        let list = "m%3A1@0a.tar m:1\nm%3Alatest@0a.tar m:latest\n";
        let archive = |name: &str| Source::named(format!("/cache/preload/{name}"), format!("preload/{name}"));
        let expected =
            [archive("m%3A1@0a.tar"), archive("m%3Alatest@0a.tar"), Source::text(list, "preload/images")];
        assert_eq!(two, expected);
        assert!(sources(&[]).is_empty());
    }
}
