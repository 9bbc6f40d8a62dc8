// SPDX-License-Identifier: Apache-2.0
/* The walk of a step: its events by the rules that they must keep, and its times where they can be written
 * down. */
#include "walk.h"

#include "plan.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *root;
static sago_config *config;
static sago_hardware hardware;
static sago_workload work;

enum { RECOMPUTE = 1, REPLICATED = 2, KEEP = 4 };

static void open_case(const char *preset, const char *rows) {
    char *path = sago_format("%s/configs/%s.yaml", root, preset),
         *batch = sago_format("train.global_batch=%s", rows);
    char *sets[] = {"mesh.data=0", "train.precision=bf16", batch};
    if (sago_config_load(path, sets, 3, &config) != SAGO_OK) fail_msg("%s", sago_message());
    free(path);
    free(batch);
    assert_int_equal(sago_hardware_load("h100-80", &hardware), SAGO_OK);
    assert_int_equal(sago_workload_open(config, &hardware, &work), SAGO_OK);
}

static sago_step_time walk(int64_t data, int64_t model, int64_t micro, int how, sago_timeline *timeline,
                           sago_shares *shares) {
    sago_sharing sharing = how & REPLICATED || data == 1 ? SAGO_REPLICATED
                           : how & KEEP                  ? SAGO_SHARDED_KEEP
                                                         : SAGO_SHARDED_DROP;
    const sago_layout layout = {data, model, sharing, micro, (how & RECOMPUTE) != 0};
    sago_step_time out;
    sago_shares own = {0};
    assert_int_equal(sago_shares_open(&work, &layout, &own), SAGO_OK);
    sago_walk_step(&work, &layout, &hardware, &own, &out, timeline);
    if (shares)
        *shares = own;
    else
        sago_shares_close(&own);
    return out;
}

static void parts_make_the_whole(void **state) {
    (void)state;
    static const struct {
        int64_t data, model, micro;
        int how;
    } cases[] = {{1, 1, 1, 0},   {8, 1, 2, 0},           {4, 2, 3, RECOMPUTE},
                 {64, 8, 1, 0},  {16, 4, 2, REPLICATED}, {3, 2, 5, RECOMPUTE | REPLICATED},
                 {8, 1, 2, KEEP}};
    open_case("flan-t5-xxl", "64");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sago_timeline timeline = {0};
        sago_step_time t = walk(cases[i].data, cases[i].model, cases[i].micro, cases[i].how, &timeline, NULL);
        double sum = t.compute + t.optimizer + t.exposed_model + t.exposed_data, busy[SAGO_QUEUES] = {0},
               last[SAGO_QUEUES] = {0};
        assert_true(fabs(sum / t.seconds - 1) < 1e-9);
        for (int64_t e = 0; e < timeline.count; e++) {
            const sago_event *event = &timeline.events[e];
            /* A queue does one thing at a time, in order. */
            assert_true(event->start >= last[event->queue] - 1e-12 && event->end >= event->start);
            last[event->queue] = event->end;
            busy[event->queue] += event->end - event->start;
        }
        assert_true(fabs(busy[SAGO_QUEUE_COMPUTE] / (t.compute + t.optimizer) - 1) < 1e-9);
        assert_true(fabs(busy[SAGO_QUEUE_MODEL] - t.exposed_model) < 1e-9);
        assert_true(busy[SAGO_QUEUE_DATA] >= t.exposed_data - 1e-9);
        sago_timeline_free(&timeline);
    }
    sago_config_free(config);
}

static bool is_computing(const sago_event *e) {
    return e->queue == SAGO_QUEUE_COMPUTE && e->kind != SAGO_EVENT_OPTIMIZER && e->kind != SAGO_EVENT_ADD;
}

/* A block's parameters in memory, from the beginning of their gather to the end of the last computing with
 * them. */
typedef struct stay {
    int block;
    double from, there, to;
} stay;

static int list_stays(const sago_timeline *timeline, stay *stays) {
    int n = 0;
    for (int64_t i = 0; i < timeline->count; i++) {
        const sago_event *e = &timeline->events[i];
        if (e->queue == SAGO_QUEUE_DATA && e->kind == SAGO_EVENT_GATHER) {
            stays[n++] = (stay){e->block, e->start, e->end, e->end};
        } else if (is_computing(e) && e->block >= 0 && !(e->block == 0 && e->kind == SAGO_EVENT_BACKWARD)) {
            int of = n - 1;
            while (of >= 0 && stays[of].block != e->block) of--;
            assert_true(of >= 0 && e->start >= stays[of].there - 1e-12);
            stays[of].to = e->end;
        }
    }
    return n;
}

/* Sharded: no block computes before its parameters are there. Block 0's stay, and never are more than two
 * others' in memory; the last two of a pass are not gathered again for the next. */
static void three_slots(void **state) {
    (void)state;
    open_case("flan-palm-8b", "2048");
    hardware.network_gb_per_second.value = 3; /* slow enough to be waited for */
    sago_timeline timeline = {0};
    sago_step_time t = walk(64, 2, 4, 0, &timeline, NULL);
    assert_true(t.exposed_data > 0);
    stay *stays = calloc((size_t)timeline.count, sizeof *stays);
    int n = list_stays(&timeline, stays), firsts = 0, micro_batches = ((int)work.rows / 64 + 3) / 4;
    for (int i = 0; i < n; i++) {
        int held = 0;
        firsts += stays[i].block == 0;
        for (int j = 0; j <= i; j++) held += stays[j].block != 0 && stays[j].to > stays[i].from + 1e-12;
        assert_true(held <= 2);
    }
    assert_int_equal(firsts, 1);
    /* 32 layers the first time; then 30 on each way, for the two at its beginning are at hand. */
    assert_int_equal(n, 1 + 32 + 30 + (micro_batches - 1) * (30 + 30));
    free(stays);
    sago_timeline_free(&timeline);
    sago_config_free(config);
}

/* keep: everything is gathered once a step, and scattered once, by the last micro-batch. */
static void a_slot_for_each(void **state) {
    (void)state;
    open_case("flan-palm-8b", "2048");
    sago_timeline timeline = {0};
    walk(64, 2, 4, KEEP, &timeline, NULL);
    int gathers[33] = {0}, scatters[33] = {0}, last = ((int)work.rows / 64 + 3) / 4 - 1;
    for (int64_t i = 0; i < timeline.count; i++) {
        const sago_event *e = &timeline.events[i];
        if (e->queue != SAGO_QUEUE_DATA) continue;
        assert_int_equal(e->micro_batch, e->kind == SAGO_EVENT_GATHER ? 0 : last);
        int *count = e->kind == SAGO_EVENT_GATHER ? gathers : scatters;
        count[e->block]++;
    }
    for (int b = 0; b < 33; b++) assert_true(gathers[b] == 1 && scatters[b] == 1);
    sago_timeline_free(&timeline);
    sago_config_free(config);
}

/* drop: a block's gradients are summed before its slot takes others', two blocks later; block 0's before the
 * next loss. */
static void sums_before_their_slot_is_needed(void **state) {
    (void)state;
    open_case("flan-palm-8b", "2048");
    hardware.network_gb_per_second.value = 3;
    sago_timeline timeline = {0};
    sago_shares shares;
    walk(64, 2, 4, 0, &timeline, &shares);
    double summed[33] = {0}, added = 0, bytes = 0;
    int checked = 0;
    for (int64_t i = 0; i < timeline.count; i++) {
        const sago_event *e = &timeline.events[i];
        if (e->kind == SAGO_EVENT_SCATTER && e->queue == SAGO_QUEUE_DATA) summed[e->block] = e->end;
        if (e->kind == SAGO_EVENT_ADD) added += e->end - e->start;
        if (e->kind == SAGO_EVENT_LOSS) assert_true(e->start >= summed[0] - 1e-12);
        if (!is_computing(e) || e->kind != SAGO_EVENT_BACKWARD || e->block < 1 || e->block > 30) continue;
        assert_true(e->start >= summed[e->block + 2] - 1e-12);
        checked++;
    }
    assert_true(checked >= 30 * 8);
    /* Zeroed for each of the eight micro-batches, and each sum added to what the rank keeps: read, read,
     * written. */
    for (int64_t b = 0; b < shares.n_blocks; b++)
        bytes += 8 * 4 * (double)(shares.blocks[b].elements + 3 * shares.blocks[b].held);
    assert_true(fabs(added / (bytes / 3000e9) - 1) < 1e-9);
    sago_shares_close(&shares);
    sago_timeline_free(&timeline);
    sago_config_free(config);
}

/* Blocks and what a preset's step sends on the data axis; m micro-batches of a rank. */
static double expected_drop(const sago_shares *s, double m) {
    double gathered = 0, scattered = 0;
    for (int64_t b = 0; b < s->n_blocks; b++) {
        /* Forward, the first two layers are there from the micro-batch before; backward, the last two from
         * forward. */
        double forward = b <= 2 ? 1 : m, backward = b > 0 && b < s->n_blocks - 2 ? m : 0;
        gathered += (forward + backward) * (double)s->blocks[b].elements;
        scattered += m * (double)s->blocks[b].elements;
    }
    return 7 / 8. * (2 * gathered + 4 * scattered);
}

/* A ring of n sends (n - 1) / n of what is gathered or scattered, and twice that of what is summed. */
static void bytes_on_the_data_axis(void **state) {
    (void)state;
    static const char *const presets[] = {"flan-palm-8b",
                                          "flan-t5-xxl"}; /* a tied output matrix, and one of its own */
    for (int i = 0; i < 2; i++) {
        sago_shares shares;
        open_case(presets[i], "64");
        sago_step_time replicated = walk(8, 1, 1000, REPLICATED, NULL, &shares);
        double parameters = 0;
        for (int64_t b = 0; b < shares.n_blocks; b++) parameters += (double)shares.blocks[b].elements;
        assert_int_equal(shares.n_blocks, i == 0 ? 1 + 32 : 1 + 2 * 24 + 1);
        assert_true(parameters == (double)work.n_parameters);
        assert_true(fabs(replicated.data_bytes / (2 * 7 / 8. * 4 * parameters) - 1) < 1e-12);
        const int64_t micro[] = {8, 4, 1};
        for (int m = 0; m < 3; m++) {
            sago_step_time drop = walk(8, 1, micro[m], 0, NULL, NULL),
                           keep = walk(8, 1, micro[m], KEEP, NULL, NULL);
            double micro_batches = 8 / (double)micro[m];
            assert_true(fabs(drop.data_bytes / expected_drop(&shares, micro_batches) - 1) < 1e-12);
            assert_true(fabs(keep.data_bytes / (7 / 8. * (2 + 4) * parameters) - 1) < 1e-12);
        }
        sago_shares_close(&shares);
        sago_config_free(config);
    }
}

/* PaLM: one gather and one scatter a block on the way there; on the way back the output's gradient and the
 * input again, and one scatter: 3 gathers in bf16 and 2 scatters in fp32, which are 7 tensors in bf16. T5: as
 * many for each of its sub-layers. */
static void bytes_on_the_model_axis(void **state) {
    (void)state;
    open_case("flan-palm-8b", "2048");
    double rows = ceil((double)work.rows / 8), tensor = rows * (double)work.targets * 4096 * 2;
    sago_step_time palm = walk(8, 4, 1000, REPLICATED, NULL, NULL);
    /* And once a step, gradients of what all four hold: a scale a layer and one at the end, a key and a value
     * head a layer. */
    double own = 4 * 4096. * (33 + 2 * 32 * 256);
    assert_true(fabs(palm.model_bytes / (3 / 4. * (32 * 7 * tensor + 2 * own)) - 1) < 1e-12);
    palm = walk(8, 4, 1000, 0, NULL, NULL); /* an eighth of the rows of each */
    assert_true(fabs(palm.model_bytes / (3 / 4. * (32 * 7 * tensor + 2 * own / 8)) - 1) < 1e-12);
    sago_config_free(config);
    open_case("flan-t5-xxl", "64");
    double in = 8. * 2048 * 4096 * 2, out = 8. * 512 * 4096 * 2;
    sago_step_time t5 = walk(8, 4, 1000, 0, NULL, NULL);
    double scales = 4 * 4096 / 8. * (24 * (2 + 3) + 2);
    assert_true(fabs(t5.model_bytes / (3 / 4. * (24 * 7 * (2 * in + 3 * out) + 2 * scales)) - 1) < 1e-12);
    sago_config_free(config);
}

/* Links without end leave nothing to wait for; recomputation is the model's forward once more, less last
 * products. */
static void limits(void **state) {
    (void)state;
    open_case("flan-palm-62b", "2048");
    hardware.node_gb_per_second.value = hardware.network_gb_per_second.value = 1e15;
    hardware.node_microseconds.value = hardware.network_microseconds.value = 0;
    sago_step_time t = walk(128, 4, 4, 0, NULL, NULL);
    assert_true(t.exposed_data + t.exposed_model < 1e-6 * t.seconds);
    sago_step_time again = walk(128, 4, 4, RECOMPUTE, NULL, NULL);
    assert_true(again.flops / t.flops > 1.2 && again.flops / t.flops < 4 / 3. && again.seconds > t.seconds);
    /* Scores are computed once more in backward, the one key/value head on every rank of the model axis. */
    double model = sago_step_flops(&work) / (128 * 4), tokens = 16 * 2560, pairs = tokens * 2561 / 2;
    double scores = 2 * pairs * 32 * 256 * 64 / 4,
           key_value = 3 * 2 * 2 * tokens * 256 * 8192 * 64 * (1 - 1 / 4.);
    assert_true(fabs(t.flops / (model + scores + key_value) - 1) < 1e-3);
    /* A network without speed is all there is. */
    hardware.network_gb_per_second.value = 1e-3;
    sago_step_time slow = walk(128, 4, 4, 0, NULL, NULL);
    assert_true(slow.exposed_data > .99 * slow.seconds);
    assert_true(fabs(slow.data_bytes / (1e6 / 4) / slow.seconds - 1) < .01);
    sago_config_free(config);
}

/* Where transfers take all of a processor, none is beside computing; where they take nothing, some are. */
static void transfers_take_processors(void **state) {
    (void)state;
    open_case("flan-palm-8b", "2048");
    for (int how = 0; how <= KEEP; how += 2) { /* dropped, copies, kept */
        sago_timeline timeline = {0};
        hardware.link_compute_share.value = 1;
        sago_step_time all = walk(64, 1, 8, how, &timeline, NULL);
        double busy = 0;
        for (int64_t i = 0; i < timeline.count; i++)
            if (timeline.events[i].queue == SAGO_QUEUE_DATA)
                busy += timeline.events[i].end - timeline.events[i].start;
        assert_true(busy > 0 && fabs(all.exposed_data / busy - 1) < 1e-9);
        hardware.link_compute_share.value = 0.5;
        sago_step_time half = walk(64, 1, 8, how, NULL, NULL);
        hardware.link_compute_share.value = 0;
        sago_step_time none = walk(64, 1, 8, how, NULL, NULL);
        assert_true(none.exposed_data < busy / 2 && none.seconds < half.seconds &&
                    half.seconds < all.seconds);
        sago_timeline_free(&timeline);
    }
    sago_config_free(config);
}

/* Of very many micro-batches some are walked, and the rest reckoned: as if all were. */
static void many_micro_batches(void **state) {
    (void)state;
    open_case("flan-palm-8b", "2048");
    hardware.network_gb_per_second.value = 100;
    sago_step_time t[3];
    const int64_t rows[] = {100, 200,
                            400}; /* of a rank, one at a time: two walks, and one that is not walked whole */
    for (int i = 0; i < 3; i++) {
        work.rows = rows[i] * 16;
        t[i] = walk(16, 1, 1, RECOMPUTE, NULL, NULL);
    }
    assert_true(t[0].exposed_data > .01 * t[0].seconds);
    const double *a = &t[0].seconds, *b = &t[1].seconds, *c = &t[2].seconds;
    for (size_t field = 0; field < sizeof *t / sizeof *a; field++) {
        double wanted = b[field] + 2 * (b[field] - a[field]);
        assert_true(fabs(c[field] - wanted) <= 1e-6 * fabs(wanted));
    }
    sago_config_free(config);
}

int main(int argc, char *argv[]) {
    if (argc != 2) return 2;
    root = argv[1];
    const struct CMUnitTest tests[] = {cmocka_unit_test(parts_make_the_whole),
                                       cmocka_unit_test(three_slots),
                                       cmocka_unit_test(a_slot_for_each),
                                       cmocka_unit_test(sums_before_their_slot_is_needed),
                                       cmocka_unit_test(bytes_on_the_data_axis),
                                       cmocka_unit_test(bytes_on_the_model_axis),
                                       cmocka_unit_test(limits),
                                       cmocka_unit_test(transfers_take_processors),
                                       cmocka_unit_test(many_micro_batches)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
