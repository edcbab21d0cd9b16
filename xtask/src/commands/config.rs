//! `cargo xtask config`: every setting, its value, and where that comes from.

use anyhow::Result;
use serde::Serialize;

use crate::session::Setup;
use crate::settings::fields::{FIELDS, IMAGES, Value};

/// Flags of `config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One setting.
#[derive(Debug, Serialize)]
struct Row {
    setting: String,
    value: Value,
    /// `default`, `FILE:LINE` or the flag.
    origin: String,
}

/// Prints every setting.
///
/// # Errors
/// Never but for JSON that cannot be written.
pub fn run(setup: &Setup, args: &Args) -> Result<()> {
    let row = |setting: String, value| {
        let origin = setup.origins.of(&setting).to_string();
        Row { setting, value, origin }
    };
    let fields = FIELDS.iter().map(|field| row(field.name.to_owned(), field.get(&setup.settings)));
    let images = setup.settings.images.iter();
    let images =
        images.map(|(name, reference)| row(format!("{IMAGES}.{name}"), Value::Text(reference.clone())));
    let rows: Vec<_> = fields.chain(images).collect();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        print!("{}", table(&rows));
    }
    Ok(())
}

/// The rows in columns that are as wide as they have to be.
fn table(rows: &[Row]) -> String {
    let cells: Vec<_> = rows.iter().map(|row| (&row.setting, row.value.to_string(), &row.origin)).collect();
    let setting_width = cells.iter().map(|cell| cell.0.len()).max().unwrap_or_default();
    let value_width = cells.iter().map(|cell| cell.1.chars().count()).max().unwrap_or_default();
    cells
        .iter()
        .map(|(setting, value, origin)| format!("{setting:setting_width$}  {value:value_width$}  {origin}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_stand_below_each_other() {
        let row = |setting: &str, value, origin: &str| Row {
            setting: setting.into(),
            value,
            origin: origin.into(),
        };
        let rows = [
            row("engine.use", Value::Text("auto".into()), "--engine"),
            row("registry.port", Value::Number(5001), "k.toml:9"),
        ];
        assert_eq!(table(&rows), "engine.use     \"auto\"  --engine\nregistry.port  5001    k.toml:9\n");
    }
}
