//! What is kept of a failed run before it is cleaned up: what the edge, the hub and the registry have written.

use anyhow::Result;

use crate::context::Context;
use crate::edge;

/// How many lines of each log are kept.
const LINES: u16 = 2000;

/// Writes the logs of all parts that are there into the run's folder. A part that cannot be asked is told and
/// left out: the failure itself matters more.
pub async fn keep(context: &Context) {
    let containers =
        [("hub", context.settings.hub_container()), ("registry", context.settings.registry_container())];
    for (part, container) in containers {
        if let Ok(Some(_)) = context.engine.container(&container).await {
            write(context, part, context.engine.container_log(&container, usize::from(LINES)).await);
        }
    }
    let container = context.engine.container(&context.settings.edge_container()).await;
    if matches!(container, Ok(Some(_))) || context.paths.kubeconfig().exists() {
        let log = async { edge::log(context, edge::place(context).await?, LINES).await };
        write(context, "edge", log.await);
    }
}

fn write(context: &Context, part: &str, log: Result<String>) {
    let path = context.run_folder.join(format!("{part}.container.log"));
    let kept = log.and_then(|text| Ok(fs_err::write(&path, context.redact(&text))?));
    match kept {
        Ok(()) => context.progress.say(&format!("kept: {}", path.display())),
        Err(error) => context.progress.say(&format!("the log of the {part} could not be kept: {error:#}")),
    }
}
