//! The page of a run in a real browser, as people open it: wide and narrow, light and dark, whatever has come of the run.
//! `cargo xtask test` runs this, with Chromium; `cargo test` leaves it out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod browser;
mod pages;

use std::path::PathBuf;

use serde_json::Value;

use crate::browser::{Browser, Visit};
use crate::pages::{Page, all};

/// What is looked at on every page.
const LOOK: &str = include_str!("look.js");
/// A phone, and the window of a laptop.
const WIDTHS: [u32; 2] = [400, 1280];
/// As readable as the guidelines for accessibility (WCAG, AA) want small text.
const CONTRAST: f64 = 4.5;

#[test]
#[ignore = "needs Chromium"]
fn every_page_can_be_read_on_every_screen() {
    let folder = tempfile::tempdir().unwrap();
    let pictures = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("report");
    fs_err::create_dir_all(&pictures).unwrap();
    let mut browser = Browser::start();
    for page in all() {
        let file = page.write(folder.path());
        for width in WIDTHS {
            for scheme in ["light", "dark"] {
                let name = format!("{}-{width}-{scheme}", page.name);
                let mut visit = browser.visit(&file, width, scheme, LOOK);
                let contrast = visit.seen["contrast"].take();
                let dim = contrast.as_array().unwrap().iter().find(|it| it[1].as_f64().unwrap() < CONTRAST);
                assert!(dim.is_none(), "hard to read on {name}: {dim:?}");
                let picture = pictures.join(format!("{name}.png"));
                fs_err::write(&picture, &visit.picture).unwrap();
                let told = format!("{name}, to be seen in {}: {:#}", picture.display(), visit.seen);
                judge(&page, &visit, &told);
            }
        }
    }
}

fn judge(page: &Page, visit: &Visit, told: &str) {
    let seen = &visit.seen;
    assert!(visit.complaints.is_empty(), "{:#?} of {told}", visit.complaints);
    assert_eq!(visit.requests.len(), 1, "it asks for more than itself: {:?}, {told}", visit.requests);
    assert_eq!(seen["overflow"], 0, "the page is wider than the screen: {told}");
    assert_eq!(seen["cut"], Value::Array(vec![]), "text is cut off: {told}");
    assert_eq!(seen["scripts"], 0, "a text has become a script: {told}");
    // The verdict is what is seen first.
    assert_eq!(seen["first"], "HEADER", "{told}");
    assert!(seen["headline"].as_str().unwrap().starts_with(page.headline), "{told}");
    assert_eq!(texts(&seen["verdict"]), page.verdict, "{told}");
    // The row of layers, each with its state.
    assert_eq!(texts(&seen["layers"]), page.layers, "{told}");
    // A bar for each step that has begun, and those of the critical path marked.
    assert_eq!(seen["bars"], page.bars, "{told}");
    assert_eq!(texts(&seen["critical"]), page.critical, "{told}");
    assert_eq!(seen["legend"], !page.critical.is_empty(), "{told}");
    // A point for each temperature, inside of the plot.
    assert_eq!(seen["points"], page.points, "{told}");
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}
