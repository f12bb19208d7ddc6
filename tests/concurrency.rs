//! Many builds on one store at once, and builds killed at any instant: every distinct step runs once, results are those of
//! a naive evaluator, and every process ends.
//!
//! `BUILD_SOAK_ROUNDS` and `BUILD_SOAK_SECONDS` say how many rounds are run, and for how long at most; `BUILD_SOAK_BUILDS` how
//! many builds there are at once; `BUILD_SOAK_SEED` replays one round.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::image::Image;
use crate::support::process::Running;
use crate::support::world::{Luck, Random, World, ran};
use crate::support::{Place, SetAtEnd};

const ROUNDS: u64 = 5;

/// A build that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(300);

#[expect(
    clippy::disallowed_methods,
    reason = "how long a soak lasts is the caller's wish"
)]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays rounds, each with its seed, which is printed before.
#[expect(
    clippy::print_stdout,
    reason = "who sees a round fail needs its seed, and a soak its count"
)]
fn rounds(play: impl Fn(u64)) {
    if let Some(seed) = number("BUILD_SOAK_SEED") {
        return play(seed);
    }
    let first = u64::from(std::process::id()) << 20;
    let (since, mut played) = (Instant::now(), 0);
    let seconds = number("BUILD_SOAK_SECONDS").unwrap_or(u64::MAX);
    for seed in first..first + number("BUILD_SOAK_ROUNDS").unwrap_or(ROUNDS) {
        if since.elapsed().as_secs() >= seconds {
            break;
        }
        println!("BUILD_SOAK_SEED={seed}");
        play(seed);
        played += 1;
    }
    println!("{played} rounds");
}

/// A world with its files in a place.
fn settle(random: &mut Random, luck: Luck) -> (Place, World) {
    let world = World::draw(random, luck);
    let place = Place::with_dockerfile(&world.dockerfile());
    for (name, text) in World::files() {
        place.file(&name, text);
    }
    (place, world)
}

/// A build of one stage.
struct Build {
    running: Running,
    stage: usize,
    output: PathBuf,
}

impl Build {
    fn start(place: &Place, stage: usize, number: u64) -> Self {
        Self::start_with(place, stage, number, &[])
    }

    fn start_with(place: &Place, stage: usize, number: u64, flags: &[&str]) -> Self {
        let output = place.path(&format!("{number}.tar"));
        let mut command = place.build_command();
        command
            .args(flags)
            .arg(format!("--target=s{stage}"))
            .arg(format!("--output=type=oci,dest={}", output.display()))
            .arg(place.context());
        Self {
            running: Running::start(&mut command),
            stage,
            output,
        }
    }

    /// Waits for its end and compares its result with the evaluator's.
    fn end(self, world: &World, seed: u64) {
        let outcome = self.running.end(LIMIT);
        match world.result(self.stage) {
            None => drop(outcome.failure(1).says("exit code: 1")),
            Some(value) => {
                drop(outcome.success());
                let image = Image::read(&self.output);
                assert_eq!(image.text("v"), value, "seed {seed}, stage {}", self.stage);
            }
        }
    }
}

/// How often each line is in the log.
fn counted(place: &Place) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in ran(&place.root()) {
        *counts.entry(line).or_default() += 1;
    }
    counts
}

fn assert_well(place: &Place, seed: u64) {
    let checked = place.run(["fsck"]).success();
    let is_well = checked.stdout.contains("all well");
    assert!(is_well, "seed {seed}: {}", checked.stdout);
}

#[test]
fn each_distinct_step_runs_once_whoever_asks() {
    rounds(|seed| {
        let mut random = Random(seed);
        let (place, world) = settle(&mut random, Luck::Good);
        let builds = number("BUILD_SOAK_BUILDS").unwrap_or(8 + random.below(9));
        let stages: Vec<usize> = (0..builds).map(|_| random.index(world.stages())).collect();
        let started: Vec<Build> = (0..builds)
            .zip(&stages)
            .map(|(number, stage)| Build::start(&place, *stage, number))
            .collect();
        started
            .into_iter()
            .for_each(|build| build.end(&world, seed));
        let wanted: BTreeSet<String> = stages
            .iter()
            .flat_map(|stage| world.steps(*stage))
            .collect();
        let wanted: Vec<String> = wanted.into_iter().collect();
        assert_eq!(ran(&place.root()), wanted, "seed {seed}: each step once");
    });
}

#[test]
fn failures_and_cancellations_of_some_builds_do_not_harm_the_others() {
    rounds(|seed| {
        let mut random = Random(seed);
        let (place, world) = settle(&mut random, Luck::Mixed);
        let builds = number("BUILD_SOAK_BUILDS").unwrap_or(8 + random.below(9));
        let (mut canceled, mut unlucky) = (0, 0);
        let mut allowed = BTreeSet::new();
        let mut started = Vec::new();
        for number in 0..builds {
            let stage = random.index(world.stages());
            allowed.extend(world.steps(stage));
            let build = Build::start(&place, stage, number);
            if random.once_in(4) {
                std::thread::sleep(Duration::from_micros(random.below(100_000)));
                build.running.signal(Signal::INT);
                let code = build.running.end(LIMIT).code;
                assert!(
                    matches!(code, Some(0 | 1 | 130)) || code.is_none(),
                    "{code:?}"
                );
                canceled += 1;
            } else {
                unlucky += u64::from(world.result(stage).is_none());
                started.push(build);
            }
        }
        started
            .into_iter()
            .for_each(|build| build.end(&world, seed));
        // A step may have written its line and been given up before its result was kept.
        for (line, count) in counted(&place) {
            assert!(
                allowed.contains(&line),
                "seed {seed}: nobody asked for {line}"
            );
            assert!(
                count <= 1 + canceled + unlucky,
                "seed {seed}: {line} ran {count} times"
            );
        }
        assert_well(&place, seed);
    });
}

#[test]
fn killed_builds_leave_a_store_that_the_next_uses() {
    const KILLS: u64 = 6;
    rounds(|seed| {
        let mut random = Random(seed);
        let (place, world) = settle(&mut random, Luck::Good);
        let mut allowed = BTreeSet::new();
        let mut prunes = 0;
        for number in 0..KILLS {
            let stage = random.index(world.stages());
            allowed.extend(world.steps(stage));
            let build = Build::start(&place, stage, number);
            let prune = random.once_in(3).then(|| {
                let mut command = place.command();
                Running::start(command.args(["prune", "--max-used-space", "1m"]))
            });
            std::thread::sleep(Duration::from_micros(random.below(250_000)));
            build.running.signal(Signal::KILL);
            let _killed = build.running.end(LIMIT);
            if let Some(prune) = prune {
                prunes += 1;
                prune.signal(Signal::KILL);
                let _killed = prune.end(LIMIT);
            }
        }
        let goal = world.stages() - 1;
        allowed.extend(world.steps(goal));
        Build::start(&place, goal, KILLS).end(&world, seed);
        for (line, count) in counted(&place) {
            assert!(
                allowed.contains(&line),
                "seed {seed}: nobody asked for {line}"
            );
            assert!(
                prunes > 0 || count <= 1 + KILLS,
                "seed {seed}: {line} ran {count} times"
            );
        }
        assert_well(&place, seed);
    });
}

/// Looks after a store, over and over, as nobody should while builds run.
fn look_after(place: &Place, stop: &AtomicBool, seed: u64) {
    let mut fscks = 0;
    while !stop.load(Ordering::Relaxed) || fscks == 0 {
        for verb in [&["prune", "--all"][..], &["du", "--verbose"], &["fsck"]] {
            let told = place.run(verb).success();
            let is_well = verb[0] != "fsck" || told.stdout.contains("all well");
            assert!(is_well, "seed {seed}: {}", told.stdout);
        }
        fscks += 1;
        // Nobody may have tagged it since the last time.
        let removed = place.run(["rm", "kept"]);
        let is_known = removed.code == Some(0) || removed.stderr.contains("no such image");
        assert!(is_known, "seed {seed}: {}", removed.stderr);
    }
}

#[test]
fn a_store_that_is_looked_after_serves_builds_meanwhile() {
    const WAVES: u64 = 3;
    rounds(|seed| {
        let mut random = Random(seed);
        let (place, world) = settle(&mut random, Luck::Good);
        place.build(&["--target=s0"]).success();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let keeper = scope.spawn(|| look_after(&place, &stop, seed));
            let ending = SetAtEnd(&stop);
            for wave in 0..WAVES {
                let started: Vec<Build> = (0..6)
                    .map(|number| {
                        let flags: &[&str] = match random.below(3) {
                            0 => &["--no-cache"],
                            1 => &["--tag=kept"],
                            _ => &[],
                        };
                        let stage = random.index(world.stages());
                        Build::start_with(&place, stage, wave * 6 + number, flags)
                    })
                    .collect();
                started
                    .into_iter()
                    .for_each(|build| build.end(&world, seed));
            }
            drop(ending);
            keeper.join().unwrap();
        });
        assert_well(&place, seed);
        let goal = world.stages() - 1;
        Build::start(&place, goal, WAVES * 6).end(&world, seed);
        assert_well(&place, seed);
    });
}
