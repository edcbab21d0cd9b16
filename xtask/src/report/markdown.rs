//! The summary of a run in Markdown, as GitHub Actions shows it.

use std::fmt::Write as _;

use super::{Report, headline};

/// The report in a few lines and two tables.
pub(super) fn render(report: &Report, folder: &str) -> String {
    let mut text = format!("### KEdge `{}`: {}\n\n", report.command, plain(&headline(report)));
    if let Some(verdict) = &report.verdict {
        if let Some(layer) = &verdict.layer {
            let _ = writeln!(text, "**Broken layer:** {}  ", plain(layer));
        }
        let _ = writeln!(text, "**Cause:** {}  ", plain(&verdict.cause));
        let _ = writeln!(text, "**Next:** {}  ", plain(&verdict.next));
        let _ = writeln!(text, "**Exit code:** {}\n", verdict.exit_code);
    }
    if !report.layers.is_empty() {
        text.push_str("| layer | state | detail |\n|---|---|---|\n");
        for layer in &report.layers {
            let _ = writeln!(text, "| {} | {} | {} |", layer.name, layer.result, plain(&layer.detail));
        }
        text.push('\n');
    }
    if !report.critical_path.steps.is_empty() {
        text.push_str("| critical path | seconds |\n|---|---:|\n");
        for id in &report.critical_path.steps {
            let step = report.steps.iter().find(|step| step.id == *id);
            let _ = writeln!(text, "| {} | {:.1} |", plain(id), step.map_or(0.0, |step| step.seconds));
        }
        text.push('\n');
    }
    let _ = writeln!(text, "Whole report: `{folder}`\n");
    text
}

/// Text that is no markup, in one line, for a cell of a table.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => plain.push(' '),
            '<' => plain.push_str("&lt;"),
            '>' => plain.push_str("&gt;"),
            '|' | '*' | '_' | '[' | ']' | '\\' | '!' | '#' => {
                plain.push('\\');
                plain.push(character);
            }
            control if control.is_control() => {}
            other => plain.push(other),
        }
    }
    plain
}
