//! `cargo xtask man`: the help as manual pages.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use crate::cli::Cli;

/// What the pages are called after.
const NAME: &str = "cargo-xtask";

/// Flags of `man`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write one page for each command into this folder, in the place of printing the main one
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints the main page, or writes all.
///
/// # Errors
/// When a page cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let mut command = Cli::command();
    command.build();
    match &args.out {
        None => {
            let page = page(&command, NAME).context("failed to write the page")?;
            io::stdout().write_all(&page).context("failed to print the page")
        }
        Some(folder) => {
            fs_err::create_dir_all(folder)?;
            write(&command, NAME, folder)
        }
    }
}

/// Writes the page of a command, and those of the commands below it.
fn write(command: &Command, name: &str, folder: &Path) -> Result<()> {
    fs_err::write(folder.join(format!("{name}.1")), page(command, name)?)?;
    for below in command.get_subcommands().filter(|below| below.get_name() != "help" && !below.is_hide_set())
    {
        write(below, &format!("{name}-{}", below.get_name()), folder)?;
    }
    Ok(())
}

fn page(command: &Command, name: &str) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone()).title(name).render(&mut page)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        run(&Args { out: Some(folder.path().to_owned()) }).unwrap();
        for name in ["cargo-xtask", "cargo-xtask-e2e", "cargo-xtask-hub-watch"] {
            let page = fs_err::read_to_string(folder.path().join(format!("{name}.1"))).unwrap();
            assert!(page.contains(".SH SYNOPSIS") && page.contains(&format!(".TH {name} ")), "{page}");
        }
        assert!(!folder.path().join("cargo-xtask-help.1").exists());
    }
}
