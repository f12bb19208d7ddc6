//! Many builds on one store at once, and builds killed at any instant: every distinct step runs once, results are right.
//!
//! `BUILD_SOAK_ROUNDS` sets how many rounds are run, `BUILD_SOAK_SEED` replays one.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::support::Place;

const ROUNDS: u64 = 5;

/// SplitMix64: all randomness of a round comes from its printed seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a soak lasts is the caller's wish"
)]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The seeds to run, each printed before its round.
fn seeds() -> Vec<u64> {
    if let Some(seed) = number("BUILD_SOAK_SEED") {
        return vec![seed];
    }
    let first = u64::from(std::process::id()) << 20;
    let rounds = number("BUILD_SOAK_ROUNDS").unwrap_or(ROUNDS);
    (first..first + rounds).collect()
}

/// A Dockerfile of steps drawn from few, so that builds overlap. Each step that runs appends its name to a cache mount.
fn dockerfile(random: &mut Random) -> (String, Vec<String>) {
    let mut text = "FROM busybox\n".to_owned();
    let mut chain = String::new();
    let mut steps = Vec::new();
    for _ in 0..2 + random.below(3) {
        let step = random.below(2);
        chain = format!("{chain}{step}");
        text.push_str(&format!(
            "RUN --mount=type=cache,id=ran,target=/ran echo {chain} >> /ran/log && echo {chain} > /s{chain}\n"
        ));
        steps.push(chain.clone());
    }
    (text, steps)
}

fn write(place: &Place, name: &str, text: &str) -> String {
    place.file(name, text);
    place.context().join(name).display().to_string()
}

fn start(place: &Place, file: &str, output: &str) -> Child {
    place
        .build_command()
        .args(["-f", file, "--output", output])
        .arg(place.context())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What ran, as the steps themselves wrote it down.
fn ran(place: &Place) -> Vec<String> {
    let mut lines = Vec::new();
    for folder in std::fs::read_dir(place.path("root/cache-mounts"))
        .into_iter()
        .flatten()
    {
        let log = folder.unwrap().path().join("0/log");
        let text = std::fs::read_to_string(log).unwrap_or_default();
        lines.extend(text.lines().map(str::to_owned));
    }
    lines.sort();
    lines
}

#[test]
fn each_distinct_step_runs_once_whoever_asks() {
    for seed in seeds() {
        println!("BUILD_SOAK_SEED={seed}");
        let mut random = Random(seed);
        let place = Place::new();
        let builds = 8 + random.below(9);
        let mut wanted: BTreeSet<String> = BTreeSet::new();
        let mut children = Vec::new();
        for number in 0..builds {
            let (text, steps) = dockerfile(&mut random);
            let file = write(&place, &format!("Dockerfile.{number}"), &text);
            let output = place.path(&format!("{number}.tar"));
            let child = start(
                &place,
                &file,
                &format!("type=oci,dest={}", output.display()),
            );
            children.push((child, output, steps.clone()));
            wanted.extend(steps);
        }
        for (child, output, steps) in children {
            let outcome = child.wait_with_output().unwrap();
            let told = String::from_utf8_lossy(&outcome.stderr).into_owned();
            assert!(outcome.status.success(), "seed {seed}:\n{told}");
            let image = crate::support::image::Image::read(&output);
            for step in steps {
                assert_eq!(
                    image.text(&format!("s{step}")),
                    format!("{step}\n"),
                    "seed {seed}"
                );
            }
        }
        let wanted: Vec<String> = wanted.into_iter().collect();
        assert_eq!(ran(&place), wanted, "seed {seed}: each step once");
    }
}

#[test]
fn killed_builds_leave_a_store_that_the_next_uses() {
    for seed in seeds() {
        println!("BUILD_SOAK_SEED={seed}");
        let mut random = Random(seed);
        let place = Place::new();
        let (text, steps) = dockerfile(&mut random);
        let text = format!("{text}COPY data /data\nRUN cat /data > /copy\n");
        place.file("data", "data\n");
        let file = write(&place, "Dockerfile", &text);
        let output = place.path("out.tar");
        let output_spec = format!("type=oci,dest={}", output.display());
        for _ in 0..6 {
            let mut child = start(&place, &file, &output_spec);
            std::thread::sleep(Duration::from_micros(random.below(250_000)));
            child.kill().unwrap();
            child.wait().unwrap();
            if random.below(3) == 0 {
                place.run(["prune", "--max-used-space", "1m"]).success();
            }
        }
        let outcome = start(&place, &file, &output_spec)
            .wait_with_output()
            .unwrap();
        let told = String::from_utf8_lossy(&outcome.stderr).into_owned();
        assert!(outcome.status.success(), "seed {seed}:\n{told}");
        let image = crate::support::image::Image::read(&output);
        assert_eq!(image.text("copy"), "data\n", "seed {seed}");
        for step in steps {
            assert_eq!(
                image.text(&format!("s{step}")),
                format!("{step}\n"),
                "seed {seed}"
            );
        }
        let checked = place.run(["fsck"]).success();
        assert!(
            checked.stdout.contains("all well"),
            "seed {seed}: {}",
            checked.stdout
        );
    }
}
