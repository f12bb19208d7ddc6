//! The rules: one a file, and the table of them.

mod consistent_instruction_casing;
mod copy_ignored_file;
mod duplicate_stage_name;
mod expose_invalid_format;
mod expose_proto_casing;
mod from_as_casing;
mod from_platform_flag_const_disallowed;
mod invalid_base_image_platform;
mod invalid_default_arg_in_from;
mod invalid_definition_description;
mod json_args_recommended;
mod legacy_key_value_format;
mod maintainer_deprecated;
mod multiple_instructions_disallowed;
mod no_empty_continuation;
mod redundant_target_platform;
mod reserved_stage_name;
mod secrets_used_in_arg_or_env;
mod stage_name_casing;
mod undefined_arg_in_from;
mod undefined_var;
mod workdir_relative_path;

use super::FileView;
use super::from::{BaseView, FromView};
use super::page::Page;
use super::report::Report;
use super::step::StepView;

/// A build check. Name, description and messages are BuildKit's (`frontend/dockerfile/linter`).
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name, as `# check=skip=` takes it.
    pub name: &'static str,
    /// What it is about, one sentence.
    pub description: &'static str,
    /// The name of its documentation page.
    pub slug: &'static str,
    /// Whether BuildKit's documentation has a page of that name.
    pub is_described: bool,
    /// Whether it is on.
    pub standing: Standing,
    /// What it looks at.
    pub(super) check: Check,
    /// What its documentation page tells.
    pub page: Page,
}

/// Whether a rule is on unless something else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is on.
    Regular,
    /// It is off.
    Experimental,
}

/// What a rule looks at.
#[derive(Clone, Copy)]
pub(super) enum Check {
    /// The text of the file.
    File(fn(&FileView<'_>, &mut Report)),
    /// Each FROM, with the global scope.
    From(fn(&FromView<'_>, &mut Report)),
    /// Each base image.
    Base(fn(&BaseView<'_>, &mut Report)),
    /// Each instruction of each stage that is built, triggers included.
    Step(fn(&StepView<'_>, &mut Report)),
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File(_) => "File",
            Self::From(_) => "From",
            Self::Base(_) => "Base",
            Self::Step(_) => "Step",
        })
    }
}

/// All rules, in the order in which BuildKit lists them.
pub const RULES: [&Rule; 22] = [
    &stage_name_casing::RULE,
    &from_as_casing::RULE,
    &no_empty_continuation::RULE,
    &consistent_instruction_casing::RULE,
    &duplicate_stage_name::RULE,
    &reserved_stage_name::RULE,
    &json_args_recommended::RULE,
    &maintainer_deprecated::RULE,
    &undefined_arg_in_from::RULE,
    &workdir_relative_path::RULE,
    &undefined_var::RULE,
    &multiple_instructions_disallowed::RULE,
    &legacy_key_value_format::RULE,
    &invalid_base_image_platform::RULE,
    &redundant_target_platform::RULE,
    &secrets_used_in_arg_or_env::RULE,
    &invalid_default_arg_in_from::RULE,
    &from_platform_flag_const_disallowed::RULE,
    &copy_ignored_file::RULE,
    &invalid_definition_description::RULE,
    &expose_proto_casing::RULE,
    &expose_invalid_format::RULE,
];

/// The rule of a name.
pub fn find_rule(name: &str) -> Option<&'static Rule> {
    RULES.into_iter().find(|rule| rule.name == name)
}
