/* A disk that misbehaves, for `tests/disk.rs`: preloaded into a process, it counts what is done to files below
 * $DISK_UNDER: half-way through each write, before and after each fsync and unlink. At event $DISK_KILL_AT the process
 * is killed there and then; from event $DISK_FULL_AT on, writes find no space. $DISK_COUNT names a file that is told how
 * many events there were. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long events;

static long setting(const char *name) {
    const char *value = getenv(name);
    return value ? atol(value) : 0;
}

static int is_below(const char *path) {
    const char *under = getenv("DISK_UNDER");
    return under && strncmp(path, under, strlen(under)) == 0;
}

static int is_ours(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

static long event(void) {
    long now = __atomic_add_fetch(&events, 1, __ATOMIC_SEQ_CST);
    if (now == setting("DISK_KILL_AT")) kill(getpid(), SIGKILL);
    return now;
}

ssize_t write(int file, const void *bytes, size_t count) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    if (!is_ours(file)) return real(file, bytes, count);
    size_t half = count / 2;
    ssize_t first = half ? real(file, bytes, half) : 0;
    if (first < 0) return first;
    long full = setting("DISK_FULL_AT");
    if (event() >= full && full) {
        errno = ENOSPC;
        return -1;
    }
    ssize_t rest = real(file, (const char *)bytes + first, count - first);
    return rest < 0 ? rest : first + rest;
}

int fsync(int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    int ours = is_ours(file);
    if (ours) event();
    int result = real(file);
    if (ours) event();
    return result;
}

int unlink(const char *path) {
    int (*real)(const char *) = dlsym(RTLD_NEXT, "unlink");
    int ours = is_below(path);
    if (ours) event();
    int result = real(path);
    if (ours) event();
    return result;
}

__attribute__((destructor)) static void tell(void) {
    const char *path = getenv("DISK_COUNT");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    fprintf(file, "%ld\n", events);
    fclose(file);
}
