//! Who gets which directory of a cache mount, and what becomes of it.

use std::sync::atomic::AtomicBool;

use super::*;

fn request(identity: &str, sharing: Sharing, start: Start) -> MountRequest {
    MountRequest {
        identity: identity.into(),
        sharing,
        start,
    }
}

fn take(paths: &StatePaths, sharing: Sharing, start: Start) -> Option<MountDirectory> {
    let canceled = AtomicBool::new(true);
    let requests = [request("id", sharing, start)];
    let wait = Wait::UntilCanceled(&canceled);
    let mut taken = acquire(paths, &requests, wait).unwrap()?;
    assert_eq!((taken.directories.len(), taken.places), (1, vec![0]));
    taken.directories.pop()
}

#[test]
fn content_outlives_users_and_unfinished_first_content_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let first = take(&paths, Sharing::Shared, Start::Kept).unwrap();
    assert!(first.is_new());
    fs::write(first.path().join("half"), "x").unwrap();
    drop(first);
    let mut second = take(&paths, Sharing::Shared, Start::Kept).unwrap();
    assert!(second.is_new());
    assert_eq!(fs::read_dir(second.path()).unwrap().count(), 0);
    fs::write(second.path().join("whole"), "x").unwrap();
    second.ready().unwrap();
    let third = take(&paths, Sharing::Shared, Start::Kept).unwrap();
    assert!(!third.is_new());
    assert_eq!(third.path(), second.path());
    assert!(third.path().join("whole").exists());
}

#[test]
fn who_waits_for_the_first_content_shares_it_when_it_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let mut first = take(&paths, Sharing::Shared, Start::Kept).unwrap();
    let (sender, shared) = std::sync::mpsc::channel();
    let of_thread = paths.clone();
    let waiting = std::thread::spawn(move || {
        let never = AtomicBool::new(false);
        let requests = [request("id", Sharing::Shared, Start::Kept)];
        let wait = Wait::UntilCanceled(&never);
        let taken = acquire(&of_thread, &requests, wait).unwrap().unwrap();
        sender.send(taken.directories[0].is_new()).unwrap();
    });
    // It waits by now; if it does not, it has nothing to wait for.
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(shared.try_recv().is_err());
    first.ready().unwrap();
    let is_new = shared.recv_timeout(std::time::Duration::from_secs(10));
    drop(first);
    waiting.join().unwrap();
    assert_eq!(is_new, Ok(false), "it waited until the first user was gone");
}

#[test]
fn sharing_decides_what_a_second_user_gets() {
    use Sharing::{Locked, Private, Shared};
    let cases = [
        (Shared, Shared, Some(true)),
        (Shared, Locked, None),
        (Locked, Shared, None),
        (Locked, Locked, None),
        (Private, Private, Some(false)),
        (Shared, Private, Some(false)),
    ];
    for (first, second, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path());
        let mut one = take(&paths, first, Start::Kept).unwrap();
        one.ready().unwrap();
        let two = take(&paths, second, Start::Kept);
        let is_same = two.as_ref().map(|two| two.path() == one.path());
        assert_eq!(is_same, expected, "{first:?} then {second:?}");
        let path = one.path().to_owned();
        drop((one, two));
        let again = take(&paths, second, Start::Kept).unwrap();
        assert_eq!(again.path(), path, "free again");
    }
}

#[test]
fn who_asks_is_never_met_by_who_looks_for_a_free_directory() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let mut one = take(&paths, Sharing::Private, Start::Kept).unwrap();
    one.ready().unwrap();
    let folder = one.path().parent().unwrap().to_owned();
    assert!(is_used(&folder).unwrap());
    drop(one);
    assert!(!is_used(&folder).unwrap());
    // While somebody looks for one.
    let lock_path = folder.join("lock");
    let looking = lock_file(&lock_path, LockMode::Exclusive, Wait::Never).unwrap();
    assert!(looking.is_some() && is_used(&folder).unwrap());
    drop(looking);
    // Two who ask do not meet, either.
    let asking = lock_file(&lock_path, LockMode::Shared, Wait::Never).unwrap();
    assert!(asking.is_some() && !is_used(&folder).unwrap());
}

#[test]
fn what_is_discarded_is_moved_and_users_keep_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let trash = dir.path().join("trash");
    fs::create_dir(&trash).unwrap();
    let mut used = take(&paths, Sharing::Private, Start::Kept).unwrap();
    used.ready().unwrap();
    let mut unused = take(&paths, Sharing::Private, Start::Kept).unwrap();
    unused.ready().unwrap();
    fs::write(unused.path().join("f"), "x").unwrap();
    let (folder, unused_path) = (used.path().parent().unwrap(), unused.path().to_owned());
    drop(unused);
    discard(folder, &trash).unwrap();
    assert!(used.path().exists() && !unused_path.exists());
    let moved = names_in(&trash).unwrap();
    assert_eq!(moved.len(), 1);
    assert_eq!(fs::read(trash.join(&moved[0]).join("f")).unwrap(), b"x");
    let anew = take(&paths, Sharing::Private, Start::Kept).unwrap();
    assert!(anew.is_new());
}

#[test]
fn starting_empty_leaves_users_alone_and_later_ones_go_on_with_the_new() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let mut old = take(&paths, Sharing::Locked, Start::Kept).unwrap();
    old.ready().unwrap();
    fs::write(old.path().join("old"), "x").unwrap();
    let mut new = take(&paths, Sharing::Locked, Start::Empty).unwrap();
    assert!(new.is_new());
    new.ready().unwrap();
    assert!(old.path().join("old").exists());
    let (old_path, new_path) = (old.path().to_owned(), new.path().to_owned());
    drop((old, new));
    assert_eq!(
        take(&paths, Sharing::Locked, Start::Kept).unwrap().path(),
        new_path
    );
    let newest = take(&paths, Sharing::Locked, Start::Empty).unwrap();
    assert_ne!(newest.path(), new_path);
    assert!(!old_path.exists(), "unused directories are removed");
}

#[test]
fn a_step_does_not_wait_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StatePaths::new(dir.path());
    let requests = [
        request("b", Sharing::Locked, Start::Kept),
        request("a", Sharing::Shared, Start::Kept),
        request("b", Sharing::Shared, Start::Kept),
    ];
    let taken = acquire(&paths, &requests, Wait::Never).unwrap().unwrap();
    assert_eq!(taken.directories.len(), 2);
    assert_eq!(taken.places, [1, 0, 1]);
}
