//! Images of the engine: built, loaded, saved, pushed.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use bollard::auth::DockerCredentials;
use bollard::query_parameters::{
    BuildImageOptions, BuilderVersion, CreateImageOptionsBuilder, ImportImageOptionsBuilder,
    PushImageOptionsBuilder, RemoveImageOptions, TagImageOptionsBuilder,
};
use futures_util::{Stream, StreamExt, TryStreamExt};
use kedge_sim::secret::Secret;
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use super::{Engine, IMAGE_LABEL, is_missing};

/// An image build.
#[derive(Debug)]
pub struct Build {
    /// The build context, a tar archive with a `Dockerfile` at its root, from its beginning. It may be larger than memory.
    pub context: std::fs::File,
    /// The name of the result.
    pub reference: String,
    /// The stage to build.
    pub target: Option<&'static str>,
    /// Whether layers of earlier builds are left unused.
    pub from_nothing: bool,
    /// Build arguments; never a secret.
    pub args: Vec<(&'static str, String)>,
}

/// A login at a registry.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user.
    pub username: String,
    /// The password.
    pub password: Secret,
}

impl Engine {
    /// Whether the engine has this image.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn has_image(&self, reference: &str) -> Result<bool> {
        Ok(self.image_id(reference).await?.is_some())
    }

    /// The id of an image, without the name of the hash, if the engine has it.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn image_id(&self, reference: &str) -> Result<Option<String>> {
        match self.docker.inspect_image(reference).await {
            Ok(image) => {
                let id = image.id.with_context(|| format!("the engine tells no id of `{reference}`"))?;
                Ok(Some(id.rsplit(':').next().unwrap_or(&id).to_owned()))
            }
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => {
                Err(anyhow!(self.told(error)).context(format!("failed to look for the image `{reference}`")))
            }
        }
    }

    /// Size of an image in bytes, uncompressed.
    ///
    /// # Errors
    /// When the engine does not have it.
    pub async fn image_size(&self, reference: &str) -> Result<u64> {
        let image = self
            .docker
            .inspect_image(reference)
            .await
            .map_err(|error| self.told(error))
            .with_context(|| format!("there is no image `{reference}`"))?;
        Ok(image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default())
    }

    /// Builds an image; each line of the builder goes to `line`.
    ///
    /// # Errors
    /// When the build fails; the error has the last lines of the builder.
    pub async fn build(&self, build: Build, mut line: impl FnMut(&str)) -> Result<()> {
        let Build { context, reference, target, from_nothing, args } = build;
        let options = options(&reference, target, from_nothing, &args);
        let context = ReaderStream::new(tokio::fs::File::from_std(context));
        let mut tail = Tail::default();
        let mut steps = self.docker.build_image(options, None, Some(bollard::body_try_stream(context)));
        while let Some(step) = steps.next().await {
            match step {
                Ok(info) => {
                    for text in info.stream.iter().chain(&info.status).flat_map(|text| text.lines()) {
                        tail.push(text);
                        line(text);
                    }
                    if let Some(error) = info.error_detail.and_then(|detail| detail.message) {
                        bail!("the builder says: {error}{tail}");
                    }
                }
                Err(error) => return Err(anyhow!("the builder says: {:#}{tail}", anyhow!(self.told(error)))),
            }
        }
        // Podman ends the stream without an error when it is stopped from outside.
        if self.has_image(&reference).await? {
            Ok(())
        } else {
            bail!("the builder ended without an image{tail}")
        }
    }

    /// Pulls an image from wherever its reference says.
    ///
    /// # Errors
    /// When it cannot be pulled, for whatever reason.
    pub async fn pull(&self, reference: &str, mut line: impl FnMut(&str)) -> Result<()> {
        let options = CreateImageOptionsBuilder::new().from_image(reference).build();
        let mut layers = self.docker.create_image(Some(options), None, None);
        while let Some(layer) = layers.next().await {
            line(
                &layer
                    .map_err(|error| self.told(error))
                    .with_context(|| format!("failed to pull `{reference}`"))?
                    .status
                    .unwrap_or_default(),
            );
        }
        if self.has_image(reference).await? {
            Ok(())
        } else {
            bail!("failed to pull `{reference}`: the engine has no such image")
        }
    }

    /// Saves an image as an archive. The file appears under its name only when it is complete.
    ///
    /// # Errors
    /// When the engine or the disk refuses.
    pub async fn save_image(&self, reference: &str, archive: &Path) -> Result<()> {
        let partial = archive.with_extension("partial");
        let mut file = fs_err::tokio::File::create(&partial).await?;
        let mut chunks = Box::pin(self.docker.export_image(reference));
        while let Some(chunk) = chunks
            .try_next()
            .await
            .map_err(|error| self.told(error))
            .with_context(|| format!("failed to save the image `{reference}`"))?
        {
            file.write_all(&chunk).await?;
        }
        file.sync_all().await?;
        Ok(fs_err::tokio::rename(&partial, archive).await?)
    }

    /// Loads an image archive.
    ///
    /// # Errors
    /// When the archive cannot be read or is refused.
    pub async fn load_image(&self, archive: &Path) -> Result<()> {
        let file = fs_err::tokio::File::open(archive).await?;
        let options = ImportImageOptionsBuilder::new().build();
        let loaded = self.docker.import_image_stream(options, ReaderStream::new(file), None);
        drain(loaded)
            .await
            .map_err(|error| self.told(error))
            .with_context(|| format!("failed to load the image archive `{}`", archive.display()))
    }

    /// Removes the name of an image, and the image with its last name.
    ///
    /// # Errors
    /// When the engine refuses.
    pub async fn remove_image(&self, reference: &str) -> Result<()> {
        let removed = self.docker.remove_image(reference, None::<RemoveImageOptions>, None).await;
        removed
            .map(drop)
            .map_err(|error| self.told(error))
            .with_context(|| format!("failed to remove the image `{reference}`"))
    }

    /// Gives an image another name.
    ///
    /// # Errors
    /// When the engine does not have it.
    pub async fn tag(&self, image: &str, name: &str) -> Result<()> {
        let (repository, tag) = name.rsplit_once(':').with_context(|| format!("`{name}` has no tag"))?;
        let options = TagImageOptionsBuilder::new().repo(repository).tag(tag).build();
        let tagged = self.docker.tag_image(image, Some(options)).await;
        tagged
            .map_err(|error| self.told(error))
            .with_context(|| format!("failed to name the image `{image}` `{name}`"))
    }

    /// Pushes a local image to `repository`, which begins with the registry's host.
    ///
    /// # Errors
    /// When the registry refuses.
    pub async fn push(&self, local: &str, repository: &str, tag: &str, login: &Login) -> Result<()> {
        self.tag(local, &format!("{repository}:{tag}")).await?;
        let credentials = DockerCredentials {
            username: Some(login.username.clone()),
            password: Some(login.password.expose().to_owned()),
            ..DockerCredentials::default()
        };
        let options = PushImageOptionsBuilder::new().tag(tag).build();
        let pushed = drain(self.docker.push_image(repository, Some(options), Some(credentials))).await;
        // The name with the registry's host is needed for the push alone.
        let untagged = self.remove_image(&format!("{repository}:{tag}")).await;
        pushed
            .map_err(|error| self.told(error))
            .with_context(|| format!("failed to push `{repository}:{tag}`"))?;
        untagged
    }
}

fn options(
    reference: &str,
    target: Option<&str>,
    from_nothing: bool,
    args: &[(&'static str, String)],
) -> BuildImageOptions {
    BuildImageOptions {
        dockerfile: "Dockerfile".into(),
        t: Some(reference.into()),
        target: target.unwrap_or_default().into(),
        nocache: from_nothing,
        buildargs: Some(args.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()),
        labels: Some([(IMAGE_LABEL.to_owned(), reference.to_owned())].into()),
        rm: true,
        forcerm: true,
        // The classic builder is in every Docker and in Podman; nothing here needs BuildKit.
        version: BuilderVersion::BuilderV1,
        ..BuildImageOptions::default()
    }
}

async fn drain<T>(
    stream: impl Stream<Item = Result<T, bollard::errors::Error>>,
) -> Result<(), bollard::errors::Error> {
    stream.try_for_each(|_| async { Ok(()) }).await
}

/// The last lines of a builder.
#[derive(Default)]
struct Tail(std::collections::VecDeque<String>);

impl Tail {
    const LINES: usize = 20;

    fn push(&mut self, line: &str) {
        if !line.trim().is_empty() {
            self.0.push_back(line.to_owned());
            if self.0.len() > Self::LINES {
                self.0.pop_front();
            }
        }
    }
}

impl std::fmt::Display for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}
