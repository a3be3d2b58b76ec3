/* Between one process and its disk: writes down every call that changes a file below a folder, and fails some.
 *
 * Preloaded into a real custodian (LD_PRELOAD). Call and note are made under one lock, so that the order of the
 * notes is the order of the calls. Notes go to CLOISTER_SHIM_LOG, one record each (diskshim.py reads them); what is
 * to fail stands in CLOISTER_SHIM_CONTROL, which the drill changes while the process runs. Files whose name ends in
 * -shm are left alone: sqlite makes them anew after a power cut.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES 4096
#define NAME 64

struct control {         /* diskshim.py: _CONTROL */
    uint32_t writes_ppm; /* how many of a million writes fail */
    uint32_t syncs_ppm;  /* how many of a million fsync and fdatasync fail */
    uint32_t sync_in;    /* the n-th sync from now fails, once; 0: none */
    uint32_t error;      /* errno of what fails */
    uint32_t read_only;  /* 1: every change fails */
    uint32_t seed;
    uint32_t failed_writes;
    uint32_t failed_syncs;
    char only[NAME];     /* only files whose name ends in this; empty: all */
};

struct record {
    uint8_t op, ok;
    uint16_t reserved;
    int32_t fd;
    uint64_t at;
    uint32_t length;
} __attribute__((packed));

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct control *control;
static const char *root;
static size_t root_length;
static int log_fd = -1;
static char names[FILES][NAME]; /* the end of the name of each file we watch, empty for all others */

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    const char *log = getenv("CLOISTER_SHIM_LOG"), *settings = getenv("CLOISTER_SHIM_CONTROL");
    root = getenv("CLOISTER_SHIM_ROOT");
    if (!log || !settings || !root) { root = NULL; return; }
    int fd = REAL(open64)(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    log_fd = fcntl(fd, F_DUPFD_CLOEXEC, 1000);
    REAL(close)(fd);
    fd = REAL(open64)(settings, O_RDWR | O_CLOEXEC);
    control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    REAL(close)(fd);
    if (log_fd < 0 || control == MAP_FAILED) abort();
    root_length = strlen(root);
}

static void note(char op, int ok, int fd, uint64_t at, const void *data, size_t length) {
    struct record head = {op, ok, 0, fd, at, length};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)data, length}};
    if (log_fd >= 0 && REAL(writev)(log_fd, parts, 2) != (ssize_t)(sizeof head + length)) abort();
}

static int watched_path(const char *path) {
    if (!root || !path || strncmp(path, root, root_length)) return 0;
    size_t length = strlen(path);
    return length < 4 || strcmp(path + length - 4, "-shm");
}

static int watched(int fd) { return root && fd >= 0 && fd < FILES && names[fd][0]; }

static int meant(const char *name) {
    size_t length = strlen(name), want = strlen(control->only);
    return !want || (length >= want && !strcmp(name + length - want, control->only));
}

static int drawn(uint32_t ppm) { /* xorshift: the same seed and calls, the same faults */
    uint32_t x = control->seed ? control->seed : 1;
    x ^= x << 13; x ^= x >> 17; x ^= x << 5;
    control->seed = x;
    return x % 1000000 < ppm;
}

static int write_fails(const char *name) {
    if (!meant(name) || !(control->read_only || drawn(control->writes_ppm))) return 0;
    control->failed_writes++;
    errno = control->error;
    return 1;
}

static int sync_fails(const char *name) {
    if (!meant(name)) return 0;
    int due = control->sync_in && --control->sync_in == 0;
    if (!due && !drawn(control->syncs_ppm)) return 0;
    control->failed_syncs++;
    errno = control->error;
    return 1;
}

static int opened(int (*call)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    if (!watched_path(path)) return call(path, flags, mode);
    pthread_mutex_lock(&lock);
    int changes = flags & (O_CREAT | O_TRUNC) && flags & (O_WRONLY | O_RDWR);
    int fd = changes && control->read_only && write_fails(path) ? -1 : call(path, flags, mode);
    int saved = errno;
    if (fd >= 0 && fd < FILES) {
        size_t length = strlen(path);
        strcpy(names[fd], length < NAME ? path : path + length - NAME + 1);
        note('O', 1, fd, flags, path, length);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return fd;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; va_end(rest); \
        return opened((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name), path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    if (!watched(fd)) return REAL(close)(fd);
    pthread_mutex_lock(&lock);
    names[fd][0] = 0;
    note('C', 1, fd, 0, NULL, 0);
    int result = REAL(close)(fd), saved = errno;
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

#define WRITE(name, parameters, arguments, where) \
    ssize_t name parameters { \
        __typeof__(&name) call = (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
        if (!watched(fd)) return call arguments; \
        pthread_mutex_lock(&lock); \
        uint64_t at = where; \
        ssize_t result = write_fails(names[fd]) ? -1 : call arguments; \
        int saved = errno; \
        if (result > 0) note('W', 1, fd, at, data, result); \
        pthread_mutex_unlock(&lock); \
        errno = saved; \
        return result; \
    }
WRITE(write, (int fd, const void *data, size_t length), (fd, data, length), lseek(fd, 0, SEEK_CUR))
WRITE(pwrite, (int fd, const void *data, size_t length, off_t off), (fd, data, length, off), off)
WRITE(pwrite64, (int fd, const void *data, size_t length, off64_t off), (fd, data, length, off), off)

#define SYNC(name) \
    int name(int fd) { \
        __typeof__(&name) call = (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
        if (!watched(fd)) return call(fd); \
        pthread_mutex_lock(&lock); \
        int result = sync_fails(names[fd]) ? -1 : call(fd), saved = errno; \
        note('S', result == 0, fd, 0, NULL, 0); \
        pthread_mutex_unlock(&lock); \
        errno = saved; \
        return result; \
    }
SYNC(fsync)
SYNC(fdatasync)

#define TRUNCATE(name, type) \
    int name(int fd, type size) { \
        __typeof__(&name) call = (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
        if (!watched(fd)) return call(fd, size); \
        pthread_mutex_lock(&lock); \
        int result = write_fails(names[fd]) ? -1 : call(fd, size), saved = errno; \
        if (result == 0) note('T', 1, fd, size, NULL, 0); \
        pthread_mutex_unlock(&lock); \
        errno = saved; \
        return result; \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

int rename(const char *from, const char *to) {
    if (!watched_path(to)) return REAL(rename)(from, to);
    pthread_mutex_lock(&lock);
    int result = control->read_only && write_fails(to) ? -1 : REAL(rename)(from, to), saved = errno;
    char both[8192];
    if (result == 0) note('R', 1, -1, strlen(from), both, snprintf(both, sizeof both, "%s%s", from, to));
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

int unlink(const char *path) {
    if (!watched_path(path)) return REAL(unlink)(path);
    pthread_mutex_lock(&lock);
    int result = control->read_only && write_fails(path) ? -1 : REAL(unlink)(path), saved = errno;
    if (result == 0) note('U', 1, -1, 0, path, strlen(path));
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}
