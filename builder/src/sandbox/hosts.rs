//! Contents of `/etc/hosts` and `/etc/resolv.conf` as a command sees them.

use super::spec::Network;

/// The files that every command finds mounted in its root, one after the other.
pub const SYSTEM_FILES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];

/// The hosts file of BuildKit, plus `--add-host` lines.
pub(super) fn hosts_file(hostname: &str, extra: &[(String, String)]) -> Vec<u8> {
    let mut text =
        format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in extra {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text.into_bytes()
}

/// What a command's resolv.conf holds, given the host's.
///
/// With the host's network the file is taken as it is. Otherwise a server on the host's loopback cannot be reached: those lines
/// are dropped, and public servers stand in if none is left (BuildKit's rule).
pub fn resolv_conf(host: &[u8], network: Network) -> Vec<u8> {
    match network {
        Network::Host => host.to_vec(),
        Network::None => without_loopback(&String::from_utf8_lossy(host)),
    }
}

fn without_loopback(host: &str) -> Vec<u8> {
    let mut text = String::new();
    let mut has_server = false;
    for line in host.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver") {
            let address = words.next().unwrap_or_default();
            if address.starts_with("127.") || address == "::1" {
                continue;
            }
            has_server = true;
        }
        text.push_str(line);
        text.push('\n');
    }
    if !has_server {
        text.push_str("nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let extra = [("db".to_owned(), "10.1.2.3".to_owned())];
        assert_eq!(
            hosts_file("box", &extra),
            b"127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n10.1.2.3\tdb\n"
        );
    }

    #[test]
    fn loopback_servers_are_dropped_without_the_hosts_network() {
        let host = b"search x\nnameserver 127.0.0.53\nnameserver 10.0.0.1\n";
        assert_eq!(resolv_conf(host, Network::Host), host);
        assert_eq!(
            resolv_conf(host, Network::None),
            b"search x\nnameserver 10.0.0.1\n"
        );
        assert_eq!(
            resolv_conf(b"nameserver ::1\n", Network::None),
            b"nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
        );
    }
}
