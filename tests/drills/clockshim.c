/* Between one process and its clocks: shows a time that is off, and off by more each second, as a drill wants it.
 *
 * Preloaded into a real process (LD_PRELOAD). What is shown is the true time plus
 *     delta + (true monotonic time - anchor) * (rate - 1)
 * on the wall clock, and on every other clock too where all_clocks is set. CLOISTER_CLOCK_CONTROL names the settings,
 * which the drill changes while the process runs; two of them, so that a half-written one is never read.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct setting {      /* clockshim.py: _SETTING */
    int64_t delta_ns;
    int64_t anchor_ns;
    double rate;
    int64_t all_clocks;
};

struct control {
    volatile int64_t which;
    struct setting settings[2];
};

static struct control *control;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("CLOISTER_CLOCK_CONTROL");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *found = mmap(NULL, sizeof *control, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (found == MAP_FAILED) abort();
    control = found;
}

int clock_gettime(clockid_t clock, struct timespec *shown) {
    if (!real) begin();
    int result = real(clock, shown);
    if (result || !control) return result;
    int wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
    int other = clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_RAW || clock == CLOCK_MONOTONIC_COARSE ||
                clock == CLOCK_BOOTTIME;
    struct setting *now = &control->settings[control->which];
    if (!wall && !(other && now->all_clocks)) return 0;
    struct timespec mono;
    real(CLOCK_MONOTONIC, &mono);
    int64_t since = mono.tv_sec * 1000000000LL + mono.tv_nsec - now->anchor_ns;
    int64_t at = shown->tv_sec * 1000000000LL + shown->tv_nsec + now->delta_ns + (int64_t)(since * (now->rate - 1.0));
    shown->tv_sec = at / 1000000000LL;
    shown->tv_nsec = at % 1000000000LL;
    return 0;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict shown, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    shown->tv_sec = now.tv_sec;
    shown->tv_usec = now.tv_nsec / 1000;
    return 0;
}
