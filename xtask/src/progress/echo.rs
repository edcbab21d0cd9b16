//! What the terminal itself writes while the live view is drawn. For Ctrl-C it shows `^C`, and the view, which does not know
//! of that, would leave a line of its own behind.

use std::io::stderr;
use std::sync::OnceLock;

use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// How the terminal was before.
static BEFORE: OnceLock<Termios> = OnceLock::new();

/// Lets the terminal show nothing for a control key from now on.
pub(super) fn quiet() {
    let Ok(mut modes) = tcgetattr(stderr()) else { return };
    if modes.local_modes.contains(LocalModes::ECHOCTL) && BEFORE.set(modes.clone()).is_ok() {
        modes.local_modes.remove(LocalModes::ECHOCTL);
        set(&modes);
    }
}

/// Leaves the terminal as it was.
pub(super) fn restore() {
    if let Some(before) = BEFORE.get() {
        set(before);
    }
}

fn set(modes: &Termios) {
    // Whoever changes a terminal from the background is stopped.
    if tcgetpgrp(stderr()).is_ok_and(|foreground| foreground == getpgrp()) {
        // A terminal that does not take it shows one line too much, and that is all.
        let _ = tcsetattr(stderr(), OptionalActions::Now, modes);
    }
}
