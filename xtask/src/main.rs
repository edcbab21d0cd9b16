//! `cargo xtask`: parse, run, and turn the error into words and an exit code.

use std::process::ExitCode;

use clap::Parser;
use xtask::progress::{leave_terminal, plain_lines};
use xtask::verdict::Verdict;
use xtask::{cli, commands, exit};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    // Boxed, for the compiler looks only so far into futures within futures.
    let result = Box::pin(commands::run(cli::Cli::parse())).await;
    leave_terminal();
    match result {
        Ok(()) => ExitCode::from(exit::SUCCESS),
        Err(error) => {
            eprintln!("error: {}", plain_lines(&format!("{error:#}")));
            if let Some(next) = Verdict::particular_next(&error) {
                eprintln!("next:  {}", plain_lines(&next));
            }
            ExitCode::from(exit::code(&error))
        }
    }
}
