//! Engines that are not what they should be: a stand-in answers at Docker's socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;

use crate::support::{Machine, refusal};

/// Answers every request with the same bytes, and closes the connection.
fn stand_in(machine: &Machine, answer: &'static str) -> String {
    let path = machine.path("docker.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // Ends with the test's process.
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let request = BufReader::new(connection.try_clone().unwrap());
            let _head = request.lines().map_while(Result::ok).take_while(|line| !line.is_empty()).count();
            // Whoever does not wait for the answer has closed the connection.
            let _written = connection.write_all(answer.as_bytes());
        }
    });
    format!("unix://{}", path.display())
}

fn told(answer: &'static str) -> String {
    let machine = Machine::bare();
    machine.program("docker");
    let socket = stand_in(&machine, answer);
    let mut command = machine.xtask(&["up", "--yes", "--engine", "docker"]);
    let told = refusal(command.env("DOCKER_HOST", socket), 4);
    assert!(!machine.has_state(), "{told}");
    told
}

#[test]
fn an_engine_that_is_too_old_is_told_with_what_is_needed() {
    let told = told(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 64\r\n\r\n\
         {\"Version\":\"1.12.6\",\"ApiVersion\":\"1.24\",\"MinAPIVersion\":\"1.12\" }",
    );
    assert!(told.contains("1.12.6") && told.contains("1.24") && told.contains("1.41 is needed"), "{told}");
}

#[test]
fn an_engine_that_is_really_podman_is_told() {
    let told = told(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 97\r\n\r\n\
         {\"Version\":\"4.3.1\",\"ApiVersion\":\"1.41\",\"Components\":[{\"Name\":\"Podman Engine\",\"Version\":\"4.3.1\"}]}",
    );
    assert!(told.contains("belongs to Podman") && told.contains("--engine podman"), "{told}");
}

#[test]
fn an_engine_that_fails_is_told() {
    let told = told(
        "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: 27\r\n\r\n{\"message\":\"out of orbits\"}",
    );
    assert!(told.contains("500") && told.contains("out of orbits"), "{told}");
}

#[test]
fn an_engine_that_hangs_up_or_speaks_something_else_is_told() {
    for answer in ["", "220 mail.example ESMTP\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"] {
        let told = told(answer);
        assert!(told.contains("no working engine at `unix://"), "{answer}: {told}");
    }
}

#[test]
fn a_docker_without_its_command_line_is_told_what_to_install() {
    let machine = Machine::bare();
    let socket = stand_in(
        &machine,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 64\r\n\r\n\
         {\"Version\":\"27.5.1\",\"ApiVersion\":\"1.47\",\"MinAPIVersion\":\"1.24\" }",
    );
    let mut command = machine.xtask(&["up", "--yes", "--engine", "docker"]);
    let told = refusal(command.env("DOCKER_HOST", socket), 4);
    assert!(
        told.contains("can run a kind cluster") && told.contains("install Debian's package `docker-cli`"),
        "{told}"
    );
    assert!(!told.contains("privilege"), "{told}");
    assert!(!machine.has_state(), "{told}");
}

#[test]
fn what_belongs_to_an_engine_that_does_not_answer_is_kept() {
    for command in [&["down"][..], &["cluster", "down"]] {
        let machine = Machine::bare();
        machine.write(".local/state/kedge/kedge/kubeconfig", "");
        let socket = format!("unix://{}", machine.write("docker.sock", ""));
        let told = refusal(machine.xtask(command).env("DOCKER_HOST", socket), 1);
        assert!(told.contains("docker does not answer"), "{told}");
        assert!(machine.path(".local/state/kedge/kedge/kubeconfig").exists(), "{command:?}");
    }
}

#[test]
fn a_socket_that_is_none_is_told() {
    let machine = Machine::bare();
    machine.program("docker");
    let file = machine.write("file", "");
    for host in
        [format!("unix://{file}"), "unix:///no/such.sock".into(), "nonsense://x".into(), String::new()]
    {
        let mut command = machine.xtask(&["up", "--engine", "docker"]);
        let told = refusal(command.env("DOCKER_HOST", &host), 4);
        assert!(told.contains("docker:"), "{host}: {told}");
    }
}
