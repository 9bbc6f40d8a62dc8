// SPDX-License-Identifier: Apache-2.0
#include "machine_checks.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

static const double gib = 1073741824.;

void sago_finding_add(json_t *findings, const char *name, const char *status, const char *remedy,
                      const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    json_array_append_new(findings, json_pack("{s:s, s:s, s:s, s:s}", "name", name, "status", status, "text",
                                              text, "remedy", strcmp(status, "ok") == 0 ? "" : remedy));
}

/* The value after "key ... :" of the first line of a /proc file that starts so; false when there is none. */
static bool proc_value(const char *path, const char *key, char *out, size_t bytes) {
    char line[1024];
    bool found = false;
    FILE *file = fopen(path, "r");
    if (!file) return false;
    while (!found && fgets(line, sizeof line, file)) {
        char *value = strchr(line, ':');
        if (strncmp(line, key, strlen(key)) != 0 || !value) continue;
        value += 1 + strspn(value + 1, " \t");
        value[strcspn(value, "\n")] = '\0';
        snprintf(out, bytes, "%s", value);
        found = true;
    }
    fclose(file);
    return found;
}

static bool first_line(const char *path, char *out, size_t bytes) {
    FILE *file = fopen(path, "r");
    if (!file) return false;
    bool found = fgets(out, (int)bytes, file) != NULL;
    if (found) out[strcspn(out, "\n")] = '\0';
    fclose(file);
    return found;
}

static void check_processor(json_t *findings) {
    char model[128] = "unknown processor";
    proc_value("/proc/cpuinfo", "model name", model, sizeof model);
    sago_finding_add(findings, "processor", "ok", "", "%s, %ld cores online", model,
                     sysconf(_SC_NPROCESSORS_ONLN));
    char sets[128] = "";
    const char *status = "ok", *remedy = "";
#if defined(__x86_64__)
    __builtin_cpu_init();
    static const char *const names[] = {"avx2", "fma", "avx512f", "avx512bf16"};
    bool has[4] = {__builtin_cpu_supports("avx2"), __builtin_cpu_supports("fma"),
                   __builtin_cpu_supports("avx512f"), __builtin_cpu_supports("avx512bf16")};
    for (int i = 0; i < 4; i++)
        if (has[i])
            snprintf(sets + strlen(sets), sizeof sets - strlen(sets), "%s%s", sets[0] ? ", " : "", names[i]);
    char flags[8192] = "";
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(flags, sizeof flags, file) && strncmp(flags, "flags", 5) != 0) {}
    if (file) fclose(file);
    if (strstr(flags, " amx_bf16")) strcat(sets, ", amx_bf16");
    if (!has[0] || !has[1]) {
        status = "warn";
        remedy = "it works, but several times slower than on a processor with AVX2 and FMA";
    }
#else
    snprintf(sets, sizeof sets, "not x86-64: the portable loops");
#endif
    sago_finding_add(findings, "instructions", status, remedy, "%s",
                     sets[0] ? sets : "none of avx2, fma, avx512f");
}

/* Memory that a control group leaves to this process, or a huge number. */
static double group_limit_bytes(void) {
    char text[64];
    if (first_line("/sys/fs/cgroup/memory.max", text, sizeof text) ||
        first_line("/sys/fs/cgroup/memory/memory.limit_in_bytes", text, sizeof text)) {
        double limit = strtod(text, NULL);
        if (limit > 0) return limit;
    }
    return 1e30;
}

static void check_memory(json_t *findings, int local_size) {
    char text[64];
    double total = 0, available = 0, limit = group_limit_bytes();
    if (proc_value("/proc/meminfo", "MemTotal", text, sizeof text)) total = strtod(text, NULL) * 1024;
    if (proc_value("/proc/meminfo", "MemAvailable", text, sizeof text)) available = strtod(text, NULL) * 1024;
    if (limit < total) total = limit;
    if (limit < available) available = limit;
    double each = available / local_size;
    sago_finding_add(findings, "memory", each < 2 * gib ? "warn" : "ok",
                     "a T5 small run wants about 2 GiB a rank: fewer ranks on this node, or a smaller "
                     "train.micro_batch with train.recompute",
                     "%.1f GiB, %.1f GiB available, %.1f GiB a rank", total / gib, available / gib,
                     each / gib);
}

static void check_threads(json_t *findings, int cores, int local_size) {
    cpu_set_t mine;
    CPU_ZERO(&mine);
    int bound = sched_getaffinity(0, sizeof mine, &mine) == 0 ? CPU_COUNT(&mine) : 1;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    char quota[64] = "";
    double of_quota = 0, period = 0;
    if (first_line("/sys/fs/cgroup/cpu.max", quota, sizeof quota) &&
        sscanf(quota, "%lf %lf", &of_quota, &period) == 2 && period > 0 &&
        of_quota / period < (double)cores * local_size) {
        sago_finding_add(findings, "threads", "warn",
                         "set threads so that ranks x threads stays within the quota",
                         "%d a rank, %d rank%s on this node, but a control group allows %.1f cores", cores,
                         local_size, local_size == 1 ? "" : "s", of_quota / period);
        return;
    }
    if (local_size > online)
        sago_finding_add(findings, "threads", "warn", "start at most as many ranks on a node as it has cores",
                         "%d ranks share %ld cores of this node", local_size, online);
    else if ((long)cores * local_size * 2 <= online)
        sago_finding_add(
            findings, "threads", "warn",
            "mpirun binds ranks to cores: give each more with --map-by slot:PE=N, or use --bind-to none",
            "%d a rank, so that %d of %ld cores are used (bound to %d)", cores, cores * local_size, online,
            bound);
    else
        sago_finding_add(findings, "threads", "ok", "", "%d a rank, %d rank%s on this node, %ld cores", cores,
                         local_size, local_size == 1 ? "" : "s", online);
}

static void check_disk(json_t *findings) {
    char folder[1024] = ".";
    struct statvfs disk;
    if (!getcwd(folder, sizeof folder)) snprintf(folder, sizeof folder, ".");
    if (statvfs(".", &disk) != 0) {
        sago_finding_add(findings, "disk", "warn", "run it from a folder that can be read", "%.200s: %s",
                         folder, strerror(errno));
        return;
    }
    double free_bytes = (double)disk.f_bavail * (double)disk.f_frsize;
    if (access(".", W_OK) != 0 || disk.f_flag & ST_RDONLY)
        sago_finding_add(findings, "disk", "warn", "set run.dir to a folder that can be written",
                         "%.200s can't be written", folder);
    else
        sago_finding_add(findings, "disk", free_bytes < 5 * gib ? "warn" : "ok",
                         "checkpoints need room: free some, set run.dir elsewhere, or lower checkpoint.keep",
                         "%.1f GiB free in %.200s", free_bytes / gib, folder);
}

static void check_shared_memory(json_t *findings, int local_size) {
    if (local_size == 1) return;
    char probe = 1, copy = 0;
    struct iovec to = {&copy, 1}, from = {&probe, 1};
    bool direct = process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 1;
    sago_finding_add(findings, "shared memory", direct ? "ok" : "warn",
                     "sums between ranks of a node are copied twice: allow SYS_PTRACE to the container",
                     direct ? "ranks of this node read one another's memory directly"
                            : "the kernel forbids ranks to read one another's memory");
}

void sago_machine_check(json_t *findings, int cores, int local_size, const char *device_text) {
    check_processor(findings);
    check_memory(findings, local_size);
    check_threads(findings, cores, local_size);
    check_disk(findings);
    check_shared_memory(findings, local_size);
    if (device_text)
        sago_finding_add(findings, "device", "ok", "", "%s", device_text);
    else
        sago_finding_add(findings, "device", "fail", "see the message; --set device=cpu works everywhere",
                         "%s", sago_message());
}
