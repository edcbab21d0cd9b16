//! What is typed for a device, and how it becomes what is checked.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;

use super::{HEADING, Secret};
use crate::problems::Problem;
use crate::provisioning::{DeviceDraft, GLOBAL_ENDPOINT, Given, IdentityDraft, RegistrationDraft};
use crate::secret_input::{self, Source, refuse_stray};

/// A device in a hub.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct Device {
    /// Host name of the hub, such as factory.azure-devices.net
    #[arg(long, value_name = "NAME")]
    host_name: String,
    /// Id of the device in the hub
    #[arg(long, value_name = "ID")]
    device_id: String,
}

impl Device {
    pub(super) fn draft(&self) -> DeviceDraft {
        DeviceDraft {
            host_name: Given::new("--host-name", self.host_name.as_str()),
            device_id: Given::new("--device-id", self.device_id.as_str()),
        }
    }
}

/// A registration at the provisioning service.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct Registration {
    /// Id scope of the provisioning service, as in its overview
    #[arg(long, value_name = "SCOPE")]
    id_scope: String,
    /// Id under which the device is enrolled [with a certificate, by default: its common name]
    #[arg(long, value_name = "ID")]
    registration_id: Option<String>,
    /// Id of the device in the hub, when the enrolment names another than the registration id
    #[arg(long, value_name = "ID")]
    device_id: Option<String>,
    /// Address of the provisioning service
    #[arg(long, value_name = "URL", default_value = GLOBAL_ENDPOINT)]
    global_endpoint: String,
}

impl Registration {
    pub(super) fn draft(&self) -> RegistrationDraft {
        RegistrationDraft {
            global_endpoint: Given::new("--global-endpoint", self.global_endpoint.as_str()),
            id_scope: Given::new("--id-scope", self.id_scope.as_str()),
            registration_id: self.registration_id.as_deref().map(|id| Given::new("--registration-id", id)),
            device_id: self.device_id.as_deref().map(|id| Given::new("--device-id", id)),
        }
    }
}

/// The certificate that goes with a private key.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct Certificate {
    /// Where the device's certificate is read from: PEM, followed by those of its issuers
    #[arg(long, value_name = secret_input::VALUE)]
    certificate: OsString,
}

/// What goes with any kind.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct Extra {
    /// Where certificates are read from that modules are to trust besides the Edge CA: PEM
    #[arg(long, value_name = secret_input::VALUE)]
    trust_bundle: Option<OsString>,
    /// Keep nothing, but write config.toml and the Secret into this folder, for `kubectl apply --server-side`
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
}

/// Reads what is given, and collects what cannot be read.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<Problem>,
    has_read_input: bool,
}

impl Reader {
    pub(super) async fn secret(&mut self, secret: &Secret) -> Result<Option<Given>> {
        refuse_stray(&secret.stray)?;
        let Some(from) = &secret.from else { return Err(secret_input::missing_source().into()) };
        self.read(from, true).await
    }

    pub(super) async fn identity(
        &mut self,
        certificate: &Certificate,
        secret: &Secret,
    ) -> Result<Option<IdentityDraft>> {
        refuse_stray(&secret.stray)?;
        let certificate = self.read(&certificate.certificate, false).await?;
        let key = self.secret(secret).await?;
        Ok(certificate.zip(key).map(|(certificate, key)| IdentityDraft { certificate, key }))
    }

    pub(super) async fn trust_bundle(&mut self, extra: &Extra) -> Result<Option<Given>> {
        match &extra.trust_bundle {
            Some(typed) => self.read(typed, false).await,
            None => Ok(None),
        }
    }

    /// What cannot be read is collected, so that all of it is told at once.
    async fn read(&mut self, typed: &OsString, is_secret: bool) -> Result<Option<Given>> {
        let source = Source::of(typed)?;
        if source == Source::Input && std::mem::replace(&mut self.has_read_input, true) {
            return Err(secret_input::only_one_input().into());
        }
        match source.read(is_secret).await? {
            Ok(given) => Ok(Some(given)),
            Err(problem) => {
                self.problems.push(problem);
                Ok(None)
            }
        }
    }
}
