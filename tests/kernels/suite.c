// SPDX-License-Identifier: Apache-2.0
#include "suite.h"

#include <math.h>

enum { GUARD_BYTES = 64, GUARD = 0xA5, N_DEVICES = 3, SKIPPED = 77, MAX_NAMES = 64 };

static sago_device *devices[N_DEVICES]; /* with 1, 2, 3 threads */

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

static sago_tensor take(suite_run *run, sago_dtype dtype, const void *values, int unset, int n_dims,
                        const int64_t shape[]) {
    assert_true(run->n_buffers < SUITE_MAX_BUFFERS);
    suite_buffer *b = &run->buffers[run->n_buffers++];
    sago_tensor t = sago_tensor_view((sago_tensor){NULL, dtype, 0, {1, 1, 1, 1}}, n_dims, shape);
    size_t bytes = sago_tensor_bytes(t), front = GUARD_BYTES + run->shift_bytes;
    b->bytes = front + bytes + GUARD_BYTES;
    b->sent = malloc(b->bytes);
    assert_non_null(b->sent);
    memset(b->sent, GUARD, b->bytes);
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
            result->out[result->n].name = b->output;
            result->out[result->n].bytes = payload;
            result->out[result->n].data = malloc(payload ? payload : 1);
            assert_non_null(result->out[result->n].data);
            memcpy(result->out[result->n++].data, now + front, payload);
        }
        run->device->ops->release(run->device, b->base);
        free(b->sent);
        free(now);
    }
}

void suite_free(suite_result *result) {
    for (int i = 0; i < result->n; i++) free(result->out[i].data);
    result->n = 0;
}

static void expect_same_bits(const suite_result *a, const suite_result *b, const char *what) {
    assert_int_equal(a->n, b->n);
    for (int i = 0; i < a->n; i++) {
        assert_int_equal(a->out[i].bytes, b->out[i].bytes);
        const uint32_t *x = a->out[i].data, *y = b->out[i].data;
        for (size_t k = 0; k < a->out[i].bytes / 4; k++)
            if (x[k] != y[k])
                fail_msg("%s: element %zu of %s is %08x, was %08x", what, k, a->out[i].name, (unsigned)y[k],
                         (unsigned)x[k]);
    }
}

void suite_run_op(suite_body *body, const void *context, int flags, suite_result *result) {
    static const struct {
        int device;
        size_t shift_bytes;
        const char *what;
    } configurations[] = {{0, 0, "first run"},   {0, 0, "repeated"},          {0, 4, "shifted by 4 bytes"},
                          {1, 0, "two threads"}, {1, 0, "two threads again"}, {2, 0, "three threads"}};
    suite_result last = {0};
    for (int i = 0; i < LENGTH(configurations); i++) {
        suite_run run = {.device = devices[configurations[i].device],
                         .shift_bytes = configurations[i].shift_bytes};
        suite_result now = {0};
        body(&run, context);
        finish(&run, &now);
        bool other_threads = i > 0 && configurations[i].device != configurations[i - 1].device;
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

static const void *find(const suite_result *result, const char *name) {
    for (int i = 0; i < result->n; i++)
        if (strcmp(result->out[i].name, name) == 0) return result->out[i].data;
    fail_msg("no output is called %s", name);
    return NULL;
}

const float *suite_floats(const suite_result *result, const char *name) {
    return find(result, name);
}
const int32_t *suite_ints(const suite_result *result, const char *name) {
    return find(result, name);
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

int suite_main(int argc, char **argv, const struct CMUnitTest tests[], size_t n) {
    const char *name = argc > 1 ? argv[1] : "cpu";
    for (int i = 0; i < N_DEVICES; i++)
        if (sago_device_open(name, i + 1, &devices[i]) != SAGO_OK) {
            printf("skipped: %s\n", sago_message());
            return SKIPPED;
        }
    printf("device %s\n", devices[0]->description);
    int failed = _cmocka_run_group_tests("kernels", tests, n, NULL, NULL);
    for (int i = 0; i < n_worst; i++)
        printf("%s: error %.2f of what is allowed\n", worst[i].name, worst[i].share);
    for (int i = 0; i < N_DEVICES; i++) sago_device_close(devices[i]);
    return failed;
}
