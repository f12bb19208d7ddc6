//! The flags of `build`. Doc comments are the help.
//!
//! They are those of `docker buildx build`, hidden ones included, with the same spelling and meaning; the values are read
//! in [`super::resolve`].

use std::path::PathBuf;

use clap::Args;

use super::args::{Switch, truth};

/// The flags of `build`.
#[derive(Clone, Debug, Args)]
pub(super) struct BuildArgs {
    #[command(flatten, next_help_heading = "Input")]
    pub(super) input: InputArgs,
    #[command(flatten, next_help_heading = "Cache")]
    pub(super) cache: CacheArgs,
    #[command(flatten, next_help_heading = "Output")]
    pub(super) output: OutputArgs,
    #[command(flatten, next_help_heading = "Commands")]
    pub(super) run: RunArgs,
    #[command(flatten, next_help_heading = "Progress")]
    pub(super) progress: ProgressArgs,
    #[command(flatten)]
    pub(super) unused: UnusedArgs,
}

#[derive(Clone, Debug, Args)]
pub(super) struct InputArgs {
    /// What the Dockerfile copies from: a directory, `-` for a tar or a Dockerfile on standard input, the URL of a git
    /// repository, of a tar or of a Dockerfile
    #[arg(value_name = "CONTEXT", help_heading = None::<&str>)]
    pub(super) context: String,
    /// Dockerfile, `-` for standard input, or a URL [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<String>,
    /// Set a build argument; without a value, to that of the environment (can be repeated)
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(super) build_arg: Vec<String>,
    /// Add a named context: a directory, docker-image://REF, oci-layout://DIR[:TAG|@DIGEST], the URL of a git repository
    /// or of a file (can be repeated)
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) build_context: Vec<String>,
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub(super) target: Option<String>,
    /// Platform to build for, such as linux/arm64 [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub(super) platform: Vec<String>,
    /// Expose a secret to commands: id=ID[,src=FILE|,env=NAME] (can be repeated)
    #[arg(long, value_name = "SPEC")]
    pub(super) secret: Vec<String>,
    /// Expose an ssh agent to commands, or keys, or with raw=true any socket: default|ID[=SOCKET|KEY[,KEY]][,raw=true] (can be repeated)
    #[arg(long, value_name = "SPEC")]
    pub(super) ssh: Vec<String>,
    /// When to ask the registry what a name means: always, missing, never or age:DURATION (such as age:24h)
    /// [default: unless the store has a tag of that name]
    #[arg(
        long,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "always",
        default_value = "false",
        hide_default_value = true
    )]
    pub(super) pull: String,
    /// Contact no registry and no server: what is not in the store is an error
    #[arg(long)]
    pub(super) offline: Switch,
    /// Source policy file (can be repeated)
    #[arg(long, value_name = "SPEC", hide = true)]
    pub(super) policy: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct CacheArgs {
    /// Run every step anew
    #[arg(long)]
    pub(super) no_cache: Switch,
    /// Run the steps of some stages anew (can be repeated)
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(super) no_cache_filter: Vec<String>,
    /// Import build cache (can be repeated)
    #[arg(long, value_name = "SPEC")]
    pub(super) cache_from: Vec<String>,
    /// Export build cache (can be repeated)
    #[arg(long, value_name = "SPEC")]
    pub(super) cache_to: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct OutputArgs {
    /// Name the image, as NAME[:TAG] (can be repeated)
    #[arg(short, long, value_name = "NAME")]
    pub(super) tag: Vec<String>,
    /// Write the result: DIR, `-`, or type=image|registry|oci|docker|local|tar[,KEY=VALUE…] (can be repeated)
    #[arg(short, long, value_name = "SPEC")]
    pub(super) output: Vec<String>,
    /// Push the image: short for --output=type=registry
    #[arg(long)]
    pub(super) push: Switch,
    /// Load the image into Docker: short for --output=type=docker
    #[arg(long)]
    pub(super) load: Switch,
    /// Set a label of the image (can be repeated)
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) label: Vec<String>,
    /// Set an annotation of the image (can be repeated)
    #[arg(long, value_name = "[TYPE:]NAME=VALUE")]
    pub(super) annotation: Vec<String>,
    /// Write the image id to a file
    #[arg(long, value_name = "FILE")]
    pub(super) iidfile: Option<PathBuf>,
    /// Write what was made to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,
    /// Attach an attestation (can be repeated)
    #[arg(long, value_name = "SPEC")]
    pub(super) attest: Vec<String>,
    /// Attach a provenance attestation
    #[arg(long, value_name = "SPEC", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) provenance: Option<String>,
    /// Attach a software bill of materials
    #[arg(long, value_name = "SPEC", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) sbom: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct RunArgs {
    /// Network of commands: default, none or host
    #[arg(long, value_name = "MODE")]
    pub(super) network: Option<String>,
    /// Add a name to /etc/hosts, as NAME:ADDRESS; the address may be `host-gateway` (can be repeated)
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub(super) add_host: Vec<String>,
    /// Allow what is refused by default: network.host, security.insecure (can be repeated)
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    pub(super) allow: Vec<String>,
    /// Size of /dev/shm, such as 128m
    #[arg(long, value_name = "BYTES")]
    pub(super) shm_size: Option<String>,
    /// Limit a resource, as NAME=SOFT[:HARD] (can be repeated)
    #[arg(long, value_name = "LIMIT")]
    pub(super) ulimit: Vec<String>,
    /// Cgroup to make the commands' cgroups in
    #[arg(long, value_name = "CGROUP")]
    pub(super) cgroup_parent: Option<String>,
    /// Limit what each command may use, as NAME=VALUE[,NAME=VALUE…]: memory, memory-swap, cpu-shares, cpu-period,
    /// cpu-quota, cpuset-cpus, cpuset-mems (can be repeated)
    #[arg(long, value_name = "SPEC")]
    pub(super) resource: Vec<String>,
    /// How commands are confined: auto, root or userns [default: auto]
    #[arg(long, value_name = "HOW")]
    pub(super) isolation: Option<String>,
    /// Fail where something would be passed over in silence, such as a build argument that nothing uses
    /// [env: BUILD_STRICT]
    // Not a `Switch`, which is never absent: absent, the environment decides.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL", value_parser = truth)]
    pub(super) strict: Option<bool>,
    /// Commands that run at once [default: 64]
    #[arg(short, long, value_name = "N")]
    pub(super) jobs: Option<std::num::NonZeroUsize>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct ProgressArgs {
    /// How to show progress: auto, plain, tty, rawjson, quiet or none [default: auto]
    #[arg(long, value_name = "MODE")]
    pub(super) progress: Option<String>,
    /// Tell why each step ran that was not cached: text or json, on standard error
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    pub(super) explain: Option<String>,
    /// Show no progress and print the image id
    #[arg(short, long)]
    pub(super) quiet: Switch,
    /// Check the Dockerfile: short for --call=check
    #[arg(long)]
    pub(super) check: Switch,
    /// What to do: build, check, outline or targets [default: build]
    #[arg(long, value_name = "METHOD", alias = "print")]
    pub(super) call: Option<String>,
    /// Log what the program does
    #[arg(short = 'D', long)]
    pub(super) debug: Switch,
}

/// Flags that are accepted so that command lines written for Docker work.
#[derive(Clone, Debug, Args)]
pub(super) struct UnusedArgs {
    /// Builder instance: there is but one
    #[arg(long, value_name = "NAME", hide = true)]
    pub(super) builder: Option<String>,
    /// Compress the context: it is read in place
    #[arg(long, hide = true)]
    pub(super) compress: Switch,
    /// Remove intermediate containers: there are none
    #[arg(long, hide = true)]
    pub(super) rm: Switch,
    /// Remove intermediate containers after a failure: there are none
    #[arg(long, hide = true)]
    pub(super) force_rm: Switch,
    /// Squash the image
    #[arg(long, hide = true)]
    pub(super) squash: Switch,
    /// Security options
    #[arg(long, hide = true)]
    pub(super) security_opt: Vec<String>,
    /// Memory limit: --resource=memory
    #[arg(short, long, hide = true)]
    pub(super) memory: Option<String>,
    /// Memory and swap limit
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(super) memory_swap: Option<String>,
    /// Processor shares
    #[arg(short, long, hide = true)]
    pub(super) cpu_shares: Option<String>,
    /// Processor period
    #[arg(long, hide = true)]
    pub(super) cpu_period: Option<String>,
    /// Processor quota
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(super) cpu_quota: Option<String>,
    /// Processors
    #[arg(long, hide = true)]
    pub(super) cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long, hide = true)]
    pub(super) cpuset_mems: Option<String>,
    /// Write the image id to a file, without its algorithm
    #[arg(long, hide = true)]
    pub(super) iidfile_raw: Option<PathBuf>,
}
