//! An archive of ADD, and before it another that makes the base: planned and, as root, written. What is planned is written,
//! the tree is what the index says, and nothing is made outside of it.
#![no_main]

use std::fs;
use std::sync::{Arc, LazyLock};

use builder::context::walk::{ContextDir, ExcludeNothing};
use builder::op::copy::apply::apply;
use builder::op::copy::context_source::ContextSource;
use builder::op::copy::place::{Ground, plan_on};
use builder::op::copy::select::{Sources, select};
use cache::checksum::stat_cache::StatCache;
use cache::layer::tree::OverlayXattrs;
use cache::layer::verify::is_intact;
use frontend::graph::{CopyAction, FileAction, InputIndex, Unpack};
use libfuzzer_sys::fuzz_target;

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

fn add(name: &str) -> FileAction {
    FileAction::Copy(CopyAction {
        input: Some(InputIndex(0)),
        sources: vec![name.to_owned()],
        destination: "/to/".to_owned(),
        owner: None,
        mode: None,
        keeps_parents: false,
        exclude: Vec::new(),
        unpack: Unpack::Archives,
        keeps_owner: false,
    })
}

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    let middle = usize::from(u16::from_le_bytes(*first)).min(rest.len());
    let (below, above) = rest.split_at(middle);
    let (context, tree) = (DIR.path().join("context"), DIR.path().join("tree"));
    fs::create_dir_all(&context).unwrap();
    fs::write(context.join("below"), below).unwrap();
    fs::write(context.join("above"), above).unwrap();
    fs::write(DIR.path().join("outside"), "outside").unwrap();
    let opened = ContextDir::open(&context, Box::new(ExcludeNothing), StatCache::in_memory());
    let source = ContextSource::new("context", Arc::new(opened.unwrap()));
    let sources = Sources::from([(InputIndex(0), &source as _)]);
    let Ok(selection) = select(&[add("below"), add("above")], &sources, 1) else {
        return;
    };
    let ground = Ground {
        base: None,
        base_input: None,
        room_bytes: 16 << 20,
    };
    let Ok(plan) = plan_on(selection, &sources, &ground) else {
        return;
    };
    if !rustix::process::geteuid().is_root() {
        return;
    }
    drop(cache::remove::remove_tree(&tree));
    fs::create_dir(&tree).unwrap();
    // The file system may refuse what a plan allows, such as a name that is too long for it.
    if let Ok(index) = apply(plan, &sources, &tree, 1) {
        assert!(is_intact(&index, &tree, OverlayXattrs::Trusted));
    }
    assert_eq!(
        fs::read_to_string(DIR.path().join("outside")).unwrap(),
        "outside"
    );
    assert_eq!(fs::read_dir(DIR.path()).unwrap().count(), 3);
});
