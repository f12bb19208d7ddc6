/* Attacks on the host, one a verb. Prints REACHED and what was reached, or what was refused and why. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

static int refused(const char *what) {
    printf("refused %s: %s\n", what, strerror(errno));
    return 0;
}

static int reached(const char *what) {
    printf("REACHED %s\n", what);
    return 0;
}

static int show(int fd, const char *what) {
    char text[64] = {0};
    ssize_t length = read(fd, text, 12);
    if (length <= 0) return refused(what);
    text[strcspn(text, "\n")] = 0;
    return reached(text);
}

/* A block device by number, through a node of one's own. */
static int device(char **arg) {
    const char *path = arg[2];
    if (mknod(path, S_IFBLK | 0600, makedev(atoi(arg[0]), atoi(arg[1])))) return refused("mknod");
    int fd = open(path, O_RDONLY);
    int code = fd < 0 ? refused("open") : show(fd, "read");
    unlink(path);
    return code;
}

/* A key of the session that the builder was started in. */
static int keyring(char **arg) {
    char text[64] = {0};
    long id = syscall(SYS_keyctl, 10 /* SEARCH */, -3, "user", arg[0], 0);
    if (id < 0) return refused("keyctl search");
    if (syscall(SYS_keyctl, 11 /* READ */, id, text, sizeof text - 1) < 0) return refused("keyctl read");
    return reached(text);
}

/* Runs a program in a new session keyring with a key. */
static int with_key(char **arg) {
    if (syscall(SYS_keyctl, 1 /* JOIN_SESSION_KEYRING */, NULL) < 0) return refused("join");
    if (syscall(SYS_add_key, "user", arg[0], arg[1], strlen(arg[1]), -3) < 0) return refused("add_key");
    execv(arg[2], arg + 2);
    return refused("exec");
}

static int user_namespace(void) {
    if (unshare(CLONE_NEWUSER)) return refused("unshare");
    return reached("a user namespace");
}

static int trace(char **arg) {
    char path[64];
    int pid = atoi(arg[0]);
    snprintf(path, sizeof path, "/proc/%d/environ", pid);
    int fd = open(path, O_RDONLY);
    if (fd >= 0 && pid != getpid()) return show(fd, "environ");
    if (ptrace(PTRACE_SEIZE, pid, 0, 0)) return refused("ptrace");
    return reached("a process");
}

/* Open descriptors beside the three standard ones and the listing itself. */
static int descriptors(void) {
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    int count = 0;
    if (!dir) return refused("list");
    while ((entry = readdir(dir))) {
        int fd = atoi(entry->d_name);
        if (fd > 2 && fd != dirfd(dir)) count++;
    }
    if (count) return reached("descriptors");
    errno = ENOENT;
    return refused("descriptors");
}

/* A file of the host from where this process was put. */
static int climb(char **arg) {
    char path[4200];
    snprintf(path, sizeof path, "../../../../../../../../../../../..%s", arg[0]);
    int fd = open(path, O_RDONLY);
    return fd < 0 ? refused("open") : show(fd, "read");
}

/* What a sandbox that leaks a directory of the host would be: a chroot with that directory as working directory. */
static int leak(char **arg) {
    int fd = open("/", O_RDONLY | O_DIRECTORY);
    if (fd < 0 || chroot(arg[0]) || fchdir(fd)) return refused("chroot");
    return climb(arg + 1);
}

static int abstract(char **arg) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    size_t length = strlen(arg[0]);
    memcpy(name.sun_path + 1, arg[0], length);
    if (connect(fd, (void *)&name, offsetof(struct sockaddr_un, sun_path) + 1 + length)) return refused("connect");
    return reached("a socket");
}

static int loopback(char **arg) {
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(atoi(arg[0]))};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (void *)&name, sizeof name)) return refused("connect");
    return reached("a socket");
}

/* Any file by its number, past all directories. */
static int handle(char **arg) {
    char space[sizeof(struct file_handle) + 128];
    struct file_handle *handle = (void *)space;
    int mount_id, fd = open(arg[0], O_RDONLY);
    handle->handle_bytes = 128;
    if (fd < 0 || name_to_handle_at(AT_FDCWD, arg[0], handle, &mount_id, 0)) return refused("name_to_handle_at");
    if (open_by_handle_at(fd, handle, O_RDONLY) < 0) return refused("open_by_handle_at");
    return reached("a file by its handle");
}

static int mounts(void) {
    mkdir("/attack-mount", 0700);
    int code = mount("none", "/attack-mount", "tmpfs", 0, NULL);
    if (code) refused("mount"); else reached("mount");
    if (!code) umount("/attack-mount");
    rmdir("/attack-mount");
    if (mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL)) refused("remount"); else reached("remount");
    if (umount2("/proc/keys", MNT_DETACH)) refused("unmask"); else reached("unmask");
    return 0;
}

int main(int count, char **arg) {
    const char *verb = count > 1 ? arg[1] : "";
    setbuf(stdout, NULL);
    arg += 2;
    if (!strcmp(verb, "device")) return device(arg);
    if (!strcmp(verb, "keyring")) return keyring(arg);
    if (!strcmp(verb, "with-key")) return with_key(arg);
    if (!strcmp(verb, "user-namespace")) return user_namespace();
    if (!strcmp(verb, "trace")) return trace(arg);
    if (!strcmp(verb, "descriptors")) return descriptors();
    if (!strcmp(verb, "climb")) return climb(arg);
    if (!strcmp(verb, "leak")) return leak(arg);
    if (!strcmp(verb, "abstract")) return abstract(arg);
    if (!strcmp(verb, "loopback")) return loopback(arg);
    if (!strcmp(verb, "handle")) return handle(arg);
    if (!strcmp(verb, "mounts")) return mounts();
    return 64;
}
