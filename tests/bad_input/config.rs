//! Mistakes in the runtime's configuration.

use crate::support::{Case, Machine, report};

/// Name, text, what stands on the line, what is told.
const CASES: [(&str, &str, &str, &str); 10] = [
    (
        "a credential",
        "\n[provisioning]\nconnection_string = \"s3cret-hunter2\"\n",
        "[prov",
        "is made by KEdge",
    ),
    ("another host name", "hostname = \"other\"\n", "hostname", "the pod is called \"kedge-edge\""),
    ("a host name that is a number", "hostname = 7\n", "hostname", "a text is needed"),
    ("an unknown table", "[moby]\nuri = \"s3cret-hunter2\"\n", "[moby]", "did you mean `moby_runtime`?"),
    ("a table that is a text", "agent = \"s3cret-hunter2\"\n", "agent", "a table is needed"),
    ("another agent", "[agent]\nname = \"agent\"\n", "name", "only \"edgeAgent\" is supported"),
    ("a parent", "parent_hostname = \"parent\"\n", "parent", "not supported by the simulated runtime"),
    (
        "a file that the Secret will lack",
        "[edge_ca]\n[preloaded_keys]\nmine = \"file:///var/secrets/kedge/mine.pem\"\n",
        "mine",
        "the Secret will have no file \"mine.pem\"",
    ),
    ("a text that is not closed", "hostname = \"s3cret-hunter2\n", "hostname", "not TOML"),
    ("a table that stands twice", "[agent]\n[connect]\n[agent] # again\n", "again", "not TOML"),
];

#[test]
fn each_mistake_is_told_with_its_line_and_nothing_is_made() {
    report(CASES.iter().filter_map(|&(name, text, at, told)| {
        let machine = Machine::bare();
        let config = machine.write("files/config.toml", text);
        let profile = machine.write("kedge.toml", format!("[device]\nconfig = \"{config}\"\n"));
        let case = Case { name, text: text.to_owned(), at, told };
        case.failure(&machine, &config, &["up", "--profile", &profile])
    }));
}
