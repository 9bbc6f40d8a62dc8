// SPDX-License-Identifier: Apache-2.0
#include "suite.h"

#include "check.h"

#include <math.h>

enum { GUARD_BYTES = 64, MAX_DEVICES = 10, SKIPPED = 77, MAX_NAMES = 64 };

/* Two bytes that are NaN as bf16 and, repeated, as float and double. */
static const uint16_t GUARD = 0xfff5;

/* What a body is run on, in this order; the first one's results are compared with formulas. */
typedef struct configuration {
    int device;
    size_t shift_bytes;
    const char *what;
} configuration;

static sago_device *devices[MAX_DEVICES];
static int n_devices;

static const configuration cpu_configurations[] = {{0, 0, "first run"},          {0, 0, "repeated"},
                                                   {0, 4, "shifted by 4 bytes"}, {1, 0, "two threads"},
                                                   {1, 0, "two threads again"},  {2, 0, "three threads"}};
static const configuration gpu_configurations[] = {
    {0, 0, "first run"}, {0, 0, "repeated"}, {0, 16, "shifted by 16 bytes"}};
static const char *const schedules[MAX_DEVICES] = {
    "forward,late",  "warp-up,early", "warp-down,late",  "seed1,early", "seed2,late",
    "forward,early", "warp-up,late",  "warp-down,early", "seed1,late",  "seed2,early"};
static configuration sim_configurations[MAX_DEVICES];
static const configuration *configurations = cpu_configurations;
static int n_configurations = LENGTH(cpu_configurations);

/* The greatest share of the allowed error that each compared tensor took, shown at the end. */
static struct {
    char name[48];
    double share;
} worst[MAX_NAMES];
static int n_worst;

void suite_ok(sago_status status) {
    if (status != SAGO_OK) fail_msg("%s: %s", sago_status_name(status), sago_message());
}

void suite_expect_shape_error(sago_status status, const char *operation) {
    if (status != SAGO_E_SHAPE)
        fail_msg("%s took wrong shapes: status %s, message '%s'", operation, sago_status_name(status),
                 sago_message());
    if (strncmp(sago_message(), operation, strlen(operation)) != 0)
        fail_msg("the message does not begin with '%s': %s", operation, sago_message());
}

static void fill_guard(char *at, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) at[i] = ((const char *)&GUARD)[i % 2];
}

static sago_tensor take(suite_run *run, sago_dtype dtype, const void *values, int unset, int n_dims,
                        const int64_t shape[]) {
    assert_true(run->n_buffers < SUITE_MAX_BUFFERS);
    suite_buffer *b = &run->buffers[run->n_buffers++];
    sago_tensor t = sago_tensor_view((sago_tensor){NULL, dtype, 0, {1, 1, 1, 1}}, n_dims, shape);
    size_t bytes = sago_tensor_bytes(t), front = GUARD_BYTES + run->shift_bytes;
    b->bytes = front + bytes + GUARD_BYTES;
    b->sent = malloc(b->bytes);
    assert_non_null(b->sent);
    fill_guard(b->sent, b->bytes);
    if (values)
        memcpy(b->sent + front, values, bytes);
    else
        memset(b->sent + front, unset, bytes);
    void *base;
    suite_ok(run->device->ops->allocate(run->device, &base, b->bytes));
    b->base = base;
    suite_ok(run->device->ops->upload(run->device, base, b->sent, b->bytes));
    t.data = b->base + front;
    b->tensor = t;
    b->output = NULL;
    return t;
}

sago_tensor suite_f32(suite_run *run, const float *values, int n_dims, const int64_t shape[]) {
    return take(run, SAGO_F32, values, 0xFF, n_dims, shape); /* all ones is a NaN */
}

sago_tensor suite_i32(suite_run *run, const int32_t *values, int n_dims, const int64_t shape[]) {
    return take(run, SAGO_I32, values, 0x81, n_dims, shape);
}

sago_tensor suite_bf16(suite_run *run, const uint16_t *values, int n_dims, const int64_t shape[]) {
    return take(run, SAGO_BF16, values, 0xFF, n_dims, shape);
}

uint16_t suite_to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (isnan(x)) return 0x7fff;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float suite_from_bf16(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

void suite_round(sago_dtype dtype, float *x, int64_t n) {
    for (int64_t i = 0; dtype == SAGO_BF16 && i < n; i++) x[i] = suite_from_bf16(suite_to_bf16(x[i]));
}

sago_tensor suite_bf16_of(suite_run *run, const float *values, int n_dims, const int64_t shape[]) {
    if (!values) return suite_bf16(run, NULL, n_dims, shape);
    int64_t n = 1;
    for (int i = 0; i < n_dims; i++) n *= shape[i];
    uint16_t *rounded = malloc((size_t)(n ? n : 1) * sizeof *rounded);
    assert_non_null(rounded);
    for (int64_t i = 0; i < n; i++) rounded[i] = suite_to_bf16(values[i]);
    sago_tensor t = suite_bf16(run, rounded, n_dims, shape);
    free(rounded);
    return t;
}

sago_tensor suite_typed(suite_run *run, sago_dtype dtype, const float *values, int n_dims,
                        const int64_t shape[]) {
    return dtype == SAGO_BF16 ? suite_bf16_of(run, values, n_dims, shape)
                              : suite_f32(run, values, n_dims, shape);
}

int suite_n_devices(void) {
    return n_devices;
}

sago_device *suite_device(int i) {
    return devices[i];
}

bool suite_is_sim(void) {
    return n_devices > 0 && strcmp(devices[0]->name, "sim") == 0;
}

void suite_skip_unless_bf16(void) {
    if (!devices[0]->stores_bf16) skip();
}

void suite_output(suite_run *run, const char *name, sago_tensor tensor) {
    for (int i = 0; i < run->n_buffers; i++)
        if (run->buffers[i].tensor.data == tensor.data) {
            run->buffers[i].output = name;
            return;
        }
    fail_msg("%s is not a tensor of this run", name);
}

/* Downloads everything; guards and inputs must be as they were. Outputs go to result. */
static void finish(suite_run *run, suite_result *result) {
    suite_ok(run->device->ops->synchronize(run->device));
    size_t front = GUARD_BYTES + run->shift_bytes;
    result->n = 0;
    for (int i = 0; i < run->n_buffers; i++) {
        suite_buffer *b = &run->buffers[i];
        char *now = malloc(b->bytes);
        assert_non_null(now);
        suite_ok(run->device->ops->download(run->device, now, b->base, b->bytes));
        size_t payload = b->bytes - front - GUARD_BYTES;
        if (memcmp(now, b->sent, front) != 0)
            fail_msg("bytes before buffer %d (%s) were written", i, b->output);
        if (memcmp(now + front + payload, b->sent + front + payload, GUARD_BYTES) != 0)
            fail_msg("bytes after buffer %d (%s) were written", i, b->output ? b->output : "an input");
        if (!b->output && memcmp(now, b->sent, b->bytes) != 0) fail_msg("input %d was written", i);
        if (b->output) {
            assert_true(result->n < SUITE_MAX_OUTPUTS);
            int o = result->n++;
            result->out[o].name = b->output;
            result->out[o].dtype = b->tensor.dtype;
            result->out[o].bytes = payload;
            result->out[o].data = malloc(payload ? payload : 1);
            assert_non_null(result->out[o].data);
            memcpy(result->out[o].data, now + front, payload);
            result->out[o].floats = NULL;
            if (b->tensor.dtype == SAGO_BF16) {
                const uint16_t *narrow = result->out[o].data;
                result->out[o].floats = malloc(payload ? 2 * payload : 1);
                assert_non_null(result->out[o].floats);
                for (size_t k = 0; k < payload / 2; k++)
                    result->out[o].floats[k] = suite_from_bf16(narrow[k]);
            }
        }
        run->device->ops->release(run->device, b->base);
        free(b->sent);
        free(now);
    }
}

void suite_free(suite_result *result) {
    for (int i = 0; i < result->n; i++) free(result->out[i].data), free(result->out[i].floats);
    result->n = 0;
}

static void expect_same_bits(const suite_result *a, const suite_result *b, const char *what) {
    assert_int_equal(a->n, b->n);
    for (int i = 0; i < a->n; i++) {
        assert_int_equal(a->out[i].bytes, b->out[i].bytes);
        if (memcmp(a->out[i].data, b->out[i].data, a->out[i].bytes) == 0) continue;
        size_t size = a->out[i].dtype == SAGO_BF16 ? 2 : 4;
        for (size_t k = 0; k < a->out[i].bytes / size; k++) {
            uint32_t x = 0, y = 0;
            memcpy(&x, (const char *)a->out[i].data + size * k, size);
            memcpy(&y, (const char *)b->out[i].data + size * k, size);
            if (x != y)
                fail_msg("%s: element %zu of %s is %08x, was %08x", what, k, a->out[i].name, (unsigned)y,
                         (unsigned)x);
        }
    }
}

void suite_run_op(suite_body *body, const void *context, int flags, suite_result *result) {
    suite_result last = {0};
    for (int i = 0; i < n_configurations; i++) {
        suite_run run = {.device = devices[configurations[i].device],
                         .shift_bytes = configurations[i].shift_bytes};
        suite_result now = {0};
        body(&run, context);
        finish(&run, &now);
        bool other_threads = i > 0 && devices[configurations[i].device]->n_threads !=
                                          devices[configurations[i - 1].device]->n_threads;
        if (i > 0 && !(other_threads && flags & SUITE_THREADS_MAY_DIFFER))
            expect_same_bits(&last, &now, configurations[i].what);
        if (i > 1) suite_free(&last);
        if (i == 0) *result = now;
        last = now;
    }
    suite_free(&last);
}

void suite_run_once(suite_body *body, const void *context) {
    suite_run run = {.device = devices[0]};
    suite_result ignored = {0};
    body(&run, context);
    finish(&run, &ignored);
    suite_free(&ignored);
}

const void *suite_bits(const suite_result *result, const char *name) {
    for (int i = 0; i < result->n; i++)
        if (strcmp(result->out[i].name, name) == 0) return result->out[i].data;
    fail_msg("no output is called %s", name);
    return NULL;
}

const float *suite_floats(const suite_result *result, const char *name) {
    for (int i = 0; i < result->n; i++)
        if (result->out[i].floats && strcmp(result->out[i].name, name) == 0) return result->out[i].floats;
    return suite_bits(result, name);
}
const int32_t *suite_ints(const suite_result *result, const char *name) {
    return suite_bits(result, name);
}

static void remember(const char *name, double share) {
    int i = 0;
    while (i < n_worst && strcmp(worst[i].name, name) != 0) i++;
    if (i == MAX_NAMES) return;
    if (i == n_worst) snprintf(worst[n_worst++].name, sizeof worst[0].name, "%s", name);
    if (share > worst[i].share) worst[i].share = share;
}

void suite_close(const char *name, const float *got, const double *exact, const float *plain, int64_t n) {
    double top = 0, got_top = 0, plain_top = 0, got_sum = 0, plain_sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double e = fabs((double)got[i] - exact[i]), p = fabs((double)plain[i] - exact[i]);
        if (!isfinite(e) || !isfinite(exact[i]))
            fail_msg("%s: element %lld is %g, must be %g", name, (long long)i, (double)got[i], exact[i]);
        if (e > got_top) got_top = e;
        if (p > plain_top) plain_top = p;
        if (fabs(exact[i]) > top) top = fabs(exact[i]);
        got_sum += e * e, plain_sum += p * p;
    }
    if (n == 0) return;
    double ulp = (double)nextafterf((float)top, INFINITY) - (double)(float)top;
    double got_rms = sqrt(got_sum / (double)n), plain_rms = sqrt(plain_sum / (double)n);
    double top_share = got_top / (2 * plain_top + 2 * ulp), rms_share = got_rms / (2 * plain_rms + 2 * ulp);
    if (top_share > 1)
        fail_msg("%s: largest error %g, plain fp32 has %g, ulp %g", name, got_top, plain_top, ulp);
    if (rms_share > 1) fail_msg("%s: RMS error %g, plain fp32 has %g, ulp %g", name, got_rms, plain_rms, ulp);
    remember(name, top_share > rms_share ? top_share : rms_share);
}

void suite_gradient_close(const char *name, const double *numeric, const double *formula, int64_t n,
                          double tolerance) {
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(numeric[i] - formula[i]) <= tolerance * (1 + fabs(formula[i]))))
            fail_msg("%s: element %lld: the formula gives %.10g, differences give %.10g", name, (long long)i,
                     formula[i], numeric[i]);
}

float *suite_normal(int64_t n, uint64_t key) {
    float *x = malloc((size_t)(n > 0 ? n : 1) * sizeof *x);
    assert_non_null(x);
    sago_normal_fill(x, 0, n, key);
    return x;
}

double *suite_to_double(const float *x, int64_t n) {
    double *y = malloc((size_t)(n > 0 ? n : 1) * sizeof *y);
    assert_non_null(y);
    for (int64_t i = 0; i < n; i++) y[i] = x[i];
    return y;
}

static const char *device_name;
static bool few_schedules;

static bool open_device(const char *name, int n_threads) {
    /* An operation that a GPU device still lacks fails in its own tests, not in all. */
    if (sago_device_open_partial(name, n_threads, &devices[n_devices]) == SAGO_OK) {
        n_devices++;
        return true;
    }
    printf("not opened: %s\n", sago_message());
    return false;
}

static bool open_devices(void) {
    const char *name = device_name;
    n_devices = 0;
    if (strcmp(name, "sim") == 0) {
        n_configurations = few_schedules ? 2 : MAX_DEVICES;
        configurations = sim_configurations;
        for (int i = 0; i < n_configurations; i++) {
            char variant[64];
            snprintf(variant, sizeof variant, "sim:%s", schedules[i]);
            if (!open_device(variant, 1)) return false;
            sim_configurations[i] = (configuration){i, i % 2 ? 16 : 0, schedules[i]};
        }
        return true;
    }
    bool cpu = strncmp(name, "cpu", 3) == 0;
    for (int i = 0; i < (cpu ? 3 : 1); i++)
        if (!open_device(name, cpu ? i + 1 : 0)) return false;
    if (!cpu) configurations = gpu_configurations, n_configurations = LENGTH(gpu_configurations);
    return true;
}

static void close_devices(void) {
    for (int i = 0; i < n_devices; i++) sago_device_close(devices[i]);
}

void suite_shared_memory(size_t bytes) {
    char text[24];
    snprintf(text, sizeof text, "%zu", bytes);
    if (bytes)
        setenv("SAGO_SIM_SHARED_BYTES", text, 1);
    else
        unsetenv("SAGO_SIM_SHARED_BYTES");
    close_devices();
    if (!open_devices()) fail_msg("%s does not open again", device_name);
}

int suite_main(int argc, char **argv, const struct CMUnitTest tests[], size_t n) {
    device_name = argc > 1 ? argv[1] : "cpu";
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "short") == 0) few_schedules = true;
        if (strncmp(argv[i], "only=", 5) == 0) cmocka_set_test_filter(argv[i] + 5);
    }
    /* A processor may lack an instruction set; a GPU that was asked for has to be there. */
    if (!open_devices()) return strncmp(device_name, "cpu:", 4) == 0 ? SKIPPED : 1;
    printf("device %s\n", devices[0]->description);
    if (suite_is_sim())
        printf("limits of sim: no memory model, no threads at the same time, no bank conflicts, no timing; "
               "sums of\n"
               "tensor cores in another order; PTX is not executed; %d schedules sample, they do not prove\n",
               n_configurations);
    int failed = _cmocka_run_group_tests("kernels", tests, n, NULL, NULL);
    for (int i = 0; i < n_worst; i++)
        printf("%s: error %.2f of what is allowed\n", worst[i].name, worst[i].share);
    close_devices();
    return failed;
}
