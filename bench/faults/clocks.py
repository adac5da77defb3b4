"""Wall clocks that can be stepped, of single processes of a site: a small library that is loaded before theirs adds an
offset, which stands in a file, to what the machine says. The machine's own clock is never touched.

Monotonic clocks go on as they are, as they do when a machine's clock is set.
"""

import os
import struct
import subprocess
from pathlib import Path
from shutil import which

from bench.failure import ScenarioError

COMPILER = "cc"
COMPILE_S = 60
VARIABLE = "STEPPED_CLOCK"
OFFSET = struct.Struct("q")
SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *offset;

__attribute__((constructor)) static void find_offset(void) {
    const char *path = getenv("STEPPED_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) offset = page;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, now);
    if (!status && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset;
    return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    int status = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return status;
}

time_t time(time_t *out) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (out) *out = precise.tv_sec;
    return precise.tv_sec;
}
"""


class Clocks:
    """The clocks of a site, by name. Its folder can be read by whoever runs the servers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._library = folder / "clock.so"

    def make(self, *names: str) -> None:
        """Compile the library, and set every clock right. Raises ScenarioError."""
        self._folder.mkdir(mode=0o711, exist_ok=True)
        source = self._folder / "clock.c"
        source.write_text(SOURCE)
        compiler = which(COMPILER)
        assert compiler is not None, "a row that needs it is not run without"
        done = subprocess.run(  # noqa: S603 - the compiler, on our own source
            [compiler, "-O2", "-shared", "-fPIC", "-o", str(self._library), str(source), "-ldl"],
            capture_output=True,
            text=True,
            timeout=COMPILE_S,
            check=False,
        )
        if done.returncode:
            raise ScenarioError(f"the library of the clocks cannot be compiled: {done.stderr.strip()}")
        self._library.chmod(0o755)
        for name in names:
            self.step(name, 0)

    def step(self, name: str, seconds: int) -> None:
        """So far is the clock from the machine's, from now on."""
        path = self._folder / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(descriptor, OFFSET.pack(seconds), 0)
        finally:
            os.close(descriptor)

    def environment(self, name: str) -> dict[str, str]:
        """What a process is told that has this clock."""
        return {"LD_PRELOAD": str(self._library), VARIABLE: str(self._folder / name)}
