//! Why Microsoft's runtime does not get on, in one sentence, out of what its services have written. They answer 404 or a
//! general error for almost everything; the cause stands in the journal alone.

/// The journals in which causes stand, newest line last.
pub(super) const READ: &str = "journalctl --unit aziot-identityd --unit aziot-keyd --unit aziot-edged --lines 200 --output cat --no-pager";

/// What a line has to have in it, all of it, and what that means.
const CAUSES: [(&[&str], &str); 15] = [
    (
        &["Failed to provision with IoT Hub"],
        "the hub refuses the device: it is unknown there, disabled, or its credentials are wrong",
    ),
    (
        &["Could not reconcile Identities"],
        "the hub refuses the device's credentials, and the runtime tries once more",
    ),
    (
        &["HTTP request throttled"],
        "the hub throttles the device (429); the runtime waits a minute and longer, and serves nobody meanwhile",
    ),
    (&["HTTP error 502"], "the hub is out of service (502 or 503)"),
    (&["got 503"], "the hub is out of service (503)"),
    (&["invalid Content-Type; expected JSON"], "something else than an IoT Hub answers, a proxy perhaps"),
    (
        &["$edgeAgent", "ModuleNotFound"],
        "the hub has no $edgeAgent for the device: it was not registered as an edge device",
    ),
    (&["module identity not found"], "the hub's answer has no generation of $edgeAgent"),
    (
        &["client error (Connect)"],
        "the hub cannot be reached, or its certificate is from an authority that the image does not trust: the runtime does \
         not tell these apart",
    ),
    (
        &["Network not available for Identity reconciliation"],
        "the hub cannot be reached or answers 500; the runtime goes on with what it knew",
    ),
    (&["AZIOT_KEYS_RC_ERR_EXTERNAL"], "the key of the device cannot be read, or its file is empty"),
    (&["key file is empty"], "the file with the key of the device is empty"),
    (
        &["could not parse config file"],
        "the runtime's configuration is not what `iotedge config apply` takes",
    ),
    (
        &["Failed to load settings"],
        "the runtime's configuration cannot be used; it was never applied, perhaps",
    ),
    (&["Identity Service was unreachable"], "aziot-edged does not reach aziot-identityd"),
];

const CAUSED_BY: &str = "caused by: ";

/// How much of a line is told beside what it means.
const MOST_SHOWN: usize = 240;

/// The newest cause in the journal, with the words of whoever was the last to say something about it.
pub(super) fn reason(journal: &str) -> Option<String> {
    let cause = |line: &str| {
        let found = CAUSES.iter().find(|(marks, _)| marks.iter().all(|mark| line.contains(mark)));
        found.map(|(_, meaning)| *meaning)
    };
    let lines: Vec<_> = journal.lines().collect();
    let (at, meaning) = (0..lines.len()).rev().find_map(|at| Some((at, cause(lines[at])?)))?;
    // Deeper causes may follow on lines of their own.
    let deeper = lines[at + 1..].iter().take_while(|line| line.trim_start().starts_with(CAUSED_BY)).last();
    let words = message(deeper.unwrap_or(&lines[at]));
    let words: String = words.chars().take(MOST_SHOWN).collect();
    Some(if words.is_empty() { meaning.to_owned() } else { format!("{meaning}: {words}") })
}

/// The line without time and level, from the innermost cause on if it names one.
fn message(line: &str) -> &str {
    let line = line.split_once("] - ").map_or(line, |(_, message)| message).trim();
    line.rsplit_once(CAUSED_BY).map_or(line, |(_, cause)| cause.trim())
}

/// The newest line of an agent's or a gateway's own log that is an error or a warning.
pub(super) fn last_failure(log: &str) -> Option<String> {
    let failed = |line: &&str| ["[ERR]", "[WRN]", "[FTL]"].iter().any(|level| line.contains(level));
    let line = log.lines().rev().find(failed)?;
    let text = line.split_once("] - ").map_or(line, |(_, message)| message);
    Some(text.trim().chars().take(MOST_SHOWN).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_in_one_sentence() {
        let cases = [
            (
                "2026-11-20T10:00:00Z [ERR!] - Failed to provision with IoT Hub, and no valid device backup was found: Hub \
                 client error\ncaused by: ErrorCode:IotHubUnauthorizedAccess;Unauthorized",
                "the hub refuses the device",
            ),
            (
                "[INFO] - Provisioning starting. Reason: Startup\n[WARN] - Could not reconcile Identities with current device \
                 data. Reprovisioning.",
                "the hub refuses the device's credentials",
            ),
            (
                "[WARN] - Network not available for Identity reconciliation. Using offline backup from last run.",
                "the hub cannot be reached or answers 500",
            ),
            (
                "[WARN] - HTTP request throttled (attempt 1 of 5). Sleeping for 62 seconds.",
                "the hub throttles the device (429)",
            ),
            (
                "[WARN] - Error in watchdog: Failed to update $edgeAgent identity: Hub client error caused by: client error \
                 (Connect)",
                "the hub cannot be reached, or its certificate",
            ),
            (
                "[WARN] - Error in watchdog: Failed to update $edgeAgent identity: ErrorCode:ModuleNotFound;",
                "the hub has no $edgeAgent",
            ),
            ("[WARN] - Failed to update $edgeAgent identity: module identity not found", "no generation"),
            ("[ERR!] - HTTP error 502 Bad Gateway", "the hub is out of service"),
            ("[ERR!] - invalid Content-Type; expected JSON", "something else than an IoT Hub answers"),
            (
                "[ERR!] - could not load key: AZIOT_KEYS_RC_ERR_EXTERNAL",
                "the key of the device cannot be read",
            ),
            ("Failed to load settings: no such file", "the runtime's configuration cannot be used"),
            ("[WARN] - Identity Service was unreachable, retrying", "does not reach aziot-identityd"),
        ];
        for (journal, expected) in cases {
            let told = reason(journal).unwrap();
            assert!(told.starts_with(expected) || told.contains(expected), "{journal}: {told}");
            assert!(!told.contains('\n') && !told.contains("[WARN]"), "{told}");
        }
    }

    #[test]
    fn the_newest_cause_counts_and_its_own_words_are_told() {
        let journal = "[WARN] - HTTP request throttled (attempt 1 of 5). Sleeping for 62 seconds.\n\
                       [WARN] - Error in watchdog: Failed to update $edgeAgent identity: Hub client error caused by: client \
                       error (Connect)\n[INFO] - Edge runtime status is failed, starting module now...";
        assert!(reason(journal).unwrap().ends_with("apart: client error (Connect)"), "{:?}", reason(journal));
        let journal = "[ERR!] - Failed to provision with IoT Hub, and no valid device backup was found: Hub client error\n\
                       caused by: HTTP error\ncaused by: Unauthorized device\n[INFO] - more";
        assert!(reason(journal).unwrap().ends_with(": Unauthorized device"), "{:?}", reason(journal));
        assert_eq!(reason("[INFO] - Provisioning complete.\n"), None);
    }

    #[test]
    fn the_last_failure_of_the_agent_is_found_among_what_went_well() {
        let log = "<6> 2026-11-20 10:00:00.000 +00:00 [INF] - Starting module management agent.\n\
                   <4> 2026-11-20 10:00:01.000 +00:00 [WRN] - Edge agent cannot connect to IoT Hub: Amqp\n\
                   <6> 2026-11-20 10:00:02.000 +00:00 [INF] - Retrying\n";
        assert_eq!(last_failure(log).as_deref(), Some("Edge agent cannot connect to IoT Hub: Amqp"));
        assert_eq!(last_failure("<6> [INF] - fine"), None);
    }
}
