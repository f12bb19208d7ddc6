//! Private keys of ssh as files: what can be said of one before it is used.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Larger files are no keys, in bytes: BuildKit's limit.
pub const MOST_BYTES: u64 = 100 * 1024;

/// What begins a key in OpenSSH's own format, before its cipher's name (`PROTOCOL.key` of OpenSSH).
const MAGIC: &[u8] = b"openssh-key-v1\0";

/// Why a file cannot serve as a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It holds no private key.
    #[error("it holds no private key")]
    NoKey,
    /// Nobody is there to ask for the passphrase.
    #[error("the key is protected by a passphrase")]
    Passphrase,
}

/// Whether a file's bytes are a private key that can be used without a passphrase, as far as its frame tells.
///
/// # Errors
///
/// They are none, or a passphrase is needed.
pub fn check(bytes: &[u8]) -> Result<(), Unusable> {
    let text = std::str::from_utf8(bytes).map_err(|_binary| Unusable::NoKey)?;
    let mut lines = text.lines().map(str::trim);
    let begins = |line: &str| line.starts_with("-----BEGIN ") && line.ends_with("PRIVATE KEY-----");
    let first = lines
        .by_ref()
        .find(|line| begins(line))
        .ok_or(Unusable::NoKey)?;
    let body: Vec<&str> = lines
        .take_while(|line| !line.starts_with("-----"))
        .collect();
    // PKCS #8 says so in its name, the older formats in a header (RFC 1421).
    let is_protected = match first.contains("OPENSSH") {
        true => cipher(&body.concat()).ok_or(Unusable::NoKey)? != b"none",
        false => first.contains("ENCRYPTED") || body.iter().any(|line| line.contains(",ENCRYPTED")),
    };
    match is_protected {
        true => Err(Unusable::Passphrase),
        false => Ok(()),
    }
}

/// The name of the cipher of a key in OpenSSH's own format.
fn cipher(base64: &str) -> Option<Vec<u8>> {
    let bytes = STANDARD.decode(base64).ok()?;
    let (length, rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    rest.get(..length).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn openssh(cipher: &[u8]) -> String {
        let length = u32::try_from(cipher.len()).unwrap().to_be_bytes();
        let body = STANDARD.encode([MAGIC, &length, cipher, b"rest"].concat());
        let (begin, end) = body.split_at(20);
        format!(
            "-----BEGIN OPENSSH PRIVATE KEY-----\n{begin}\n{end}\n-----END OPENSSH PRIVATE KEY-----\n"
        )
    }

    #[test]
    fn keys_are_told_from_what_is_none_and_from_what_is_locked() {
        let pem = |name: &str, body: &str| {
            format!("-----BEGIN {name}-----\n{body}\n-----END {name}-----\n")
        };
        let locked = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA";
        let cases = [
            (openssh(b"none"), Ok(())),
            (openssh(b"none").replace('\n', "\r\n"), Ok(())),
            (openssh(b"aes256-ctr"), Err(Unusable::Passphrase)),
            (pem("RSA PRIVATE KEY", "AAAA"), Ok(())),
            (pem("PRIVATE KEY", "AAAA"), Ok(())),
            (pem("RSA PRIVATE KEY", locked), Err(Unusable::Passphrase)),
            (
                pem("ENCRYPTED PRIVATE KEY", "AAAA"),
                Err(Unusable::Passphrase),
            ),
            (pem("OPENSSH PRIVATE KEY", "AAAA"), Err(Unusable::NoKey)),
            (pem("PUBLIC KEY", "AAAA"), Err(Unusable::NoKey)),
            ("ssh-ed25519 AAAA me".to_owned(), Err(Unusable::NoKey)),
            (String::new(), Err(Unusable::NoKey)),
        ];
        for (text, want) in cases {
            assert_eq!(check(text.as_bytes()), want, "{text}");
        }
        assert_eq!(check(&[0xff, 0xfe]), Err(Unusable::NoKey));
    }
}
