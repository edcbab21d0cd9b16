//! `cargo xtask device`: the device's identity and credentials, for each kind of provisioning.

mod given;
mod output;

use std::ffi::OsString;

use anyhow::Result;
use jiff::Timestamp;

use self::given::{Certificate, Device, Extra, Reader, Registration};
use crate::exit::Usage;
use crate::paths::shown;
use crate::problems::{Problem, did_you_mean};
use crate::provisioning::{self, Checked, Draft, UnusableCredentials};
use crate::secret_input;
use crate::session::Setup;

/// Flags of `device`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Each kind reads its secret with `--from`: from a file, from standard input (`-`) or from a variable (`env:NAME`), never from
an argument. What is given takes the place of what was kept; `up`, `run`, `e2e` and `deploy` use it.

  cargo xtask device connection-string --from connection-string.txt
  az iot hub device-identity connection-string show … -o tsv | cargo xtask device connection-string --from -
  cargo xtask device sas --host-name factory.azure-devices.net --device-id press-7 --from env:DEVICE_KEY
  cargo xtask device x509 --host-name factory.azure-devices.net --device-id press-7 --certificate press-7.pem --from press-7.key
  cargo xtask device dps-symmetric-key --id-scope 0ne00A1B2C3 --registration-id press-7 --group --from group.key
  cargo xtask device dps-x509 --id-scope 0ne00A1B2C3 --certificate press-7.pem --from press-7.key --out ./press-7";

/// Above the flags of these commands, apart from those of every command.
const HEADING: &str = "Credentials";
const KINDS: [&str; 9] = [
    "connection-string",
    "sas",
    "x509",
    "dps-symmetric-key",
    "dps-x509",
    "dps-tpm",
    "show",
    "check",
    "remove",
];

/// What to do with the device's credentials.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// A connection string, which has all in it
    ConnectionString {
        #[command(flatten)]
        secret: Secret,
        #[command(flatten)]
        extra: Extra,
    },
    /// A hub, a device id and the device's symmetric key, which is delivered as a file
    Sas {
        #[command(flatten)]
        device: Device,
        #[command(flatten)]
        secret: Secret,
        #[command(flatten)]
        extra: Extra,
    },
    /// A hub, a device id and the device's certificate with its private key
    X509 {
        #[command(flatten)]
        device: Device,
        #[command(flatten)]
        certificate: Certificate,
        #[command(flatten)]
        secret: Secret,
        #[command(flatten)]
        extra: Extra,
    },
    /// A registration at the provisioning service, with the symmetric key of the device or of its enrolment group
    DpsSymmetricKey {
        #[command(flatten)]
        registration: Registration,
        /// The key is that of an enrolment group: the device's is derived from it, and the group's is not kept
        #[arg(long, help_heading = HEADING)]
        group: bool,
        #[command(flatten)]
        secret: Secret,
        #[command(flatten)]
        extra: Extra,
    },
    /// A registration at the provisioning service, with a certificate and its private key
    DpsX509 {
        #[command(flatten)]
        registration: Registration,
        #[command(flatten)]
        certificate: Certificate,
        #[command(flatten)]
        secret: Secret,
        #[command(flatten)]
        extra: Extra,
    },
    /// A registration at the provisioning service, with the key in the machine's security chip (table `[tpm]` of the
    /// runtime's configuration); not for the simulated runtime
    DpsTpm {
        #[command(flatten)]
        registration: Registration,
        #[command(flatten)]
        extra: Extra,
        #[arg(hide = true)]
        stray: Vec<OsString>,
    },
    /// Show what is kept, without secrets
    Show,
    /// Tell whether what is kept can be used; exit code 3 when it cannot
    Check,
    /// Remove what is kept
    Remove,
    /// Something else, which may be a secret.
    #[command(external_subcommand)]
    Unknown(Vec<OsString>),
}

/// Where the secret comes from.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = HEADING)]
struct Secret {
    /// Where the secret is read from: the connection string, the key or the private key
    // Asked for later, so that a secret in its place is refused with what that means.
    #[arg(long, value_name = secret_input::VALUE)]
    from: Option<OsString>,
    /// What stands behind the flags, which may be a secret: it is refused here, and not repeated.
    #[arg(hide = true)]
    stray: Vec<OsString>,
}

/// Does with the device's credentials what was asked for.
///
/// # Errors
/// When the credentials cannot be read, used or kept.
pub async fn run(setup: Setup, args: Args) -> Result<()> {
    match args.command {
        Command::Show => show(&setup),
        Command::Check => check(&setup),
        Command::Remove => remove(&setup),
        Command::Unknown(words) => Err(unknown(&words).into()),
        command => make(&setup, command).await,
    }
}

/// Reads what was given, checks it, and keeps it.
async fn make(setup: &Setup, command: Command) -> Result<()> {
    let mut reader = Reader::default();
    let (draft, extra) = match command {
        Command::ConnectionString { secret, extra } => {
            (reader.secret(&secret).await?.map(Draft::ConnectionString), extra)
        }
        Command::Sas { device, secret, extra } => {
            (reader.secret(&secret).await?.map(|key| Draft::ManualSas(device.draft(), key)), extra)
        }
        Command::X509 { device, certificate, secret, extra } => {
            let identity = reader.identity(&certificate, &secret).await?;
            (identity.map(|identity| Draft::ManualX509(device.draft(), identity)), extra)
        }
        Command::DpsSymmetricKey { registration, group, secret, extra } => {
            let key = reader.secret(&secret).await?;
            let draft =
                |key| Draft::DpsSymmetricKey { registration: registration.draft(), key, is_of_group: group };
            (key.map(draft), extra)
        }
        Command::DpsX509 { registration, certificate, secret, extra } => {
            let identity = reader.identity(&certificate, &secret).await?;
            (identity.map(|identity| Draft::DpsX509(registration.draft(), identity)), extra)
        }
        Command::DpsTpm { registration, extra, stray } => {
            secret_input::refuse_stray(&stray)?;
            (Some(Draft::DpsTpm(registration.draft())), extra)
        }
        Command::Show | Command::Check | Command::Remove | Command::Unknown(_) => return Ok(()),
    };
    let bundle = reader.trust_bundle(&extra).await?;
    let mut problems = reader.problems;
    let Some(draft) = draft else { return Err(UnusableCredentials { problems }.into()) };
    let mut checked = draft.check(bundle.as_ref(), Timestamp::now());
    tell("note", &checked.notes);
    tell("warning", &checked.warnings);
    problems.append(&mut checked.problems);
    checked.problems = problems;
    output::deliver(setup, &checked.usable()?, extra.out.as_deref())
}

fn tell(word: &str, problems: &[Problem]) {
    for problem in problems {
        eprintln!("{word}: {problem}");
    }
}

fn show(setup: &Setup) -> Result<()> {
    let Some(Checked { kept, problems, warnings, .. }) = provisioning::kept(&setup.paths)? else {
        println!("no credentials are kept: the local hub makes its own, and yours needs some");
        return Ok(());
    };
    if let Some(kept) = kept {
        output::print(&kept);
        output::tell_where_they_lead(setup, &kept);
    }
    tell("warning", &warnings);
    tell("problem", &problems);
    Ok(())
}

fn check(setup: &Setup) -> Result<()> {
    let Some(mut checked) = provisioning::kept(&setup.paths)? else {
        return Err(provisioning::Unfit::Missing.into());
    };
    tell("warning", &std::mem::take(&mut checked.warnings));
    let kept = checked.usable()?;
    // What they are put into can be wrong as well.
    output::files(setup, &kept)?;
    let provisioning = &kept.provisioning;
    println!("the kept credentials can be used: {}, {}", provisioning.kind(), provisioning.device_id());
    output::tell_where_they_lead(setup, &kept);
    Ok(())
}

fn remove(setup: &Setup) -> Result<()> {
    let folder = provisioning::folder(&setup.paths);
    if setup.dry_run {
        println!("would be removed: {}", shown(&folder, &setup.paths.project));
        return Ok(());
    }
    let _lock = setup.lock()?;
    if provisioning::forget(&setup.paths)? {
        eprintln!(
            "removed: {}; what is deployed keeps its own until the next `up` or `deploy`",
            folder.display()
        );
    } else {
        eprintln!("no credentials are kept");
    }
    Ok(())
}

/// A word that is no command. It is repeated only when it is like one, for it may be a secret.
fn unknown(words: &[OsString]) -> Usage {
    let word = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    let hint = did_you_mean(&word, KINDS);
    Usage(format!(
        "that is none of the kinds of `cargo xtask device`{hint}; `cargo xtask device --help` has them"
    ))
}
