//! The edge, from within: its console, its journal, and the inner engine with all that runs there.

use anyhow::{Context as _, Result};
use futures_util::future::join_all;

use super::LINES;
use super::folder::Folder;
use super::machine::said;
use super::objects::without_environment;
use crate::context::Context;
use crate::edge;
use crate::place::Place;
use crate::tier::proof::SCRIPT;

/// More modules than anybody has here; the others would take the time of the rest.
const MOST_MODULES: usize = 30;

pub(super) async fn keep(folder: &Folder<'_>, context: &Context) {
    let Some(place) = folder.ask("edge", edge::place(context)).await else { return };
    if !is_there(context, place).await {
        return folder.miss("edge", "there is no edge");
    }
    let command = async |command: &[&str]| said(edge::run(context, place, command).await?);
    let lines = format!("--lines={LINES}");
    let journal = ["journalctl", "--no-pager", "--output=short-iso-precise", &lines];
    let units = ["systemctl", "list-units", "--all", "--no-pager", "--plain", "--no-legend"];
    let all = ["docker", "ps", "--all", "--no-trunc"];
    tokio::join!(
        folder.keep("edge/console.log", edge::log(context, place, LINES)),
        folder.keep("edge/journal.log", command(&journal)),
        folder.keep("edge/units.txt", command(&units)),
        folder.keep("edge/processes.txt", command(&["ps", "-e", "-o", "pid,ppid,etimes,rss,stat,args"])),
        folder.keep("edge/security.txt", command(&["sh", "-c", SCRIPT])),
        folder.keep("edge/disks.txt", command(&["df", "-k"])),
        folder.keep("edge/docker-info.txt", command(&["docker", "info"])),
        folder.keep("edge/docker-ps.txt", command(&all)),
        keep_modules(folder, context, place),
    );
}

async fn is_there(context: &Context, place: Place) -> bool {
    match place {
        Place::Host => true,
        Place::Cluster => context.paths.kubeconfig().exists(),
    }
}

/// The containers of the inner engine, how they are made and what they have written.
async fn keep_modules(folder: &Folder<'_>, context: &Context, place: Place) {
    let list = async {
        said(edge::run(context, place, &["docker", "ps", "--all", "--format", "{{.Names}}"]).await?)
    };
    let Some(names) = folder.keep("edge/modules.txt", list).await else { return };
    let names: Vec<_> =
        names.lines().map(str::trim).filter(|name| !name.is_empty()).take(MOST_MODULES).collect();
    if names.is_empty() {
        return folder.miss("edge/docker-inspect.json", "the inner engine has no container");
    }
    let inspected = folder.keep("edge/docker-inspect.json", async {
        let output = edge::run(context, place, &[&["docker", "inspect"], &names[..]].concat()).await?;
        inspected(&said(output)?)
    });
    let logs = names.iter().map(|name| async move {
        let tail = LINES.to_string();
        let command = ["docker", "logs", "--timestamps", "--tail", &tail, name];
        let log = async {
            let output = edge::run(context, place, &command).await?;
            Ok(output.stdout + "\n" + &output.stderr + "\n")
        };
        folder.keep(&format!("edge/modules/{name}.log"), log).await;
    });
    tokio::join!(inspected, join_all(logs));
}

/// What the engine tells of containers, without the values of their variables.
fn inspected(text: &str) -> Result<String> {
    let mut all =
        serde_json::from_str(text).context("the inner engine does not tell of its containers in JSON")?;
    without_environment(&mut all);
    Ok(format!("{all:#}\n"))
}
