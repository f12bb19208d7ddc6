//! The global scope: predefined platform variables and the ARGs before the first FROM (features.md 1.7).

use std::collections::BTreeMap;

use crate::ast::{ArgDeclaration, Dockerfile, Instruction, InstructionKind};
use crate::expand::{Lexer, Scope};
use crate::source::Diagnostic;

use super::LowerOptions;
use super::error::diagnostic;

/// Build args that configure the build and never become part of a step's environment.
pub(crate) const NOT_ENVIRONMENT: [&str; 2] =
    ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// The proxy variables, by lower-case name.
const PROXIES: [&str; 5] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "all_proxy",
];

/// Whether a declared ARG is seen by steps.
pub(super) fn is_environment(name: &str) -> bool {
    !NOT_ENVIRONMENT.contains(&name)
}

/// Names of build args that mean something without an ARG.
pub(super) fn is_predefined(name: &str) -> bool {
    const PLATFORMS: [&str; 10] = [
        "BUILDPLATFORM",
        "BUILDOS",
        "BUILDOSVERSION",
        "BUILDARCH",
        "BUILDVARIANT",
        "TARGETPLATFORM",
        "TARGETOS",
        "TARGETOSVERSION",
        "TARGETARCH",
        "TARGETVARIANT",
    ];
    PLATFORMS.contains(&name)
        || PROXIES.contains(&name.to_lowercase().as_str())
        || name.starts_with("BUILDKIT_")
        || matches!(name, "TARGETSTAGE" | "SOURCE_DATE_EPOCH")
}

/// The proxy variables among the build args, by lower-case name.
pub(super) fn proxy_environment(options: &LowerOptions) -> BTreeMap<String, String> {
    options
        .build_args
        .iter()
        .map(|(name, value)| (name.to_lowercase(), value.clone()))
        .filter(|(name, _)| PROXIES.contains(&name.as_str()))
        .collect()
}

/// The ARG instructions before the first FROM.
pub(super) fn global_args(
    dockerfile: &Dockerfile,
) -> impl Iterator<Item = (&Instruction, &[ArgDeclaration])> {
    let is_from = |i: &&Instruction| matches!(i.kind, InstructionKind::From(_));
    let before = dockerfile
        .instructions
        .iter()
        .take_while(move |i| !is_from(i));
    before.filter_map(|instruction| {
        if let InstructionKind::Arg(declarations) = &instruction.kind {
            return Some((instruction, declarations.as_slice()));
        }
        None
    })
}

/// The predefined variables, then the global ARGs in order, each seeing those before it; `given` are the build args for
/// those.
pub(super) fn global_scope(
    dockerfile: &Dockerfile,
    options: &LowerOptions,
    given: &BTreeMap<String, String>,
    target: &str,
    lexer: &Lexer,
) -> Result<Scope, Diagnostic> {
    let mut scope = predefined(options, target);
    for (instruction, declarations) in global_args(dockerfile) {
        for declaration in declarations {
            let name = &declaration.name.value;
            let value = match (given.get(name), &declaration.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(
                    lexer
                        .expand(&default.value, &scope)
                        .map_err(|error| diagnostic(&error, Some(instruction.lines)))?,
                ),
                (None, None) => None,
            };
            if let Some(value) = value {
                scope.set(name, value);
            }
        }
    }
    Ok(scope)
}

fn predefined(options: &LowerOptions, target: &str) -> Scope {
    let build = &options.build_platform;
    let platform = &options.target_platform;
    let target = if target.is_empty() { "default" } else { target };
    let mut scope = Scope::default();
    for (name, value) in [
        ("BUILDPLATFORM", build.to_string()),
        ("BUILDOS", build.os.clone()),
        ("BUILDOSVERSION", build.os_version.clone()),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", build.variant.clone()),
        ("TARGETPLATFORM", platform.to_string()),
        ("TARGETOS", platform.os.clone()),
        ("TARGETOSVERSION", platform.os_version.clone()),
        ("TARGETARCH", platform.architecture.clone()),
        ("TARGETVARIANT", platform.variant.clone()),
        ("TARGETSTAGE", target.to_owned()),
    ] {
        let value = options.build_args.get(name).cloned().unwrap_or(value);
        scope.set(name, value);
    }
    scope
}
