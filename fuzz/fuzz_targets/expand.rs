//! Expanding any word, where lowering does.

#![no_main]

use frontend::lint::{Checks, Coverage, Levels, Report};
use frontend::lower::{
    ImageName, ImageResolver, LowerOptions, ResolveError, ResolvedImage, lower_checked,
};
use frontend::parse::parse;
use frontend::platform::Platform;
use frontend::source::SourceFile;
use libfuzzer_sys::fuzz_target;

/// Has no image.
struct Nothing;

impl ImageResolver for Nothing {
    fn resolve(&self, _: &ImageName<'_>, _: &Platform) -> Result<ResolvedImage, ResolveError> {
        Err(ResolveError {
            message: "there is nothing".to_owned(),
            hint: None,
        })
    }
}

fuzz_target!(|word: &str| {
    for text in [
        format!("FROM scratch\nARG A=v\nARG F=a/b/c\nENV E=\"{word}\" D={word}\n"),
        format!("FROM scratch\nARG A=v\nCOPY <<X /x\n{word}\nX\n"),
        format!("ARG A=v\nFROM {word}\n"),
        format!("# escape=`\nFROM scratch\nARG A=v\nEXPOSE {word}\nWORKDIR {word}\n"),
    ] {
        let source = SourceFile::new("Dockerfile", text.as_bytes());
        let Ok(dockerfile) = parse(&source) else {
            continue;
        };
        let options = LowerOptions::new(Platform::linux("amd64"));
        let mut report = Report::new(Levels::default());
        let checks = Checks {
            report: &mut report,
            ignore: None,
            coverage: Coverage::AllStages,
        };
        drop(lower_checked(
            &source,
            &dockerfile,
            &options,
            &Nothing,
            checks,
        ));
    }
});
