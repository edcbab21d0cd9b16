//! Where the packages of the runtime come from.

use crate::packages;
use crate::paths::{self, Paths};
use crate::problems::Problem;
use crate::settings::{Runtime, RuntimeSettings};

/// Tells what is wrong.
pub(super) fn check(paths: &Paths, runtime: &RuntimeSettings) -> Vec<Problem> {
    let problem = |file: String, text: String| Problem { file, at: None, text };
    if runtime.kind == Runtime::Simulated {
        let wrong = runtime.engine != "docker.io";
        let text = "the simulated runtime comes with \"docker.io\"; use that, or runtime.use = \"azure\"";
        let file = format!("runtime.engine = \"{}\"", runtime.engine);
        return wrong.then(|| problem(file, text.into())).into_iter().collect();
    }
    if let Some(folder) = packages::folder(&paths.project, runtime) {
        let shown = paths::shown(&folder, &paths.project);
        let problems = packages::problems(&folder, runtime).into_iter();
        return problems.map(|text| problem(shown.clone(), text)).collect();
    }
    let key = paths.project.join(&runtime.repository_key);
    let is_missing = !runtime.repository_key.is_empty() && !key.is_file();
    let text = "there is no such file, which is to hold the key of runtime.repository";
    is_missing.then(|| problem(paths::shown(&key, &paths.project), text.into())).into_iter().collect()
}
