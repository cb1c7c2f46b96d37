//! The environment variable that forces a tier of kernels: each name in a process of its own, for
//! the choice is made once in the life of one.

// A helper of a test ends the test on the spot.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use terrane_vector::{IndexError, IndexParams, Kernels, Metric, Prepared, Tier, VectorIndex};

/// What the process that is asked must find: the tier, or that the name is refused.
const EXPECTED: &str = "TERRANE_KERNELS_EXPECTED";

/// The body of a process that is asked; nothing in the one that asks.
#[test]
fn the_one_that_is_asked() {
    let Ok(expected) = std::env::var(EXPECTED) else {
        return;
    };
    let index = VectorIndex::new(IndexParams::new(Metric::L2, 100, 1));
    let detected = Kernels::detect().tier();
    if expected == "refused" {
        let name = "TERRANE_KERNELS";
        assert!(matches!(index, Err(IndexError::Parameter { name: n, .. }) if n == name));
        let widest = Tier::ALL.into_iter().rev().find_map(Kernels::forced);
        assert_eq!(detected, widest.unwrap().tier());
    } else {
        assert_eq!(detected.to_string(), expected);
        assert!(index.is_ok());
        // What is above takes it from there.
        let query = Prepared::new(Metric::L2, &[1.0; 100]).unwrap();
        assert!(
            format!("{query:?}").to_lowercase().contains(&expected),
            "{query:?}"
        );
    }
    println!("as expected");
}

fn ask(name: Option<&str>, expected: &str) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "the_one_that_is_asked", "--nocapture"]);
    child.env_remove("TERRANE_KERNELS").env(EXPECTED, expected);
    if let Some(name) = name {
        child.env("TERRANE_KERNELS", name);
    }
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("as expected"),
        "{name:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

// Seen to fail with the variable not read, with the error of an unknown name dropped by the index,
// and with a tier taken that the processor lacks.
#[test]
fn a_tier_is_forced_by_its_name_and_another_name_is_refused() {
    let mut widest = Tier::Scalar;
    for tier in Tier::ALL {
        let there = Kernels::forced(tier).is_some();
        let name = tier.to_string();
        ask(Some(&name), if there { &name } else { "refused" });
        if there {
            widest = tier;
        }
    }
    for name in ["sse2", "AVX2", "scalar ", "avx"] {
        ask(Some(name), "refused");
    }
    ask(None, &widest.to_string());
    ask(Some(""), &widest.to_string());
}
