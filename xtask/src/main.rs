//! `cargo xtask`: parse, run, and turn the error into words and an exit code.

use std::process::ExitCode;

use clap::Parser;
use xtask::{cli, commands, exit};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    match commands::run(cli::Cli::parse()).await {
        Ok(()) => ExitCode::from(exit::SUCCESS),
        Err(error) => {
            eprintln!("error: {error:#}");
            exit::code(&error)
        }
    }
}
