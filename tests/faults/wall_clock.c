/* Preloaded into a process: its wall clock is the real one plus the seconds in the file $WALL_CLOCK (a native int64), at once when the file
   changes. CLOCK_MONOTONIC and all sleeping are left alone, as no one who sets a clock can touch them. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *offset;

__attribute__((constructor)) static void open_clock(void) {
    const char *path = getenv("WALL_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (file >= 0) close(file);
    if (page != MAP_FAILED) offset = page;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec it;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &it)) return -1;
    now->tv_sec = it.tv_sec;
    now->tv_usec = it.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec it;
    clock_gettime(CLOCK_REALTIME, &it);
    if (where) *where = it.tv_sec;
    return it.tv_sec;
}
