// SPDX-License-Identifier: Apache-2.0
#include "cuda_library.h"

#include "ops.h"
#include "str.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const sago_cuda_entry *opened;

/* The first of the places that has the file; NULL: none has. */
static char *find(void) {
    /* Of the program, installed or not; then of a build folder's benchmarks and tests. */
    static const char *const places[] = {"", "../lib/sago/", "../", "../../"};
    const char *named = getenv("SAGO_CUDA_LIBRARY");
    if (named && named[0]) return sago_strdup(named);
    char folder[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", folder, sizeof folder - 1);
    if (length <= 0) return NULL;
    folder[length] = '\0';
    char *slash = strrchr(folder, '/');
    if (slash) slash[1] = '\0';
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        sago_str path = {0};
        sago_str_printf(&path, "%s%slibsago_cuda.so", folder, places[i]);
        char *found = access(sago_str_text(&path), F_OK) == 0 ? sago_strdup(sago_str_text(&path)) : NULL;
        sago_str_free(&path);
        if (found) return found;
    }
    return NULL;
}

static sago_status open_library(const char *path) {
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) return sago_fail(SAGO_E_DEVICE, "cuda: %s", dlerror());
    const sago_cuda_entry *entry = dlsym(handle, "sago_cuda_library_entry");
    if (!entry || strcmp(entry->version, SAGO_VERSION) != 0 || entry->ops_bytes != sizeof(sago_ops)) {
        dlclose(handle);
        return sago_fail(SAGO_E_DEVICE, "cuda: %s is not of this build of sago %s; build them together", path,
                         SAGO_VERSION);
    }
    opened = entry;
    return SAGO_OK;
}

sago_status sago_cuda_library(const sago_cuda_entry **out) {
    sago_status status = SAGO_OK;
    *out = NULL;
    pthread_mutex_lock(&lock);
    if (!opened) {
        char *path = find();
        status =
            path ? open_library(path)
                 : sago_fail(SAGO_E_DEVICE,
                             "cuda: this build has no libsago_cuda.so beside the program; build with a CUDA "
                             "toolkit (nvcc), or set SAGO_CUDA_LIBRARY");
        free(path);
    }
    *out = opened;
    pthread_mutex_unlock(&lock);
    return status;
}
