//! Tries to break out of the edge's container, one attempt after the other, and tells of each whether it worked and else
//! what stopped it. It is root in that container, as somebody is who has taken it over.
//!
//! Several attempts harm the machine where they work, so it runs only where the kernel's command line says that the machine
//! is there to be attacked. Each attempt puts back what it has changed, so that the next one finds the same machine.

#![allow(
    clippy::disallowed_methods,
    reason = "it is alone in a container, without what the orchestrator has for this"
)]

mod attempts;
mod facts;
mod raw;

use std::io;
use std::process::ExitCode;

use crate::attempts::{ATTEMPTS, Attempt, Failed};
use crate::facts::Facts;

/// On the kernel's command line of a machine that may be attacked.
const MARKER: &str = "kedge.attack=allowed";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        // What a module may be made to do is no attack, and is bounded by whoever started it.
        ["allocate", megabytes] => allocate(megabytes),
        ["processes", number] => processes(number),
        ["sleep"] => loop {
            std::thread::park();
        },
        [] | [_] => attack(words.first().copied()),
        _ => Err(io::Error::other("usage: kedge-attack [ATTEMPT | allocate MEGABYTES | processes NUMBER]")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kedge-attack: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one attempt, or each in a process of its own.
fn attack(name: Option<&str>) -> io::Result<()> {
    let command_line = read("/proc/cmdline")?;
    if !command_line.split_whitespace().any(|word| word == MARKER) {
        return Err(io::Error::other(format!(
            "this machine is not there to be attacked: its kernel was started without `{MARKER}`"
        )));
    }
    let Some(name) = name else {
        print!("{}", Facts::read()?);
        return ATTEMPTS.iter().try_for_each(|attempt| in_a_process_of_its_own(attempt.name));
    };
    let attempt = ATTEMPTS.iter().find(|attempt| attempt.name == name);
    let attempt = attempt.ok_or_else(|| io::Error::other(format!("there is no attempt `{name}`")))?;
    // Asked before, since an attempt may change what this process is.
    let facts = Facts::read()?;
    println!("{}", line(attempt, &facts, (attempt.run)()));
    Ok(())
}

/// Name, what was done, the outcome, the step and the error that ended it, and what stands behind that.
fn line(attempt: &Attempt, facts: &Facts, outcome: Result<(), Failed>) -> String {
    let Attempt { name, what, .. } = attempt;
    match outcome {
        Ok(()) => format!("{name}\t{what}\tworked"),
        Err(Failed { step, error }) => {
            let by = facts.stopped_by(attempt, step, &error);
            format!("{name}\t{what}\trefused\t{step}\t{}\t{by}", facts::name_of(&error))
        }
    }
}

/// Some attempts change namespaces of their process, and all their mounts go with it.
fn in_a_process_of_its_own(name: &str) -> io::Result<()> {
    let status = std::process::Command::new("/proc/self/exe").arg(name).status()?;
    if !status.success() {
        println!("{name}\t{name}\tfailed\t\t\t{status}");
    }
    Ok(())
}

/// Takes so much memory, touching each page, and tells when it has it.
fn allocate(megabytes: &str) -> io::Result<()> {
    let megabytes: usize = megabytes.parse().map_err(io::Error::other)?;
    let mut all = Vec::with_capacity(megabytes);
    for _ in 0..megabytes {
        all.push(vec![1u8; 1 << 20]);
    }
    println!("has {} MB", std::hint::black_box(&all).len());
    Ok(())
}

/// Starts so many processes at once, and tells how many there were to be had.
fn processes(number: &str) -> io::Result<()> {
    let number: usize = number.parse().map_err(io::Error::other)?;
    let mut all = Vec::new();
    while all.len() < number {
        match std::process::Command::new("/proc/self/exe").arg("sleep").spawn() {
            Ok(child) => all.push(child),
            Err(error) => {
                println!("stopped at {}: {}", all.len(), facts::name_of(&error));
                break;
            }
        }
    }
    if all.len() == number {
        println!("has {number} processes");
    }
    for child in &mut all {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

fn read(path: &str) -> io::Result<String> {
    std::fs::read_to_string(path).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}
