//! Cache keys: what a step's result is filed under, and what is filed.
//!
//! A step has two keys. Its *layer key* says what it adds; its *state key* is the state key of the file system below with
//! the layer key on top. Later steps, mounts and images are keyed by state keys alone. A layer key only saves making a layer
//! again: it answers with diff ids whatever they are stacked onto.
//!
//! This module holds the algebra and the storage. Which part of which step goes in is decided where steps are known;
//! the table below is the contract for that.
//!
//! # What enters
//!
//! | step | in the key | in the key by content | not in the key |
//! |---|---|---|---|
//! | image | chain id of its layers (equal file systems are equal whatever their tag or compression); while the layers are unknown, manifest digest and platform | – | tag, registry, config |
//! | scratch | a constant | – | – |
//! | local context | nothing: it has no key of its own | each selected path: type, mode bits, link target, device, bytes | mtime, owner, inode, host path, name of the context |
//! | git | commit, subdirectory, whether submodules are left out, the remote if `.git` is kept | – | branch or tag name, the remote otherwise, fetch options, credentials |
//! | http | URL's file name, body digest and time of last change (or checksum asked for) | body | URL, other headers, validators: they only save fetching |
//! | exec | state key of the root; arguments as run (heredocs and inner blanks as written, shell included); environment in order, ARGs included; cwd; user; network; security mode; host name; names of extra hosts; shm size; ulimits; cgroup parent; devices; platform; per mount: target, type, read-only or not, mode, owner, and for a secret or ssh its id, target and variable name, required or not | bind mounts: content of the mounted path; cache mounts: content of the path its first content is from | secret values, agent keys, cache mount id and sharing, proxy variables, addresses of extra hosts, resource limits, progress name, the isolation rung |
//! | mkdir, mkfile | path, mode, owner as resolved, data | observations of the destination | mtime |
//! | copy, add | **layer key**: the planned layer itself, entry by entry: path, type, mode, owner as resolved, link target, device, content digest, hard link groups | all of it | mtimes, directories passed through, where the bytes lie, names given to `--chown`, the text of patterns: two ways of writing one copy are one layer |
//! | merge | state keys of base and upper | – | – |
//!
//! *Why mtimes are out*: a checkout or a rebuild in another place changes nothing else. *Why the host's owner is out*:
//! contexts arrive as 0:0. *Why a copy is keyed by its plan*: everything a copy looks up in its destination (what is
//! there, of which type, links followed, owners by name) is folded into the plan. So a copy onto a new base hits exactly
//! if the resulting layer is the same one, and the RUN after it, keyed by state, does not.
//!
//! # Two steps
//!
//! A plan needs its sources listed, and their digests. Where an input's state key is known, `memo` files answers
//! under (definition, state keys of inputs): the digest of a selected path, the layer key of a copy. A memo is found by
//! definition and points at content. A local context has no state key, so it is always asked.
//!
//! # Explaining
//!
//! Every record keeps the parts of its key in readable form; a memo names the last record of each step. On a miss the two
//! are compared part by part ([`builder::Parts::differences_from`]).
//!
//! # Versions
//!
//! Keys begin with a version, rows with a check, the database with a number. The keys of whole steps are pinned by
//! `testdata/keys`, with one line for each input of the table.

pub mod builder;
pub mod index;
pub mod record;

mod database;
