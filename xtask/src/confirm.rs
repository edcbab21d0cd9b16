//! Questions to the person at the terminal.

use std::io::{IsTerminal, Write};

use anyhow::{Context as _, Result};

/// Nobody has agreed to what would be done.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotAgreed(pub String);

/// Asks; anything but a yes is a no, and so is nobody to ask.
///
/// # Errors
/// When the terminal breaks off.
pub fn agreed(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    eprint!("{question} [y/N] ");
    std::io::stderr().flush().context("failed to ask")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("failed to read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
