//! The examples on the pages, and places that the pages do not show.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;
use crate::graph::ImageSource;
use crate::lower::{
    ImageName, ImageResolver, LowerOptions, ResolveError, ResolvedImage, lower_checked,
};
use crate::platform::Platform;

/// A registry where every image is there for amd64 only.
struct Registry;

impl ImageResolver for Registry {
    fn resolve(
        &self,
        image: &ImageName<'_>,
        _platform: &Platform,
    ) -> Result<ResolvedImage, ResolveError> {
        let name = match image {
            ImageName::Reference(reference) => reference.to_string(),
            ImageName::OciLayout { location, .. } => (*location).to_owned(),
        };
        let config = r#"{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["sha256:0"]}}"#;
        Ok(ResolvedImage {
            reference: name,
            manifest: "sha256:0".to_owned(),
            config: config.as_bytes().to_vec(),
            source: ImageSource::Registry,
        })
    }
}

fn options(target: Option<&str>) -> LowerOptions {
    LowerOptions {
        target: target.map(str::to_owned),
        build_args: BTreeMap::from([("TAG".to_owned(), "latest".to_owned())]),
        ..LowerOptions::new(Platform::linux("amd64"))
    }
}

fn check(text: &str, ignore: Option<&str>, target: Option<&str>) -> Vec<String> {
    let source = SourceFile::new("Dockerfile", text.as_bytes());
    let dockerfile = crate::parse::parse(&source).expect(text);
    let options = options(target);
    let levels = levels(&dockerfile, &options.build_args).expect(text);
    let mut report = Report::new(levels);
    check_file(&source, &dockerfile, &mut report);
    let ignore = ignore.map(|text| IgnoreRules::parse(text).expect("valid rules"));
    let checks = Checks {
        report: &mut report,
        ignore: ignore.as_ref(),
        coverage: match target {
            None => Coverage::AllStages,
            Some(_) => Coverage::Target,
        },
    };
    lower_checked(&source, &dockerfile, &options, &Registry, checks).expect(text);
    report.by_line().iter().map(ToString::to_string).collect()
}

#[test]
fn the_examples_of_the_pages_are_right() {
    for rule in RULES {
        let (page, name) = (&rule.page, rule.name);
        let bad = check(page.bad, page.ignore, None);
        assert_eq!(bad.len(), 1, "{name}: {bad:?}");
        assert!(bad[0].starts_with(&format!("{name}: ")), "{bad:?}");
        assert_eq!(check(page.good, page.ignore, None), [""; 0], "{name}");
        let skipped = format!("# check=skip={name}\n{}", page.bad);
        if rule.standing == Standing::Regular {
            assert_eq!(check(&skipped, page.ignore, None), [""; 0], "{name}");
        }
    }
}

#[test]
fn the_pages_of_the_repository_are_those_of_the_rules() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/rules");
    let pages = RULES.map(|rule| (format!("{}.md", rule.slug), rule.page()));
    #[expect(
        clippy::disallowed_methods,
        reason = "the way to write files that tests compare anew"
    )]
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(&folder).expect("a folder");
        for (name, page) in &pages {
            fs::write(folder.join(name), page).expect(name);
        }
    }
    for (name, page) in &pages {
        let written = fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert_eq!(
            written, *page,
            "docs/rules/{name}: run with UPDATE_GOLDEN=1"
        );
    }
    assert_eq!(
        fs::read_dir(&folder).expect("a folder").count(),
        pages.len()
    );
}

#[test]
fn comments_above_an_instruction_take_rules_out() {
    let text = "FROM scratch AS a\n# check=skip=JSONArgsRecommended\nCMD x\n\
                # check=skip=DuplicateStageName,StageNameCasing\nFROM scratch AS A\nLABEL a b\n";
    assert_eq!(
        check(text, None, None),
        [
            "DuplicateStageName: Duplicate stage name \"a\", stage names should be unique (line 5)",
            "LegacyKeyValueFormat: \"LABEL key=value\" should be used instead of legacy \"LABEL key value\" \
             format (line 6)"
        ]
    );
}

#[test]
fn a_target_limits_what_is_checked_but_not_the_text() {
    let text = "FROM scratch as a\nLABEL x=$Y\nFROM scratch as b\nCMD z\n";
    assert_eq!(
        check(text, None, Some("a")),
        [
            "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)",
            "UndefinedVar: Usage of undefined variable '$Y' (line 2)",
            "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 3)",
        ]
    );
}

#[test]
fn variables_count_where_they_are_expanded() {
    let text = "FROM scratch\nARG A B=$A C=$DIRECTORY\nENV PTH=/x\nCOPY --chown=$USERNAME <<X <<'Y' /$PTHS\n$ZONES\nX\n$QUOTED\nY\n\
                RUN echo $R\nEXPOSE $P 80\nONBUILD ENV $O=1\n";
    let found = check(text, None, None);
    let names: Vec<&str> = found
        .iter()
        .filter_map(|line| line.strip_prefix("UndefinedVar: Usage of undefined variable "))
        .collect();
    assert_eq!(
        names,
        [
            "'$DIRECTORY' (line 2)",
            "'$USERNAME' (line 4)",
            "'$PTHS' (did you mean $PTH?) (line 4)",
            "'$ZONES' (line 4)"
        ]
    );
}

#[test]
fn blank_lines_are_told_apart_from_heredocs() {
    let text = "FROM scratch\nCOPY <<A \\\n\n  /a\n\nx\nA\n";
    assert_eq!(
        check(text, None, None),
        ["NoEmptyContinuation: Empty continuation line (line 4)"]
    );
}
