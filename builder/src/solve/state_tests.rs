//! The solver against a naive recursive evaluator, over random graphs.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// What the outside does with one vertex.
#[derive(Clone, Debug)]
struct Fate {
    hits: bool,
    blocks: bool,
    fails: bool,
}

#[derive(Clone, Debug)]
struct World {
    nodes: Vec<Node>,
    fates: Vec<Fate>,
    order: Vec<usize>,
    interrupt_at: Option<usize>,
}

fn world() -> impl Strategy<Value = World> {
    (1_usize..24).prop_flat_map(|count| {
        let node = (
            proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
            any::<[bool; 2]>(),
        );
        let fate = (any::<bool>(), any::<bool>(), 0_u8..20);
        (
            proptest::collection::vec((node, fate), count),
            proptest::collection::vec(0_usize..1000, 200),
            proptest::option::weighted(0.2, 0_usize..20),
        )
            .prop_map(|(specs, order, interrupt_at)| {
                let mut nodes = Vec::new();
                let mut fates = Vec::new();
                for (index, ((links, [looks, ignores]), (hits, blocks, luck))) in
                    specs.into_iter().enumerate()
                {
                    let mut inputs: Vec<VertexId> = match index {
                        0 => Vec::new(),
                        _ => links
                            .iter()
                            .map(|link| VertexId(link.index(index)))
                            .collect(),
                    };
                    if inputs.is_empty() && index > 0 {
                        inputs.push(VertexId(index - 1));
                    }
                    let looks_into = if looks { inputs.first().copied() } else { None };
                    nodes.push(Node {
                        inputs,
                        looks_into,
                        ignores_cache: ignores && !hits,
                    });
                    fates.push(Fate {
                        hits,
                        blocks,
                        fails: luck == 0,
                    });
                }
                World {
                    nodes,
                    fates,
                    order,
                    interrupt_at,
                }
            })
    })
}

/// Which vertices must run so that the goal is done, by plain recursion.
fn naive(world: &World, goal: usize) -> BTreeSet<usize> {
    fn need(
        world: &World,
        vertex: usize,
        ran: &mut BTreeSet<usize>,
        seen: &mut BTreeSet<(usize, bool)>,
        result: bool,
    ) {
        if !seen.insert((vertex, result)) {
            return;
        }
        let (node, fate) = (&world.nodes[vertex], &world.fates[vertex]);
        for input in &node.inputs {
            need(
                world,
                input.0,
                ran,
                seen,
                world.nodes[input.0].ignores_cache,
            );
        }
        if fate.blocks {
            for input in &node.inputs {
                need(world, input.0, ran, seen, true);
            }
        }
        if let Some(base) = node.looks_into {
            need(world, base.0, ran, seen, true);
        }
        if !fate.hits && (result || node.ignores_cache) {
            for input in &node.inputs {
                need(world, input.0, ran, seen, true);
            }
            ran.insert(vertex);
        }
    }
    let mut ran = BTreeSet::new();
    need(world, goal, &mut ran, &mut BTreeSet::new(), true);
    ran
}

/// Drops vertices that the goal does not reach, as lowering does.
fn reachable(world: &World) -> World {
    let goal = world.nodes.len() - 1;
    let mut keep = BTreeSet::from([goal]);
    for index in (0..=goal).rev() {
        if keep.contains(&index) {
            keep.extend(world.nodes[index].inputs.iter().map(|input| input.0));
        }
    }
    let place = |old: usize| VertexId(keep.range(..old).count());
    let mut out = World {
        nodes: Vec::new(),
        fates: Vec::new(),
        ..world.clone()
    };
    for index in &keep {
        let node = &world.nodes[*index];
        out.nodes.push(Node {
            inputs: node.inputs.iter().map(|input| place(input.0)).collect(),
            looks_into: node.looks_into.map(|base| place(base.0)),
            ignores_cache: node.ignores_cache,
        });
        out.fates.push(world.fates[*index].clone());
    }
    out
}

struct Play {
    ran: BTreeSet<usize>,
    cancelled: BTreeSet<VertexId>,
    ending: Ending,
}

/// Performs actions in a random order until the solve ends.
fn play(world: &World) -> Play {
    let goal = VertexId(world.nodes.len() - 1);
    let mut solver = Solver::new(world.nodes.clone(), goal);
    let mut pending = Vec::new();
    let mut ran = BTreeSet::new();
    let mut keyed_before = BTreeSet::new();
    let mut cancelled = BTreeSet::new();
    let mut event = SolveEvent::Started;
    for turn in 0.. {
        assert!(turn < 10_000, "the solve does not end");
        for action in solver.step(event) {
            match action {
                Action::Run(vertex) => {
                    assert!(ran.insert(vertex.0), "{vertex:?} ran twice");
                    assert!(
                        world.nodes[vertex.0]
                            .inputs
                            .iter()
                            .all(|input| solver.is_done(*input))
                    );
                    pending.push((vertex, true));
                }
                Action::ComputeKey(vertex) => pending.push((vertex, false)),
                Action::Cancel(vertex) => {
                    assert!(cancelled.insert(vertex), "{vertex:?} cancelled twice");
                }
                Action::End(ending) => {
                    assert!(pending.is_empty(), "work was under way at the end");
                    return Play {
                        ran,
                        cancelled,
                        ending,
                    };
                }
            }
        }
        assert!(!pending.is_empty(), "nothing under way, but no end");
        if Some(turn) == world.interrupt_at {
            event = SolveEvent::Interrupted;
            continue;
        }
        let (vertex, is_run) =
            pending.swap_remove(world.order[turn % world.order.len()] % pending.len());
        let (node, fate) = (&world.nodes[vertex.0], &world.fates[vertex.0]);
        event = if cancelled.contains(&vertex) || fate.fails {
            SolveEvent::Failed(vertex)
        } else if is_run {
            SolveEvent::Finished(vertex)
        } else if fate.blocks && keyed_before.insert(vertex) {
            SolveEvent::Blocked(vertex, node.inputs.clone())
        } else if fate.hits {
            SolveEvent::Hit(vertex)
        } else {
            SolveEvent::Missed(vertex)
        };
    }
    unreachable!()
}

proptest! {
    #[test]
    fn runs_at_least_what_the_naive_evaluator_runs(world in world()) {
        let mut world = reachable(&world);
        world.interrupt_at = None;
        world.fates.iter_mut().for_each(|fate| fate.fails = false);
        let play = play(&world);
        prop_assert_eq!(play.ending, Ending::Succeeded);
        let needed = naive(&world, world.nodes.len() - 1);
        prop_assert!(play.ran.is_superset(&needed), "ran {:?}, needed {:?}", play.ran, needed);
        for extra in play.ran.difference(&needed) {
            // Run before it was known whether it is needed: only where none of its users was a hit at that time.
            let is_user = |node: &Node| node.inputs.contains(&VertexId(*extra));
            prop_assert!(!world.fates[*extra].hits);
            prop_assert!(world.nodes.iter().any(is_user));
            prop_assert!(!needed.is_empty(), "something ran although nothing had to");
        }
    }

    #[test]
    fn always_ends(world in world()) {
        let world = reachable(&world);
        let play = play(&world);
        match play.ending {
            Ending::Succeeded => prop_assert!(play.cancelled.is_empty() || play.ran.len() <= world.nodes.len()),
            Ending::Failed(vertex) => prop_assert!(world.fates[vertex.0].fails),
            Ending::Interrupted => prop_assert!(world.interrupt_at.is_some()),
        }
    }
}

fn chain(length: usize) -> Vec<Node> {
    (0..length)
        .map(|index| Node {
            inputs: index.checked_sub(1).map(VertexId).into_iter().collect(),
            looks_into: None,
            ignores_cache: false,
        })
        .collect()
}

#[test]
fn a_hit_at_the_goal_runs_nothing_above_it() {
    let mut solver = Solver::new(chain(3), VertexId(2));
    assert_eq!(
        solver.step(SolveEvent::Started),
        [Action::ComputeKey(VertexId(0))]
    );
    assert_eq!(
        solver.step(SolveEvent::Missed(VertexId(0))),
        [Action::ComputeKey(VertexId(1))]
    );
    assert_eq!(
        solver.step(SolveEvent::Missed(VertexId(1))),
        [Action::ComputeKey(VertexId(2))]
    );
    assert_eq!(
        solver.step(SolveEvent::Hit(VertexId(2))),
        [Action::End(Ending::Succeeded)]
    );
    assert_eq!(
        solver.unneeded().collect::<Vec<_>>(),
        [VertexId(0), VertexId(1)]
    );
}

#[test]
fn independent_stages_run_at_once_below_a_chain_of_copies() {
    // Two stages, each one step; a copy from each onto the last: 0 and 1 are steps, 2 copies from 0, 3 from 1 onto 2.
    let node = |inputs: &[usize], looks_into: Option<usize>| Node {
        inputs: inputs.iter().copied().map(VertexId).collect(),
        looks_into: looks_into.map(VertexId),
        ignores_cache: false,
    };
    let nodes = vec![
        node(&[], None),
        node(&[], None),
        node(&[0], None),
        node(&[2, 1], Some(2)),
    ];
    let mut solver = Solver::new(nodes, VertexId(3));
    solver.step(SolveEvent::Started);
    solver.step(SolveEvent::Missed(VertexId(0)));
    solver.step(SolveEvent::Missed(VertexId(1)));
    let actions = solver.step(SolveEvent::Blocked(VertexId(2), vec![VertexId(0)]));
    assert_eq!(
        actions,
        [Action::Run(VertexId(0)), Action::Run(VertexId(1))]
    );
}

#[test]
fn a_long_chain_neither_recurses_nor_slows_down() {
    let length = 20_000;
    let mut solver = Solver::new(chain(length), VertexId(length - 1));
    let mut actions = solver.step(SolveEvent::Started);
    let mut turns = 0;
    while let Some(action) = actions.pop() {
        turns += 1;
        actions = match action {
            Action::ComputeKey(vertex) => solver.step(SolveEvent::Missed(vertex)),
            Action::Run(vertex) => solver.step(SolveEvent::Finished(vertex)),
            Action::End(ending) => {
                assert_eq!(ending, Ending::Succeeded);
                Vec::new()
            }
            Action::Cancel(vertex) => panic!("{vertex:?} cancelled"),
        };
    }
    assert_eq!(turns, 2 * length + 1);
}
