// SPDX-License-Identifier: Apache-2.0
#include "lock.h"

#include "log.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

struct sago_run_lock {
    int fd;
};

static sago_status fail_busy(int fd, const char *dir) {
    char holder[256];
    ssize_t got = pread(fd, holder, sizeof holder - 1, 0);
    holder[got > 0 ? got : 0] = '\0';
    holder[strcspn(holder, "\n")] = '\0';
    return sago_fail(SAGO_E_BUSY, "%s: in use by %s; wait for it to end, or choose another run.dir", dir,
                     holder[0] ? holder : "another process");
}

static void write_holder(int fd) {
    char host[128] = "?", text[256];
    gethostname(host, sizeof host - 1);
    int length = snprintf(text, sizeof text, "process %ld on host %s\n", (long)getpid(), host);
    /* The text only informs: where it can't be written (a full disk), the lock holds all the same. */
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)length, 0) != length)
        sago_warn("the lock file of the run could not be filled in: %s", strerror(errno));
}

sago_status sago_run_lock_take(const char *dir, sago_run_lock **out) {
    *out = NULL;
    char *path = sago_path_join(dir, ".lock");
    sago_status status = SAGO_OK;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) {
        status = sago_fail_errno(SAGO_E_IO, "%s: cannot write", path);
    } else if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            status = fail_busy(fd, dir);
        else /* a file system without locks: better to run unprotected than not at all */
            sago_warn(
                "%s: no locks on this file system (%s); make sure that one process at a time uses the run",
                dir, strerror(errno));
    }
    free(path);
    if (status != SAGO_OK) {
        if (fd >= 0) close(fd);
        return status;
    }
    write_holder(fd);
    *out = sago_alloc(sizeof **out);
    (*out)->fd = fd;
    return SAGO_OK;
}

void sago_run_lock_release(sago_run_lock *lock) {
    if (!lock) return;
    if (ftruncate(lock->fd, 0) != 0) errno = 0; /* the next holder writes its own name over it */
    close(lock->fd);
    free(lock);
}
