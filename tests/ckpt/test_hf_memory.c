// SPDX-License-Identifier: Apache-2.0
/* Models larger than the memory that a process may have, in and out; exports in several files. */
#include "test.h"

#include "ckpt.h"
#include "hf.h"
#include "rng.h"
#include "safetensors.h"
#include "write_text.h"

#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utime.h>

/* A model of two layers, by transformers' names of CohereForCausalLM. */
enum { D_MODEL = 64, D_FF = 48, LAYERS = 2, LAYER_TENSORS = 8, TENSORS = 2 + LAYERS * LAYER_TENSORS };
enum { LARGE_VOCAB = 524288, SMALL_VOCAB = 321 }; /* the embedding: 128 MiB as fp32, 80 KiB */

typedef struct entry {
    char name[96];
    int64_t rows, columns; /* columns 0: a vector */
} entry;

static void list_model(int64_t vocab, entry list[TENSORS]) {
    static const entry layer[LAYER_TENSORS] = {
        {"input_layernorm", D_MODEL, 0},        {"self_attn.q_proj", D_MODEL, D_MODEL},
        {"self_attn.k_proj", D_MODEL, D_MODEL}, {"self_attn.v_proj", D_MODEL, D_MODEL},
        {"self_attn.o_proj", D_MODEL, D_MODEL}, {"mlp.gate_proj", D_FF, D_MODEL},
        {"mlp.up_proj", D_FF, D_MODEL},         {"mlp.down_proj", D_MODEL, D_FF}};
    list[0] = (entry){"model.embed_tokens.weight", vocab, D_MODEL};
    for (int i = 0; i < LAYERS * LAYER_TENSORS; i++) {
        list[1 + i] = layer[i % LAYER_TENSORS];
        snprintf(list[1 + i].name, sizeof list[1 + i].name, "model.layers.%d.%s.weight", i / LAYER_TENSORS,
                 layer[i % LAYER_TENSORS].name);
    }
    list[TENSORS - 1] = (entry){"model.norm.weight", D_MODEL, 0};
}

static int64_t count_of(const entry *e) {
    return e->rows * (e->columns ? e->columns : 1);
}

/* Element i of a tensor: bits that bfloat16 holds too. */
static uint16_t upper_bits(uint64_t key, int64_t i) {
    float value = (float)sago_unit(sago_mix(key, (uint64_t)i));
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)(bits >> 16);
}

/* One model.safetensors. spoiled: the bits of the last element of the last tensor, where they are not 0. */
static char *make_model(const char *name, int64_t vocab, bool bf16, uint16_t spoiled) {
    entry list[TENSORS];
    list_model(vocab, list);
    char *dir = sago_format("%s/%s", test_folder, name), *path = sago_path_join(dir, "model.safetensors");
    char *config = sago_format(
        "{\"model_type\":\"cohere\",\"vocab_size\":%lld,\"hidden_size\":%d,\"num_attention_heads\":"
        "4,\"intermediate_size\":%d,\"num_hidden_layers\":%d}",
        (long long)vocab, D_MODEL, D_FF, LAYERS);
    assert_ok(sago_dir_make(dir));
    write_text(dir, "config.json", config);
    int element = bf16 ? 2 : 4;
    int64_t at = 0;
    sago_str header = {0};
    for (int i = 0; i < TENSORS; i++) {
        sago_str_printf(&header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%lld", i ? "," : "{", list[i].name,
                        bf16 ? "BF16" : "F32", (long long)list[i].rows);
        if (list[i].columns) sago_str_printf(&header, ",%lld", (long long)list[i].columns);
        sago_str_printf(&header, "],\"data_offsets\":[%lld,%lld]}", (long long)at,
                        (long long)(at + element * count_of(&list[i])));
        at += element * count_of(&list[i]);
    }
    sago_str_puts(&header, "}");
    uint64_t length = header.length;
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(&length, 8, 1, out), 1);
    assert_int_equal(fwrite(header.data, 1, header.length, out), header.length);
    for (int i = 0; i < TENSORS; i++) {
        uint64_t key = sago_hash_bytes(list[i].name, strlen(list[i].name));
        for (int64_t k = 0; k < count_of(&list[i]); k++) {
            bool last = i == TENSORS - 1 && k == count_of(&list[i]) - 1;
            uint16_t bits[2] = {0, last && spoiled ? spoiled : upper_bits(key, k)};
            fwrite(bf16 ? bits + 1 : bits, (size_t)element, 1, out);
        }
    }
    assert_int_equal(fclose(out), 0);
    sago_str_free(&header);
    free(config);
    free(path);
    return dir;
}

/* A file of a model holds n tensors, each with the model's values in fp32. Counts them in seen. */
static void assert_values(const char *dir, const char *name, const entry list[TENSORS], int seen[TENSORS]) {
    char *path = sago_path_join(dir, name);
    sago_safetensors *file;
    assert_ok(sago_safetensors_open(path, &file));
    for (int k = 0; k < sago_safetensors_count(file); k++) {
        const sago_safetensor *t = sago_safetensors_at(file, k);
        int i = 0;
        while (i < TENSORS && strcmp(list[i].name, t->name) != 0) i++;
        if (i == TENSORS) fail_msg("%s: foreign tensor %s", path, t->name);
        seen[i]++;
        assert_string_equal(t->dtype, "F32");
        assert_int_equal(t->n_dims, list[i].columns ? 2 : 1);
        assert_int_equal(t->shape[0], list[i].rows);
        assert_int_equal(t->bytes, 4 * count_of(&list[i]));
        uint64_t key = sago_hash_bytes(t->name, strlen(t->name));
        uint16_t got[2048];
        for (int64_t at = 0; at < count_of(&list[i]); at += 1024) {
            int64_t n = count_of(&list[i]) - at < 1024 ? count_of(&list[i]) - at : 1024;
            assert_ok(sago_safetensors_read(file, t, 4 * at, (size_t)(4 * n), got));
            for (int64_t e = 0; e < n; e++)
                if (got[2 * e] != 0 || got[2 * e + 1] != upper_bits(key, at + e))
                    fail_msg("%s: tensor %s: element %lld differs", path, t->name, (long long)(at + e));
        }
    }
    sago_safetensors_close(file);
    free(path);
}

static void assert_each_once(const int seen[TENSORS]) {
    for (int i = 0; i < TENSORS; i++) assert_int_equal(seen[i], 1);
}

/* --- in a process with little of something --- */

typedef struct task {
    const char *from, *to;
    bool is_import;
    int64_t part_bytes;
} task;

static int run_task(const task *t) {
    sago_status status = t->is_import ? sago_hf_import(t->from, t->to)
                                      : sago_hf_export_parts(t->from, t->to, t->part_bytes, false);
    if (status != SAGO_OK) fprintf(stderr, "%s\n", sago_message());
    return (int)status;
}

/* Runs it in a child that may have so many bytes of address space (mappings of files count) more than now,
 * and so many files open; 0: no limit. An allocation of more must fail there, or the limit is none. */
static void run_limited(const task *t, size_t bytes, rlim_t files) {
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        long long pages = 0;
        malloc_trim(0); /* what earlier tests freed would count as now, and could be had again */
        FILE *statm = fopen("/proc/self/statm", "r");
        if (!statm || fscanf(statm, "%lld", &pages) != 1) _exit(101);
        fclose(statm);
        struct rlimit space = {(rlim_t)(pages * sysconf(_SC_PAGESIZE)) + bytes, RLIM_INFINITY},
                      open = {files, files};
        if (bytes && setrlimit(RLIMIT_AS, &space) != 0) _exit(102);
        if (files && setrlimit(RLIMIT_NOFILE, &open) != 0) _exit(103);
        void *volatile more = bytes ? malloc(bytes + 1) : NULL;
        if (more) _exit(104);
        _exit(run_task(t));
    }
    int ended;
    assert_int_equal(waitpid(child, &ended, 0), child);
    if (!WIFEXITED(ended) || WEXITSTATUS(ended) != 0)
        fail_msg("%s of %s ended with 0x%x", t->is_import ? "import" : "export", t->from, (unsigned)ended);
}

static void larger_than_the_memory(void **unused) {
    (void)unused;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* its shadow is address space too */
#endif
    entry list[TENSORS];
    list_model(LARGE_VOCAB, list);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        char *dir = make_model("large", LARGE_VOCAB, bf16, 0), *ckpt = sago_format("%s.ckpt", dir),
             *out = sago_format("%s.out", dir);
        int seen[TENSORS] = {0};
        /* The embedding has 128 MiB. */
        run_limited(&(task){dir, ckpt, true, 0}, 32 << 20, 0);
        assert_ok(sago_dir_remove(dir));
        run_limited(&(task){ckpt, out, false, bf16 ? SAGO_HF_PART_BYTES : 100000}, 96 << 20, 0);
        if (bf16) {
            assert_values(out, "model.safetensors", list, seen);
        } else {
            sago_names names;
            assert_ok(sago_dir_list(out, &names));
            for (size_t i = 0; i < names.count; i++)
                if (sago_starts_with(names.names[i], "model-"))
                    assert_values(out, names.names[i], list, seen);
            sago_names_free(&names);
        }
        assert_each_once(seen);
        assert_ok(sago_dir_remove(ckpt));
        assert_ok(sago_dir_remove(out));
        free(dir), free(ckpt), free(out);
    }
}

/* --- several files --- */

static char *read_all(const char *dir, const char *name, size_t *length) {
    char *path = sago_path_join(dir, name);
    sago_str bytes = {0};
    assert_ok(sago_file_read(path, 0, &bytes));
    free(path);
    *length = bytes.length;
    return bytes.data;
}

static void assert_same_bytes(const char *dir_a, const char *a, const char *dir_b, const char *b) {
    size_t n, m;
    char *left = read_all(dir_a, a, &n), *right = read_all(dir_b, b, &m);
    assert_int_equal(n, m);
    assert_memory_equal(left, right, n);
    free(left);
    free(right);
}

/* The parts, their index and the limit, as transformers' documentation has them. Returns how many there are.
 */
static int assert_parts(const char *dir, const entry list[TENSORS], int64_t part_bytes) {
    char *path = sago_path_join(dir, "model.safetensors.index.json");
    json_t *index;
    assert_ok(sago_json_read(path, 0, &index));
    free(path);
    const json_t *map = json_object_get(index, "weight_map");
    int64_t total = 0;
    int seen[TENSORS] = {0}, n_parts = 0;
    assert_int_equal(json_object_size(map), TENSORS);
    for (int i = 0; i < TENSORS; i++) {
        int part, n;
        total += 4 * count_of(&list[i]);
        assert_int_equal(sscanf(json_string_value(json_object_get(map, list[i].name)),
                                "model-%d-of-%d.safetensors", &part, &n),
                         2);
        assert_true(n_parts == 0 || n == n_parts);
        n_parts = n;
    }
    assert_int_equal(json_integer_value(json_object_get(json_object_get(index, "metadata"), "total_size")),
                     total);
    for (int part = 1; part <= n_parts; part++) {
        char *name = sago_format("model-%05d-of-%05d.safetensors", part, n_parts),
             *file = sago_path_join(dir, name);
        sago_safetensors *opened;
        int64_t bytes = 0;
        assert_values(dir, name, list, seen);
        assert_ok(sago_safetensors_open(file, &opened));
        for (int k = 0; k < sago_safetensors_count(opened); k++) {
            const sago_safetensor *t = sago_safetensors_at(opened, k);
            bytes += (int64_t)t->bytes;
            assert_string_equal(json_string_value(json_object_get(map, t->name)), name);
        }
        assert_true(bytes > 0 && (bytes <= part_bytes || sago_safetensors_count(opened) == 1));
        sago_safetensors_close(opened);
        free(name);
        free(file);
    }
    assert_each_once(seen);
    json_decref(index);
    return n_parts;
}

static void in_several_files(void **unused) {
    (void)unused;
    entry list[TENSORS];
    list_model(SMALL_VOCAB, list);
    char *dir = make_model("small", SMALL_VOCAB, false, 0), *ckpt = sago_format("%s.ckpt", dir);
    assert_ok(sago_hf_import(dir, ckpt));
    static const struct {
        int64_t part_bytes;
        int n_parts;
    } cases[] = {
        {1, TENSORS}, /* a file a tensor */
        /* In order: the embedding's 82176; 256 + 2 * 16384; 2 * 16384; 3 * 12288 + 256; 2 * 16384; 2 * 16384;
         * 3 * 12288 + 256 */
        {40000, 7},
        {287743, 2}, /* all bytes but one */
        {287744, 1},
        {INT64_MAX, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *out = sago_format("%s.out%zu", dir, i), *again = sago_format("%s.again%zu", dir, i);
        assert_ok(sago_hf_export_parts(ckpt, out, cases[i].part_bytes, false));
        if (cases[i].n_parts > 1) {
            assert_int_equal(assert_parts(out, list, cases[i].part_bytes), cases[i].n_parts);
        } else {
            int seen[TENSORS] = {0};
            assert_values(out, "model.safetensors", list, seen);
            assert_each_once(seen);
        }
        /* Few enough descriptors that not every part can be open at once. */
        run_limited(&(task){out, again, true, 0}, 0, 12);
        assert_same_bytes(ckpt, "step-000000/shard-00000-of-00001.h5", again,
                          "step-000000/shard-00000-of-00001.h5");
        free(out), free(again);
    }
    free(dir), free(ckpt);
}

static bool has(const char *dir, const char *name) {
    char *path = sago_path_join(dir, name);
    bool there = sago_is_file(path);
    free(path);
    return there;
}

static int count_weights(const char *dir) {
    sago_names names;
    int n = 0;
    assert_ok(sago_dir_list(dir, &names));
    for (size_t i = 0; i < names.count; i++) n += strstr(names.names[i], "safetensors") != NULL;
    sago_names_free(&names);
    return n;
}

/* Readers take model.safetensors before an index, so what another export left must not stay. */
static void other_exports_go(void **unused) {
    (void)unused;
    entry list[TENSORS];
    list_model(SMALL_VOCAB, list);
    char *dir = make_model("stale", SMALL_VOCAB, false, 0), *ckpt = sago_format("%s.ckpt", dir),
         *out = sago_format("%s.out", dir);
    assert_ok(sago_hf_import(dir, ckpt));
    assert_ok(sago_hf_export(ckpt, out, false));
    assert_ok(sago_hf_export(ckpt, out, false)); /* the same again changes nothing */
    assert_fails(sago_hf_export_parts(ckpt, out, 1, false), SAGO_E_BUSY,
                 "model.safetensors: belongs to another export");
    assert_int_equal(count_weights(out), 1);
    assert_true(has(out, "config.json"));
    write_text(out, "notes-model-00001-of-00002.txt", "mine");
    write_text(out, "model-card.md", "mine");
    assert_ok(sago_hf_export_parts(ckpt, out, 1, true));
    assert_int_equal(count_weights(out), TENSORS + 1);
    assert_int_equal(assert_parts(out, list, 1), TENSORS);
    assert_ok(sago_hf_export_parts(ckpt, out, 1, false));
    assert_fails(sago_hf_export_parts(ckpt, out, 40000, false), SAGO_E_BUSY, "");
    assert_ok(sago_hf_export_parts(ckpt, out, 40000, true));
    assert_int_equal(count_weights(out), 1 + assert_parts(out, list, 40000));
    /* What a killed export left: its process is gone, and the file is old. */
    pid_t dead = fork();
    if (dead == 0) _exit(0);
    assert_int_equal(waitpid(dead, NULL, 0), dead);
    char *left = sago_format("model-00007-of-00099.safetensors.tmp-%ld", (long)dead),
         *path = sago_path_join(out, left);
    write_text(out, left, "half of a part");
    assert_int_equal(utime(path, &(struct utimbuf){1000000000, 1000000000}), 0);
    assert_ok(sago_hf_export(ckpt, out, true));
    assert_int_equal(count_weights(out), 1);
    int seen[TENSORS] = {0};
    assert_values(out, "model.safetensors", list, seen);
    assert_each_once(seen);
    assert_true(has(out, "notes-model-00001-of-00002.txt") && has(out, "model-card.md") &&
                has(out, "config.json"));
    free(left), free(path), free(dir), free(ckpt), free(out);
}

/* Where one file cannot get its name there is no config.json to load the others by, and nothing under another
 * name. */
static void half_an_export(void **unused) {
    (void)unused;
    char *dir = make_model("half", SMALL_VOCAB, false, 0), *ckpt = sago_format("%s.ckpt", dir),
         *out = sago_format("%s.out", dir),
         *in_the_way = sago_format("%s/model-00018-of-00018.safetensors", out);
    assert_ok(sago_hf_import(dir, ckpt));
    assert_ok(sago_hf_export(ckpt, out, false));
    assert_ok(sago_dir_make(in_the_way));
    assert_fails(sago_hf_export_parts(ckpt, out, 1, true), SAGO_E_IO,
                 "model-00018-of-00018.safetensors: cannot replace");
    assert_false(has(out, "config.json") || has(out, "model.safetensors"));
    sago_names names;
    assert_ok(sago_dir_list(out, &names));
    for (size_t i = 0; i < names.count; i++) assert_null(strstr(names.names[i], ".tmp-"));
    sago_names_free(&names);
    assert_int_equal(rmdir(in_the_way), 0);
    entry list[TENSORS];
    list_model(SMALL_VOCAB, list);
    assert_ok(sago_hf_export_parts(ckpt, out, 1, true));
    assert_int_equal(assert_parts(out, list, 1), TENSORS);
    assert_true(has(out, "config.json"));
    free(in_the_way), free(dir), free(ckpt), free(out);
}

/* The last element of the last tensor is found when all others are written already: nothing of them stays. */
static void not_finite(void **unused) {
    (void)unused;
    char *good = make_model("good", SMALL_VOCAB, false, 0), *there = sago_format("%s.ckpt", good);
    assert_ok(sago_hf_import(good, there));
    static const struct {
        uint16_t bits;
        bool bf16;
        const char *says;
    } cases[] = {{0x7FC0, false, "tensor model.norm.weight: element 63 is not a number"},
                 {0x7FC0, true, "tensor model.norm.weight: element 63 is not a number"},
                 {0xFF80, true, "tensor model.norm.weight: element 63 is infinite"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *bad = make_model("bad", SMALL_VOCAB, cases[i].bf16, cases[i].bits),
             *ckpt = sago_format("%s.ckpt", bad);
        assert_fails(sago_hf_import(bad, ckpt), SAGO_E_INPUT, cases[i].says);
        assert_false(sago_is_dir(ckpt));
        /* Over a model that is there, it stays, and alone. */
        assert_fails(sago_hf_import(bad, there), SAGO_E_INPUT, cases[i].says);
        sago_names names;
        assert_ok(sago_dir_list(there, &names));
        assert_int_equal(names.count, 1);
        sago_names_free(&names);
        sago_ckpt *opened;
        assert_ok(sago_ckpt_open(there, true, &opened));
        sago_ckpt_close(opened);
        free(bad), free(ckpt);
    }
    free(good), free(there);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(in_several_files), cmocka_unit_test(other_exports_go),
                                       cmocka_unit_test(half_an_export), cmocka_unit_test(not_finite),
                                       cmocka_unit_test(larger_than_the_memory)};
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
