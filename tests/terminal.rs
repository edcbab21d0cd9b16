//! What is on the screen while steps run: on a wide terminal and a narrow one, without colour, on one that cannot draw, and
//! where there is no terminal. The steps are played by this program itself; `script` gives it a terminal.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::num::NonZeroU16;
use std::time::Duration;

use assert_cmd::Command;
use vt100::{Color, Parser};
use xtask::progress::{Mark, Progress, leave_terminal};

/// Names the scene to be played.
const SCENE: &str = "KEDGE_SCENE";
const ROWS: u16 = 100;
const MANY: usize = 80;
/// Longer than a picture of the view is shown.
const MOMENT: Duration = Duration::from_millis(700);
const EVIL: &str = "\u{1b}[2J\u{1b}]0;title\u{7}layer 3/7 of sha256:52a12eab2e7d \u{1b}[31m日本語\r\n";

/// Plays steps that run side by side. In the scene `running` it ends in the midst of them, as on a photograph.
#[test]
#[ignore = "is played on the terminals of the other tests"]
fn play() {
    let Some(scene) = std::env::var_os(SCENE) else { return };
    let progress = Progress::default();
    if scene == "many" {
        return play_many(&progress);
    }
    progress.expect(18, 6);
    progress.begin("hub", "start the local IoT Hub");
    progress.begin("cluster", "create the kind cluster");
    progress.begin("push-edge", "push the edge image");
    progress.detail("push-edge", EVIL);
    progress.say("a sentence that is too long for a narrow terminal and is broken between words");
    progress.end("hub", Mark::Done, Duration::from_millis(1234), "started as hub.kedge.test");
    progress.telemetry(vec![21.0, 21.5, 22.0, 23.5]);
    std::thread::sleep(MOMENT);
    if scene == "running" {
        std::process::exit(0);
    }
    progress.end("push-edge", Mark::Failed, Duration::from_secs(5), "");
    progress.end("cluster", Mark::Stopped, Duration::from_secs(72), EVIL);
    progress.say("the end");
    if scene == "stopped" {
        progress.begin("down", "remove everything that was made");
        std::thread::sleep(MOMENT);
        leave_terminal();
        std::process::exit(0);
    }
}

/// Steps that begin and end in quick succession, three at a time, while the view is drawn again and again.
fn play_many(progress: &Progress) {
    let name = |number: usize| format!("step-{number}");
    progress.expect(MANY, 0);
    for number in 0..MANY + 2 {
        if number < MANY {
            progress.begin(&name(number), "be one of many");
        }
        std::thread::sleep(Duration::from_millis(7 * (number as u64 % 5)));
        if let Some(ended) = number.checked_sub(2) {
            progress.end(&name(ended), Mark::Done, MOMENT, "");
        }
    }
}

/// What a scene writes on a terminal of so many columns.
fn on_terminal(scene: &str, columns: u16, variables: &[(&str, &str)]) -> Vec<u8> {
    let program = std::env::current_exe().unwrap();
    let play = format!(
        "stty cols {columns} rows {ROWS}; exec '{}' --exact play --ignored --nocapture >/dev/null",
        program.display()
    );
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &play, "/dev/null"]);
    script.env("TERM", "xterm-256color").env_remove("NO_COLOR").env(SCENE, scene);
    script.envs(variables.iter().copied()).timeout(Duration::from_secs(60));
    script.assert().success().get_output().stdout.clone()
}

/// What stands on the screen then, each row without what is blank at its end.
fn screen(bytes: &[u8], columns: u16) -> (Parser, Vec<String>) {
    let size = |count: u16| NonZeroU16::new(count).unwrap();
    let mut terminal = Parser::new(size(ROWS), size(columns), 0);
    terminal.process(bytes);
    let rows: Vec<_> = terminal.screen().rows(0, columns).map(|row| row.trim_end().to_owned()).collect();
    let last = rows.iter().rposition(|row| !row.is_empty()).map_or(0, |at| at + 1);
    (terminal, rows[..last].to_vec())
}

/// The row without the picture of its motion, which may be any, and as if no second had passed on a slow machine.
fn still(row: &str) -> String {
    let row: String = row.chars().filter(|character| !is_motion(*character)).collect();
    (1..10).fold(row, |row, seconds| row.replace(&format!(" {seconds}s"), " 0s"))
}

fn is_motion(character: char) -> bool {
    ('\u{2800}'..='\u{28ff}').contains(&character)
}

#[test]
fn on_a_wide_terminal_every_running_step_has_a_row_with_its_last_line() {
    let (_, rows) = screen(&on_terminal("running", 100, &[]), 100);
    let rows: Vec<_> = rows.iter().map(|row| still(row)).collect();
    assert_eq!(
        rows[0], "a sentence that is too long for a narrow terminal and is broken between words",
        "{rows:#?}"
    );
    assert!(rows[1].ends_with("s hub            done in 1.2 s  started as hub.kedge.test"), "{rows:#?}");
    assert_eq!(rows[2], "   cluster            0s  create the kind cluster", "{rows:#?}");
    assert_eq!(
        rows[3], "   push-edge          0s  push the edge image: layer 3/7 of sha256:52a12eab2e7d 日本語",
        "{rows:#?}"
    );
    assert_eq!(rows[4], "    temperature            ▁▂▄█ 23.5 °C, 4 at the hub", "{rows:#?}");
    assert_eq!(rows[5], "  ━━━━━━━━━───────────────  7/18 steps, 0s", "{rows:#?}");
    assert_eq!(rows.len(), 6, "{rows:#?}");
}

#[test]
fn on_a_narrow_terminal_every_row_holds_what_matters_and_none_wraps() {
    let (_, rows) = screen(&on_terminal("running", 40, &[]), 40);
    let rows: Vec<_> = rows.iter().map(|row| still(row)).collect();
    let expected = [
        "a sentence that is too long for a narrow",
        "terminal and is broken between words",
        "hub done in 0s  started as hub.kedge.t…",
        " cluster 0s create the kind cluster",
        " push-edge 0s layer 3/7 of sha256:52a…",
        "▁▂▄█ 23.5 °C",
        "7/18 steps, 0s",
    ];
    assert_eq!(rows, expected, "{rows:#?}");
}

#[test]
fn no_line_is_lost_or_left_when_many_steps_begin_and_end() {
    let (_, rows) = screen(&on_terminal("many", 40, &[]), 40);
    let expected: Vec<_> = (0..MANY).map(|number| format!("step-{number} done in 0s")).collect();
    assert_eq!(rows, expected);
}

#[test]
fn what_is_left_on_a_terminal_are_lines_that_tell_how_each_step_ended() {
    let (terminal, rows) = screen(&on_terminal("ended", 100, &[]), 100);
    let colour_of = |word: &str| {
        let row =
            rows.iter().position(|row| row.contains(word)).unwrap_or_else(|| panic!("{word}: {rows:#?}"));
        let column = rows[row].find(word).unwrap();
        let cell = |row: usize, column: usize| {
            terminal
                .screen()
                .cell(u16::try_from(row).unwrap(), u16::try_from(column).unwrap())
                .unwrap()
                .fgcolor()
        };
        (cell(row, column), cell(row, column - 2))
    };
    // The mark has a colour, the name before it none.
    assert_eq!(colour_of("done in"), (Color::Idx(2), Color::Default));
    assert_eq!(colour_of("FAILED in"), (Color::Idx(1), Color::Default));
    assert_eq!(colour_of("stopped in"), (Color::Idx(3), Color::Default));
    assert!(!rows.iter().any(|row| row.contains(is_motion)), "a row looks as if it went on: {rows:#?}");
    assert!(
        rows.iter().any(|row| row.trim() == "temperature            ▁▂▄█ 23.5 °C, 4 at the hub"),
        "{rows:#?}"
    );
    assert_eq!(rows.last().unwrap(), "the end", "{rows:#?}");
    assert!(!terminal.screen().hide_cursor(), "the cursor stays hidden");
}

#[test]
fn a_program_that_ends_at_once_leaves_nothing_that_looks_as_if_it_went_on() {
    let (_, rows) = screen(&on_terminal("stopped", 100, &[]), 100);
    assert_eq!(rows.last().unwrap(), "the end", "{rows:#?}");
}

#[test]
fn no_color_leaves_the_view_without_colour() {
    for (value, coloured) in [("1", false), ("", true)] {
        let bytes = on_terminal("ended", 100, &[("NO_COLOR", value)]);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.contains("\u{1b}[32m") || text.contains("\u{1b}[31m"), coloured, "{text:?}");
        // It is drawn all the same.
        assert!(text.contains("\u{1b}["), "{text:?}");
    }
}

/// Plain lines: nothing acts on a terminal, and nothing is cut off.
fn are_plain(bytes: &[u8]) {
    let text = String::from_utf8(bytes.to_vec()).unwrap().replace("\r\n", "\n");
    let is_plain = |character: char| character == '\n' || !character.is_control();
    assert!(text.chars().all(is_plain), "{text:?}");
    let lines: Vec<_> = text.lines().collect();
    let ends = [
        "s hub            start the local IoT Hub",
        "s cluster        create the kind cluster",
        "s push-edge      push the edge image",
        "a sentence that is too long for a narrow terminal and is broken between words",
        "s hub            done in 1.2 s  started as hub.kedge.test",
        "s push-edge      FAILED in 5.0 s",
        "s cluster        stopped in 72.0 s  layer 3/7 of sha256:52a12eab2e7d 日本語",
        "the end",
    ];
    assert_eq!(lines.len(), ends.len(), "{text}");
    assert!(lines.iter().zip(ends).all(|(line, end)| line.ends_with(end)), "{text}");
}

#[test]
fn a_terminal_that_cannot_draw_gets_plain_lines() {
    are_plain(&on_terminal("ended", 40, &[("TERM", "dumb")]));
    are_plain(&on_terminal("ended", 40, &[("TERM", "")]));
}

#[test]
fn a_file_gets_plain_lines_whatever_the_environment_says() {
    let mut play = Command::new(std::env::current_exe().unwrap());
    play.args(["--exact", "play", "--ignored", "--nocapture"]).env(SCENE, "ended");
    play.env("TERM", "xterm-256color").env("CLICOLOR_FORCE", "1").env("FORCE_COLOR", "1");
    are_plain(&play.assert().success().get_output().stderr);
}
