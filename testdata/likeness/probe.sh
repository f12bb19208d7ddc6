# Prints what a step sees of its sandbox, one section per subject.
section() { echo "== $1"; }

section mounts
sed 's/^[^ ]* [^ ]* [^ ]* [^ ]* \([^ ]*\) \([^ ]*\) .*- \([^ ]*\) .*/\1 \3 \2/' /proc/self/mountinfo | sort -u
section devices
(cd /dev && find . ! -path './pts/*' -exec stat -c '%n %A %u:%g %t:%T' {} + | sort)
for name in fd stdin stdout stderr ptmx; do echo "$name $(readlink /dev/$name)"; done
section limits
cat /proc/self/limits
section status
grep -E '^(Umask|Uid|Gid|Cap|NoNewPrivs|Seccomp|Sig(Blk|Ign|Cgt)|Shd|Thread)' /proc/1/status
umask
section ids
cat /proc/1/uid_map /proc/1/gid_map /proc/1/setgroups
section process
echo "pid $$, pids in its group and session: $(cut -d' ' -f5,6,7,8 /proc/1/stat)"
cat /proc/1/oom_score_adj /proc/1/timerslack_ns /proc/1/personality /proc/1/coredump_filter
ls /proc/1/fd > /tmp/descriptors
echo $(cat /tmp/descriptors)
readlink /proc/1/fd/0 | cut -d: -f1
cat | wc -c
(: < /dev/tty) 2> /dev/null && echo 'a terminal' || echo 'no terminal'
section environment
tr '\0' '\n' < /proc/1/environ | sort
section names
hostname
cat /proc/sys/kernel/domainname /etc/hosts /etc/resolv.conf
cat /etc/hostname 2>&1
date +%Z
pwd
section masked
for path in /proc/acpi /proc/asound /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats \
    /proc/sched_debug /proc/scsi /proc/interrupts /sys/firmware /sys/devices/virtual/powercap /sys/fs/selinux; do
    if [ -d $path ]; then echo "$path: $(ls $path | wc -l) entries"
    elif [ -e $path ]; then echo "$path: $(head -c 10 $path | wc -c) bytes"
    else echo "$path: none"; fi
done
section read-only
for path in /proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger /sys /sys/kernel /etc/hosts /etc/resolv.conf; do
    if [ -d $path ]; then (: > $path/new) 2>&1; else (: >> $path) 2>&1; fi | sed 's/.*: //'
done
section network
ls /sys/class/net
section init
sh -c 'sleep 0.1 & exec true'
sleep 0.3
cut -d' ' -f2,3,4 /proc/[0-9]*/stat 2> /dev/null | grep sleep
kill -TERM 1
kill -KILL 1
echo 'still here'
section root
ls -A /
stat -c '%n %A %u:%g' / /dev /proc /sys /etc/hosts /etc/resolv.conf /dev/shm /dev/mqueue /dev/pts
