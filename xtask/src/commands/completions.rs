//! `cargo xtask completions`: a script that lets a shell complete the command line.
//!
//! What clap writes completes a program called `xtask`, while people type `cargo xtask`, whose program is `cargo`. So each script
//! goes on with a few lines that hand on what follows `cargo xtask`, and leave all other subcommands to cargo's own completion.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;

/// What the scripts call the program.
const NAME: &str = "xtask";

const BASH: &str = r#"
# `cargo xtask`, beside what completes cargo already.
if ! complete -p cargo >/dev/null 2>&1; then
    if declare -F _comp_load >/dev/null; then
        _comp_load cargo >/dev/null 2>&1
    elif declare -F _completion_loader >/dev/null; then
        _completion_loader cargo >/dev/null 2>&1
    fi
fi
if [[ "$(complete -p cargo 2>/dev/null)" =~ -F\ ([^ ]+) && "${BASH_REMATCH[1]}" != _kedge_cargo ]]; then
    _kedge_cargo_before="${BASH_REMATCH[1]}"
fi
_kedge_cargo() {
    if [[ "${COMP_WORDS[1]}" == xtask && $COMP_CWORD -ge 2 ]]; then
        local COMP_WORDS=("${COMP_WORDS[@]:1}") COMP_CWORD=$((COMP_CWORD - 1))
        _xtask xtask "$2" "$3"
    elif [[ -n "${_kedge_cargo_before-}" ]]; then
        "$_kedge_cargo_before" "$@"
    elif [[ $COMP_CWORD -eq 1 && xtask == "$2"* ]]; then
        COMPREPLY=(xtask)
    fi
}
complete -F _kedge_cargo -o bashdefault -o default cargo
"#;

const ZSH: &str = r#"
# `cargo xtask`, beside what completes cargo already.
if [[ -n "${_comps[cargo]-}" && "${_comps[cargo]}" != _kedge_cargo ]]; then
    _kedge_cargo_before="${_comps[cargo]}"
fi
_kedge_cargo() {
    if [[ "${words[2]}" == xtask ]] && (( CURRENT > 2 )); then
        shift words
        (( CURRENT-- ))
        _xtask "$@"
    elif [[ -n "${_kedge_cargo_before-}" ]]; then
        "$_kedge_cargo_before" "$@"
    elif (( CURRENT == 2 )); then
        compadd xtask
    fi
}
compdef _kedge_cargo cargo
"#;

const FISH: &str = r#"
# `cargo xtask`, beside what completes cargo already.
function __kedge_cargo
    set -l words (commandline --tokenize --current-process --cut-at-cursor)
    set -l line xtask (string escape -- $words[3..]) (commandline --current-token --cut-at-cursor)
    complete --do-complete (string join ' ' -- $line)
end
complete --command cargo --condition '__fish_seen_subcommand_from xtask' --arguments '(__kedge_cargo)'
complete --command cargo --condition __fish_use_subcommand --arguments xtask --description KEdge
"#;

/// Flags of `completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: For,
}

/// The shells for which there is a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum For {
    /// source <(cargo xtask completions bash)
    Bash,
    /// source <(cargo xtask completions zsh), after compinit
    Zsh,
    /// cargo xtask completions fish | source
    Fish,
}

/// Prints the script.
///
/// # Errors
/// When it cannot be printed.
pub fn run(args: &Args) -> Result<()> {
    io::stdout().write_all(script(args.shell).as_bytes()).context("failed to print the script")
}

fn script(shell: For) -> String {
    let (shell, bridge) = match shell {
        For::Bash => (Shell::Bash, BASH),
        For::Zsh => (Shell::Zsh, ZSH),
        For::Fish => (Shell::Fish, FISH),
    };
    // clap takes the name of subcommands from this one.
    let mut command = Cli::command().name(NAME).bin_name(NAME);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, NAME, &mut script);
    script.extend_from_slice(bridge.as_bytes());
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_completes_cargo_as_well() {
        assert!(script(For::Bash).contains("complete -F _kedge_cargo"));
        assert!(script(For::Zsh).contains("compdef _kedge_cargo cargo"));
        assert!(script(For::Fish).contains("complete --command cargo"));
        for shell in [For::Bash, For::Zsh, For::Fish] {
            assert!(script(shell).contains("undeploy"));
        }
    }
}
