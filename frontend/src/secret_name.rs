//! Names of variables whose values should not be shown.
//!
//! Wider than BuildKit's check `SecretsUsedInArgOrEnv`, whose list is part of its behaviour: what is hidden too often costs a
//! glance at the Dockerfile, what is shown once cannot be taken back.

/// Whether a name is that of something whose value should not be shown.
pub fn looks_secret(name: &str) -> bool {
    const WORDS: [&str; 12] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "pass",
        "passphrase",
        "password",
        "passwd",
        "pat",
        "secret",
        "token",
    ];
    let name = name.to_ascii_lowercase();
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| WORDS.contains(&word) || word.ends_with("password") || word.ends_with("token"))
}

#[cfg(test)]
mod tests {
    use super::looks_secret;

    #[test]
    fn names_of_secrets_are_known() {
        for name in [
            "NPM_TOKEN",
            "db-password",
            "variable AUTH",
            "GITHUB_PAT",
            "MYPASSWORD",
        ] {
            assert!(looks_secret(name), "{name}");
        }
        for name in ["VERSION", "KEYBOARD", "AUTHOR", "PATH"] {
            assert!(!looks_secret(name), "{name}");
        }
    }
}
