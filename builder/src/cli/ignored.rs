//! `builder ignored`: which rule of the ignore file decides about a path.

use std::io;
use std::path::{Path, PathBuf};

use frontend::ignore::IgnoreRules;

use super::args::IgnoredArgs;
use crate::outcome::{Failure, FailureKind};

/// One line a path: the path, whether it is ignored, and the rule.
pub(super) fn explain(args: &IgnoredArgs, cwd: &Path) -> Result<String, Failure> {
    let context = cwd.join(&args.context);
    if !context.is_dir() {
        let message = format!("path \"{}\" is not a directory", context.display());
        return Err(Failure::new(FailureKind::Usage, message));
    }
    let dockerfile = match &args.file {
        Some(file) => cwd.join(file),
        None => context.join("Dockerfile"),
    };
    let mut own = dockerfile.into_os_string();
    own.push(".dockerignore");
    let file = first([PathBuf::from(own), context.join(".dockerignore")])?;
    let mut text = String::new();
    for path in &args.paths {
        let relative = relative(path, &context, cwd)?;
        let verdict = verdict(file.as_ref(), &relative);
        text.push_str(&format!("{relative}\t{verdict}\n"));
    }
    Ok(text)
}

fn verdict(file: Option<&(String, IgnoreRules)>, path: &str) -> String {
    let Some((name, rules)) = file else {
        return "kept\tthere is no ignore file".to_owned();
    };
    match rules.decide(path) {
        None => format!("kept\tno rule of {name} matches"),
        Some(decision) => {
            let what = if decision.is_excluded {
                "ignored"
            } else {
                "kept"
            };
            format!("{what}\t{name}:{} (`{}`)", decision.line, decision.pattern)
        }
    }
}

/// The rules of the first file that exists, with its name.
fn first(paths: [PathBuf; 2]) -> Result<Option<(String, IgnoreRules)>, Failure> {
    for path in paths {
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                let message = format!("cannot read `{}`: {error}", path.display());
                return Err(Failure::new(FailureKind::Environment, message));
            }
        };
        let rules = IgnoreRules::parse(&String::from_utf8_lossy(&bytes))
            .map_err(|error| Failure::new(FailureKind::Dockerfile, crate::text::chain(&error)))?;
        let name = path.file_name().unwrap_or_default();
        return Ok(Some((name.to_string_lossy().into_owned(), rules)));
    }
    Ok(None)
}

/// A path as rules see it: relative to the context, without `.` and `..`. Relative ones are relative to the context
/// already.
fn relative(path: &str, context: &Path, cwd: &Path) -> Result<String, Failure> {
    let below = match Path::new(path).is_absolute() {
        false => path.to_owned(),
        true => {
            let roots = [context.to_owned(), cwd.join(context)];
            let found = roots
                .iter()
                .find_map(|root| Path::new(path).strip_prefix(root).ok());
            let found = found.ok_or_else(|| {
                let message = format!("`{path}` is not in the context `{}`", context.display());
                Failure::new(FailureKind::Usage, message)
            })?;
            found.to_string_lossy().into_owned()
        }
    };
    let clean = crate::op::copy::resolve::clean(below.as_bytes());
    Ok(String::from_utf8_lossy(&clean).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_its_rule() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let explain = |file: Option<&str>, paths: &[&str]| {
            let args = IgnoredArgs {
                context: ".".into(),
                file: file.map(PathBuf::from),
                paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            };
            explain(&args, dir.path()).map_err(|failure| failure.to_string())
        };
        assert_eq!(
            explain(None, &["a"]).unwrap(),
            "a\tkept\tthere is no ignore file\n"
        );
        std::fs::write(at(".dockerignore"), "# c\n\ndist\n!dist/keep\n").unwrap();
        let absolute = at("dist/x").display().to_string();
        assert_eq!(
            explain(None, &["dist/keep/a", "./dist/", &absolute, "src"]).unwrap(),
            "dist/keep/a\tkept\t.dockerignore:4 (`!dist/keep`)\n\
             dist\tignored\t.dockerignore:3 (`dist`)\n\
             dist/x\tignored\t.dockerignore:3 (`dist`)\n\
             src\tkept\tno rule of .dockerignore matches\n"
        );
        std::fs::write(at("x.df.dockerignore"), "").unwrap();
        assert_eq!(
            explain(Some("x.df"), &["dist"]).unwrap(),
            "dist\tkept\tno rule of x.df.dockerignore matches\n"
        );
        let outside = explain(None, &["/nowhere/x"]).unwrap_err();
        assert!(outside.starts_with("`/nowhere/x` is not in the context"));
    }
}
