//! `report.html`: the report as a page of one file, without scripts, that asks for nothing from anywhere.

use std::fmt::Write as _;

use serde_json::Value;

use super::plot::temperature;
use super::text::escape;
use super::timeline::timeline;
use super::{Report, headline};

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub(super) fn render(report: &Report) -> String {
    let title = format!("KEdge {}: {}", report.command, headline(report));
    let sections = [
        verdict(report),
        section("Layers", &layers(report)),
        section("Timeline", &timeline(report)),
        section("Temperature received", &temperature(&report.messages)),
        section("Steps", &steps(report)),
        section("Environment", &environment(report)),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{}</main>\n</body>\n</html>\n",
        escape(&title),
        sections.concat()
    )
}

fn section(title: &str, body: &str) -> String {
    if body.is_empty() { String::new() } else { format!("<section>\n<h2>{title}</h2>\n{body}</section>\n") }
}

fn verdict(report: &Report) -> String {
    let class = report.result.replace(' ', "-");
    let mut html = format!(
        "<header class=\"{class}\">\n<p class=\"kicker\">cargo xtask {} · {} · {:.1} s</p>\n<h1>{}</h1>\n",
        escape(&report.command),
        report.started.strftime("%Y-%m-%d %H:%M:%S UTC"),
        report.seconds,
        escape(&headline(report))
    );
    if let Some(verdict) = &report.verdict {
        html.push_str("<dl>\n");
        let layer = verdict.layer.as_ref().map(|layer| ("Layer", layer.clone()));
        let rest = [
            ("Cause", verdict.cause.clone()),
            ("Next", verdict.next.clone()),
            ("Exit code", verdict.exit_code.to_string()),
        ];
        for (name, value) in layer.into_iter().chain(rest) {
            let _ = writeln!(html, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
        }
        html.push_str("</dl>\n");
    }
    html + "</header>\n"
}

fn layers(report: &Report) -> String {
    let cell = |layer: &crate::verify::Layer| {
        let class = layer.result.replace(' ', "-");
        let detail = if layer.detail.is_empty() { "" } else { layer.detail.as_str() };
        format!(
            "<li class=\"{class}\"><b>{}</b><span class=\"state\">{}</span><span class=\"detail\">{}</span></li>\n",
            layer.name,
            layer.result,
            escape(detail)
        )
    };
    let cells: String = report.layers.iter().map(cell).collect();
    if cells.is_empty() { cells } else { format!("<ol class=\"layers\">\n{cells}</ol>\n") }
}

fn steps(report: &Report) -> String {
    let row = |step: &super::StepReport| {
        let class = match step.result {
            "done" if !step.changed => "unchanged",
            _ if step.was_stopped() => "stopped",
            result => result,
        };
        format!(
            "<tr class=\"{class}\"><td>{}</td><td>{}</td><td class=\"number\">{:.1} s</td><td>{}</td></tr>\n",
            escape(&step.id),
            class,
            step.seconds,
            escape(if step.note.is_empty() { &step.purpose } else { &step.note })
        )
    };
    let rows: String = report.steps.iter().map(row).collect();
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<div class=\"wide\"><table class=\"steps\">\n<thead><tr><th>step</th><th>result</th><th class=\"number\">time</th><th>what</th></tr>\
         </thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    )
}

fn environment(report: &Report) -> String {
    let environment = serde_json::to_value(&report.environment).unwrap_or_default();
    format!("<div class=\"wide\"><table class=\"facts\">\n{}</table></div>\n", facts("", &environment))
}

/// A row for each value; what has values of its own comes apart.
fn facts(of: &str, value: &Value) -> String {
    let text = match value {
        Value::Object(fields) => {
            let rows =
                fields.iter().map(|(name, value)| facts(format!("{of} {}", words(name)).trim(), value));
            return rows.collect();
        }
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let texts =
                items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
            texts.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    };
    format!("<tr><th>{}</th><td>{}</td></tr>\n", escape(of), escape(&text))
}

/// `nodeImage` as a person writes it.
fn words(name: &str) -> String {
    let word = |character: char| {
        if character.is_uppercase() {
            format!(" {}", character.to_lowercase())
        } else {
            character.to_string()
        }
    };
    name.chars().map(word).collect()
}
