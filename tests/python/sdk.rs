//! Microsoft's SDK for Python, installed from where this machine has its packages from.

use std::path::{Path, PathBuf};

use tokio::process::Command;

/// A virtual environment with exactly the packages of `requirements.txt`, made once in `folder`.
pub(crate) async fn environment(folder: &Path) -> PathBuf {
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/requirements.txt");
    let wanted = fs_err::read_to_string(&requirements).unwrap();
    let environment = folder.join("python-sdk");
    let complete = environment.join("complete");
    if fs_err::read_to_string(&complete).is_ok_and(|kept| kept == wanted) {
        return environment;
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment)).await;
    let pip = environment.join("bin/pip");
    let install = ["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"];
    run(Command::new(&pip).args(install).arg(&requirements)).await;
    // Without `--no-deps` an unpinned package could slip in; with it, one could be missing.
    run(Command::new(&pip).arg("check")).await;
    fs_err::write(&complete, wanted).unwrap();
    environment
}

async fn run(command: &mut Command) {
    let output = command.output().await.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&text));
}
