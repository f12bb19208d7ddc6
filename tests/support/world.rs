//! Random Dockerfiles, and by plain recursion what each of their stages must come to.
//!
//! A stage has one file, `/v`, that tells every step which made it. Each step that runs writes itself and a digest of what it
//! found to a log in a cache mount: two equal lines are one step that ran twice.

use std::collections::BTreeSet;
use std::path::Path;

use super::image::sha256;

/// SplitMix64: all randomness of a round comes from its printed seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A place in a list of so many.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).unwrap()
    }

    /// True once in so many times.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// Whether steps may fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Luck {
    Good,
    Mixed,
}

#[derive(Clone, Copy)]
enum Op {
    /// A command that reads nothing but what is there.
    Run(u64),
    /// The file of an earlier stage, copied.
    Copy(usize),
    /// The file of an earlier stage, mounted.
    Bind(usize),
    /// A file of the context.
    File(u64),
    /// A command that fails.
    Fail,
}

struct Stage {
    /// An earlier stage; the base image if none.
    from: Option<usize>,
    ops: Vec<Op>,
}

/// Stages that build on each other. Those of different seeds overlap, as do their steps within one.
pub(crate) struct World(Vec<Stage>);

/// Files of the context that stages read.
const FILES: u64 = 3;

impl World {
    pub(crate) fn draw(random: &mut Random, luck: Luck) -> Self {
        let mut stages: Vec<Stage> = Vec::new();
        for number in 0..3 + random.index(6) {
            let from = (number > 0 && random.once_in(2)).then(|| random.index(number));
            let mut ops = vec![Op::Run(random.below(2))];
            for _ in 0..random.below(4) {
                ops.push(match random.below(6) {
                    0 | 1 if number > 0 => Op::Copy(random.index(number)),
                    2 if number > 0 => Op::Bind(random.index(number)),
                    3 => Op::File(random.below(FILES)),
                    4 if luck == Luck::Mixed && random.once_in(3) => Op::Fail,
                    _ => Op::Run(random.below(2)),
                });
            }
            stages.push(Stage { from, ops });
        }
        Self(stages)
    }

    /// How many stages there are.
    pub(crate) fn stages(&self) -> usize {
        self.0.len()
    }

    /// The files of the context.
    pub(crate) fn files() -> impl Iterator<Item = (String, String)> {
        (0..FILES).map(|number| (format!("f{number}"), format!("file {number}\n")))
    }

    /// All stages, `s0`, `s1`, ….
    pub(crate) fn dockerfile(&self) -> String {
        let mut text = String::new();
        for (number, stage) in self.0.iter().enumerate() {
            let from = stage
                .from
                .map_or("busybox".to_owned(), |from| format!("s{from}"));
            text.push_str(&format!("FROM {from} AS s{number}\n"));
            for op in &stage.ops {
                text.push_str(&instruction(*op));
            }
        }
        text
    }

    /// What `/v` of a stage has; `None` if a step that it needs fails.
    pub(crate) fn result(&self, stage: usize) -> Option<String> {
        self.evaluate(stage, &mut BTreeSet::new())
    }

    /// The lines that a build of a stage may write to the log: all of them if it succeeds and nothing is cached.
    pub(crate) fn steps(&self, stage: usize) -> BTreeSet<String> {
        let mut steps = BTreeSet::new();
        self.evaluate(stage, &mut steps);
        steps
    }

    fn evaluate(&self, stage: usize, steps: &mut BTreeSet<String>) -> Option<String> {
        let stage = &self.0[stage];
        let mut is_good = true;
        let mut value = match stage.from {
            None => String::new(),
            Some(from) => self.evaluate(from, steps)?,
        };
        for op in &stage.ops {
            let (name, read) = match op {
                Op::Run(number) => (format!("run {number}"), String::new()),
                Op::Copy(from) | Op::Bind(from) => {
                    // What does not depend on a failed step may run all the same.
                    let Some(read) = self.evaluate(*from, steps) else {
                        is_good = false;
                        continue;
                    };
                    let name = if matches!(op, Op::Copy(_)) {
                        "copy"
                    } else {
                        "bind"
                    };
                    (name.to_owned(), read)
                }
                Op::File(number) => ("file".to_owned(), format!("file {number}\n")),
                Op::Fail => {
                    is_good = false;
                    continue;
                }
            };
            if is_good {
                steps.insert(format!("{name} {} {}", short(&value), short(&read)));
                value = format!("{value}{name}\n{read}");
            }
        }
        is_good.then_some(value)
    }
}

fn short(text: &str) -> String {
    sha256(text.as_bytes())["sha256:".len()..][..16].to_owned()
}

fn instruction(op: Op) -> String {
    let run = |mount: &str, name: &str, read: &str| {
        format!(
            "RUN {mount}--mount=type=cache,id=ran,target=/ran touch /v; h() {{ sha256sum < $1 | cut -c1-16; }}; \
             echo {name} $(h /v) $(h {read}) >> /ran/log; echo {name} >> /v; cat {read} >> /v\n"
        )
    };
    match op {
        Op::Run(number) => run("", &format!("run {number}"), "/dev/null"),
        Op::Copy(from) => format!("COPY --from=s{from} /v /r\n{}", run("", "copy", "/r")),
        Op::Bind(from) => run(
            &format!("--mount=from=s{from},source=/v,target=/m "),
            "bind",
            "/m",
        ),
        Op::File(number) => format!("COPY f{number} /r\n{}", run("", "file", "/r")),
        Op::Fail => "RUN exit 1\n".to_owned(),
    }
}

/// What ran on a store, as the steps themselves wrote it down, sorted.
pub(crate) fn ran(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mounts = std::fs::read_dir(root.join("cache-mounts"));
    for folder in mounts.into_iter().flatten() {
        let log = folder.unwrap().path().join("0/log");
        let text = std::fs::read_to_string(log).unwrap_or_default();
        lines.extend(text.lines().map(str::to_owned));
    }
    lines.sort();
    lines
}
