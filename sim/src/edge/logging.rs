//! Log lines in the form of the real daemons: `<6>2026-01-02T03:04:05Z [INFO] - Starting …`.
//!
//! The number in front is the syslog priority, which the journal takes off; a terminal does not get it.

use std::fmt;
use std::io::IsTerminal;

use jiff::Timestamp;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// Names the level, with the syntax of `tracing-subscriber`; as the real daemons' `AZIOT_LOG`.
const LEVEL_VARIABLE: &str = "AZIOT_LOG";

/// Sends this process's log to stderr.
pub fn init() {
    let filter = EnvFilter::try_from_env(LEVEL_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let format = DaemonFormat { with_priority: !std::io::stderr().is_terminal() };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .event_format(format)
        .init();
}

struct DaemonFormat {
    with_priority: bool,
}

impl<S, N> FormatEvent<S, N> for DaemonFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (priority, level) = match *event.metadata().level() {
            Level::ERROR => (3, "ERR!"),
            Level::WARN => (4, "WARN"),
            Level::INFO => (6, "INFO"),
            Level::DEBUG => (7, "DBUG"),
            Level::TRACE => (7, "TRCE"),
        };
        if self.with_priority {
            write!(line, "<{priority}>")?;
        }
        write!(line, "{} [{level}] - ", Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ"))?;
        context.field_format().format_fields(line.by_ref(), event)?;
        writeln!(line)
    }
}
