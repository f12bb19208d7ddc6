//! What limits are in the two languages of cgroups. Pure.

use super::spec::Resources;

/// Files and values.
pub(super) type Writes = Vec<(&'static str, String)>;

/// One limit, in both languages.
pub(super) struct Setting {
    pub(super) controller: &'static str,
    pub(super) legacy: Writes,
    pub(super) unified: Writes,
}

/// Every limit that is set, in the order its files have to be written.
pub(super) fn settings(resources: &Resources) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut add = |controller, legacy, unified| {
        settings.push(Setting {
            controller,
            legacy,
            unified,
        });
    };
    if let Some(memory) = resources.memory {
        add(
            "memory",
            vec![("memory.limit_in_bytes", memory.to_string())],
            vec![("memory.max", memory.to_string())],
        );
    }
    if let Some(both) = resources.memory_swap {
        // v2 counts swap alone.
        let swap = u64::try_from(both).map_or_else(
            |_unlimited| "max".to_owned(),
            |both| {
                both.saturating_sub(resources.memory.unwrap_or(0))
                    .to_string()
            },
        );
        add(
            "memory",
            vec![("memory.memsw.limit_in_bytes", both.to_string())],
            vec![("memory.swap.max", swap)],
        );
    }
    if let Some(shares) = resources.cpu_shares {
        // The usual conversion of [2, 262144] to [1, 10000].
        let weight = 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
        add(
            "cpu",
            vec![("cpu.shares", shares.to_string())],
            vec![("cpu.weight", weight.to_string())],
        );
    }
    if resources.cpu_quota.is_some() || resources.cpu_period.is_some() {
        let period = resources.cpu_period.unwrap_or(100_000);
        let quota = resources.cpu_quota.filter(|quota| *quota > 0);
        let text = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        add(
            "cpu",
            vec![
                ("cpu.cfs_period_us", period.to_string()),
                ("cpu.cfs_quota_us", quota.unwrap_or(-1).to_string()),
            ],
            vec![("cpu.max", format!("{text} {period}"))],
        );
    }
    for (file, value) in [
        ("cpuset.cpus", &resources.cpuset_cpus),
        ("cpuset.mems", &resources.cpuset_mems),
    ] {
        if let Some(value) = value {
            let write = vec![(file, value.clone())];
            add("cpuset", write.clone(), write);
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_in_both_languages() {
        let resources = Resources {
            memory: Some(1000),
            memory_swap: Some(1500),
            cpu_shares: Some(1024),
            cpu_period: None,
            cpu_quota: Some(50_000),
            cpuset_cpus: Some("0-1".into()),
            cpuset_mems: None,
        };
        let settings = settings(&resources);
        let unified: Vec<_> = settings
            .iter()
            .flat_map(|setting| &setting.unified)
            .collect();
        let text = |writes: Vec<&(&str, String)>| {
            writes
                .iter()
                .map(|(file, value)| format!("{file}={value}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            text(unified),
            [
                "memory.max=1000",
                "memory.swap.max=500",
                "cpu.weight=39",
                "cpu.max=50000 100000",
                "cpuset.cpus=0-1"
            ]
        );
        let legacy = settings
            .iter()
            .flat_map(|setting| &setting.legacy)
            .collect();
        assert_eq!(
            text(legacy),
            [
                "memory.limit_in_bytes=1000",
                "memory.memsw.limit_in_bytes=1500",
                "cpu.shares=1024",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "cpuset.cpus=0-1"
            ]
        );
    }
}
