//! Signal names (`moby/sys/signal`, Linux).

/// Names without `SIG`; `RTMIN+n` and `RTMAX-n` are computed.
const NAMES: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

/// Whether STOPSIGNAL takes a text: a number other than 0, or a name in any case, with or without `SIG`.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix: &str, last: u8| {
        name.strip_prefix(prefix)
            .filter(|digits| !digits.starts_with('0'))
            .and_then(|digits| digits.parse::<u8>().ok())
            .is_some_and(|number| (1..=last).contains(&number))
    };
    NAMES.contains(&name) || offset("RTMIN+", 15) || offset("RTMAX-", 14)
}

#[cfg(test)]
mod tests {
    use super::is_signal;

    #[test]
    fn knows_signals() {
        for text in [
            "9",
            "SIGINT",
            "int",
            "sigterm",
            "SIGRTMIN+3",
            "RTMAX-14",
            "64",
        ] {
            assert!(is_signal(text), "{text}");
        }
        for text in ["0", "SIGNOPE", "", "RTMIN+16", "RTMIN+03", "EMT"] {
            assert!(!is_signal(text), "{text}");
        }
    }
}
