// SPDX-License-Identifier: Apache-2.0
/* Models in and out, on small models written here by the published names, and on the goldens where they are.
 */
#include "test.h"

#include "ckpt.h"
#include "hf.h"
#include "rng.h"
#include "safetensors.h"
#include "write_text.h"

static const char config_v11[] =
    "{\"model_type\":\"t5\",\"vocab_size\":11,\"d_model\":8,\"num_heads\":2,\"d_kv\":3,\"d_ff\":12,"
    "\"num_layers\":1,\"num_decoder_layers\":2,\"feed_forward_proj\":\"gated-gelu\","
    "\"tie_word_embeddings\":false,\"relative_attention_num_buckets\":8,"
    "\"relative_attention_max_distance\":20,\"dropout_rate\":0.25,\"note\":\"kept\"}";
static const char config_v10[] =
    "{\"model_type\":\"t5\",\"vocab_size\":11,\"d_model\":8,\"num_heads\":2,\"d_kv\":3,\"d_ff\":12,"
    "\"num_layers\":2}";

static const char config_cohere[] =
    "{\"model_type\":\"cohere\",\"vocab_size\":11,\"hidden_size\":8,\"num_attention_heads\":4,"
    "\"num_key_value_heads\":2,\"head_dim\":6,\"intermediate_size\":12,\"num_hidden_layers\":2,"
    "\"layer_norm_eps\":1e-06,\"logit_scale\":0.3,\"rope_theta\":5000.0,\"rope_scaling\":null,"
    "\"use_qk_norm\":false,\"attention_bias\":false,\"hidden_act\":\"silu\",\"tie_word_embeddings\":true,"
    "\"note\":\"kept\"}";

/* The names and shapes of transformers' models, independent of sago's tables. */
typedef struct entry {
    char name[128];
    int n_dims;
    int64_t shape[2];
    bool shared; /* holds the embedding, whatever its name */
} entry;

static int add(entry *list, int n, const char *name, int64_t a, int64_t b) {
    snprintf(list[n].name, sizeof list[n].name, "%s", name);
    list[n].n_dims = b ? 2 : 1;
    list[n].shape[0] = a;
    list[n].shape[1] = b ? b : 1;
    list[n].shared = strstr(name, "embed_tokens") || strcmp(name, "shared.weight") == 0;
    return n + 1;
}

static int add_attention(entry *list, int n, const char *prefix, const char *kind, bool bias, int buckets) {
    static const char *const parts[] = {"q", "k", "v", "o"};
    char name[128];
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s.%s.%s.weight", prefix, kind, parts[i]);
        n = i < 3 ? add(list, n, name, 6, 8) : add(list, n, name, 8, 6);
    }
    if (bias) {
        snprintf(name, sizeof name, "%s.%s.relative_attention_bias.weight", prefix, kind);
        n = add(list, n, name, buckets, 2);
    }
    snprintf(name, sizeof name, "%s.layer_norm.weight", prefix);
    return add(list, n, name, 8, 0);
}

static int list_model(entry *list, bool v11) {
    char prefix[64], name[128];
    int n = add(list, 0, "shared.weight", 11, 8), buckets = v11 ? 8 : 32;
    for (int decoder = 0; decoder < 2; decoder++) {
        const char *stack = decoder ? "decoder" : "encoder";
        for (int i = 0; i < (v11 ? 1 + decoder : 2); i++) {
            snprintf(prefix, sizeof prefix, "%s.block.%d.layer.0", stack, i);
            n = add_attention(list, n, prefix, "SelfAttention", i == 0, buckets);
            snprintf(prefix, sizeof prefix, "%s.block.%d.layer.1", stack, i);
            if (decoder) n = add_attention(list, n, prefix, "EncDecAttention", false, buckets);
            snprintf(prefix, sizeof prefix, "%s.block.%d.layer.%d", stack, i, 1 + decoder);
            static const char *const gated[] = {"wi_0", "wi_1"}, *const plain[] = {"wi"};
            for (int k = 0; k < (v11 ? 2 : 1); k++) {
                snprintf(name, sizeof name, "%s.DenseReluDense.%s.weight", prefix, v11 ? gated[k] : plain[k]);
                n = add(list, n, name, 12, 8);
            }
            snprintf(name, sizeof name, "%s.DenseReluDense.wo.weight", prefix);
            n = add(list, n, name, 8, 12);
            snprintf(name, sizeof name, "%s.layer_norm.weight", prefix);
            n = add(list, n, name, 8, 0);
        }
        snprintf(name, sizeof name, "%s.final_layer_norm.weight", stack);
        n = add(list, n, name, 8, 0);
    }
    return v11 ? add(list, n, "lm_head.weight", 11, 8) : n;
}

/* CohereForCausalLM's, of config_cohere. */
static int list_cohere(entry *list) {
    static const struct {
        const char *name;
        int64_t a, b;
    } parts[] = {{"input_layernorm", 8, 0},   {"self_attn.q_proj", 24, 8}, {"self_attn.k_proj", 12, 8},
                 {"self_attn.v_proj", 12, 8}, {"self_attn.o_proj", 8, 24}, {"mlp.gate_proj", 12, 8},
                 {"mlp.up_proj", 12, 8},      {"mlp.down_proj", 8, 12}};
    int n = add(list, 0, "model.embed_tokens.weight", 11, 8);
    for (int layer = 0; layer < 2; layer++)
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
            char name[128];
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, parts[i].name);
            n = add(list, n, name, parts[i].a, parts[i].b);
        }
    return add(list, n, "model.norm.weight", 8, 0);
}

/* Writes the tensors [first, end) of the list; element values say where they are from. */
static void write_file(const char *path, const entry *list, int first, int end) {
    sago_safetensor_entry entries[96] = {0};
    sago_str file = {0};
    for (int i = first; i < end; i++)
        entries[i - first] =
            (sago_safetensor_entry){list[i].name, list[i].n_dims, {list[i].shape[0], list[i].shape[1]}};
    sago_safetensors_header(entries, end - first, &file);
    for (int i = first; i < end; i++) {
        const char *values_of = list[i].shared ? "shared.weight" : list[i].name;
        uint64_t key = sago_hash_bytes(values_of, strlen(values_of));
        for (int64_t k = 0; k < list[i].shape[0] * list[i].shape[1]; k++) {
            float value = (float)sago_unit(sago_mix(key, (uint64_t)k));
            sago_str_add(&file, (const char *)&value, 4);
        }
    }
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(file.data, 1, file.length, out), file.length);
    assert_int_equal(fclose(out), 0);
    sago_str_free(&file);
}

static char *make_model(const char *name, const char *config, const entry *list, int n) {
    char *dir = sago_format("%s/%s", test_folder, name);
    assert_ok(sago_dir_make(dir));
    write_text(dir, "config.json", config);
    char *file = sago_path_join(dir, "model.safetensors");
    write_file(file, list, 0, n);
    free(file);
    return dir;
}

/* Two files hold the same tensors: names, dtypes, shapes, bytes. */
static void assert_same_file(const char *a, const char *b) {
    sago_safetensors *x, *y;
    assert_ok(sago_safetensors_open(a, &x));
    assert_ok(sago_safetensors_open(b, &y));
    assert_int_equal(sago_safetensors_count(x), sago_safetensors_count(y));
    for (int i = 0; i < sago_safetensors_count(x); i++) {
        const sago_safetensor *t = sago_safetensors_at(x, i), *u = sago_safetensors_find(y, t->name);
        if (!u) fail_msg("no %s", t->name);
        assert_string_equal(t->dtype, u->dtype);
        assert_int_equal(t->n_dims, u->n_dims);
        assert_memory_equal(t->shape, u->shape, sizeof t->shape);
        assert_int_equal(t->bytes, u->bytes);
        char *left = sago_alloc(t->bytes), *right = sago_alloc(t->bytes);
        assert_ok(sago_safetensors_read(x, t, 0, t->bytes, left));
        assert_ok(sago_safetensors_read(y, u, 0, t->bytes, right));
        assert_memory_equal(left, right, t->bytes);
        free(left);
        free(right);
    }
    sago_safetensors_close(x);
    sago_safetensors_close(y);
}

static void assert_round_trip(const char *model_dir) {
    char *ckpt = sago_format("%s.ckpt", model_dir), *out = sago_format("%s.out", model_dir);
    char *before = sago_format("%s/model.safetensors", model_dir),
         *after = sago_format("%s/model.safetensors", out);
    assert_ok(sago_hf_import(model_dir, ckpt));
    assert_ok(sago_hf_export(ckpt, out, true));
    assert_same_file(before, after);
    assert_ok(sago_hf_import(out, ckpt)); /* again, over the step that is there */
    assert_ok(sago_hf_export(ckpt, out, true));
    assert_same_file(before, after);
    free(ckpt);
    free(out);
    free(before);
    free(after);
}

static void round_trips(void **unused) {
    (void)unused;
    entry list[96];
    int n = list_model(list, true);
    char *v11 = make_model("v11", config_v11, list, n);
    write_text(v11, "spiece.model", "a tokenizer's bytes");
    assert_round_trip(v11);
    char *path = sago_format("%s.out/config.json", v11);
    json_t *config;
    assert_ok(sago_json_read(path, 0, &config));
    assert_string_equal(json_string_value(json_object_get(config, "note")), "kept");
    assert_string_equal(json_string_value(json_object_get(config, "feed_forward_proj")), "gated-gelu");
    assert_int_equal(json_integer_value(json_object_get(config, "num_decoder_layers")), 2);
    json_decref(config);
    free(path);
    path = sago_format("%s.out/spiece.model", v11);
    sago_str text = {0};
    assert_ok(sago_file_read(path, 0, &text));
    assert_string_equal(sago_str_text(&text), "a tokenizer's bytes");
    sago_str_free(&text);
    free(path);
    n = list_model(list, false);
    char *v10 = make_model("v10", config_v10, list, n);
    assert_round_trip(v10);
    /* Second names of the shared matrix come back; the tensor that no T5 reads does not. */
    int m = add(list, n, "encoder.embed_tokens.weight", 11, 8);
    m = add(list, m, "decoder.embed_tokens.weight", 11, 8);
    char *many = make_model("v10-names", config_v10, list, m);
    assert_round_trip(many);
    m = add(list, n, "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight", 32, 2);
    char *unread = make_model("v10-unread", config_v10, list, m);
    char *ckpt = sago_format("%s.ckpt", unread), *out = sago_format("%s.out", unread);
    assert_ok(sago_hf_import(unread, ckpt));
    assert_ok(sago_hf_export(ckpt, out, true));
    char *a = sago_format("%s/model.safetensors", v10), *b = sago_format("%s/model.safetensors", out);
    assert_same_file(a, b);
    free(a), free(b), free(ckpt), free(out), free(unread), free(many), free(v10), free(v11);
}

static void in_parts(void **unused) {
    (void)unused;
    entry list[96];
    int n = list_model(list, true);
    char *whole = make_model("whole", config_v11, list, n), *parts = sago_format("%s/parts", test_folder);
    assert_ok(sago_dir_make(parts));
    write_text(parts, "config.json", config_v11);
    json_t *map = json_object();
    for (int part = 0; part < 3; part++) {
        char *name = sago_format("model-%05d-of-00003.safetensors", part + 1),
             *path = sago_path_join(parts, name);
        int first = n * part / 3, end = n * (part + 1) / 3;
        write_file(path, list, first, end);
        for (int i = first; i < end; i++) json_object_set_new(map, list[i].name, json_string(name));
        free(name);
        free(path);
    }
    json_t *index = json_pack("{s:o}", "weight_map", map);
    char *path = sago_path_join(parts, "model.safetensors.index.json"), *ckpt = sago_format("%s.ckpt", parts),
         *out = sago_format("%s.out", parts);
    assert_ok(sago_json_write(path, index));
    assert_ok(sago_hf_import(parts, ckpt));
    assert_ok(sago_hf_export(ckpt, out, true));
    char *a = sago_format("%s/model.safetensors", whole), *b = sago_format("%s/model.safetensors", out);
    assert_same_file(a, b);
    json_object_set_new(map, "shared.weight", json_string("../whole/model.safetensors"));
    assert_ok(sago_json_write(path, index));
    assert_fails(sago_hf_import(parts, ckpt), SAGO_E_INPUT, "no name of a file in this folder");
    json_object_set_new(map, "shared.weight", json_string("model-00003-of-00003.safetensors"));
    assert_ok(sago_json_write(path, index));
    assert_fails(sago_hf_import(parts, ckpt), SAGO_E_INPUT, "tensor shared.weight is missing");
    json_object_set_new(map, "shared.weight", json_string("model-00009-of-00003.safetensors"));
    assert_ok(sago_json_write(path, index));
    assert_fails(sago_hf_import(parts, ckpt), SAGO_E_IO, "model-00009-of-00003.safetensors: cannot open");
    json_decref(index);
    free(a), free(b), free(path), free(ckpt), free(out), free(whole), free(parts);
}

static void wrong_models(void **unused) {
    (void)unused;
    entry list[96];
    int n = list_model(list, true);
    char *dir = make_model("wrong", config_v11, list, n), *file = sago_path_join(dir, "model.safetensors");
    char *ckpt = sago_format("%s.ckpt", dir);
    static const char *const configs[][2] = {
        {"{", "config.json:1:"},
        {"[]", "no JSON object"},
        {"{\"model_type\":\"bert\"}", "\"model_type\" is \"bert\""},
        {"{}", "\"model_type\" is missing"},
        {"{\"model_type\":\"t5\",\"feed_forward_proj\":\"gated-swish\"}", "\"gated-swish\""},
        {"{\"model_type\":\"t5\"}", "\"vocab_size\" is missing"},
        {"{\"model_type\":\"t5\",\"vocab_size\":-1}", "\"vocab_size\" is no positive integer"},
        {"{\"model_type\":\"t5\",\"vocab_size\":1.5}", "\"vocab_size\" is no positive integer"},
        {"{\"model_type\":\"t5\",\"vocab_size\":11,\"d_model\":8,\"num_heads\":2,\"d_ff\":12,\"num_layers\":"
         "9000000}",
         "encoder_layers"},
        {"{\"model_type\":\"t5\",\"tie_word_embeddings\":1}", "tie_word_embeddings"},
    };
    for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++) {
        write_text(dir, "config.json", configs[i][0]);
        sago_status status = sago_hf_import(dir, ckpt);
        assert_true(status == SAGO_E_INPUT || status == SAGO_E_SHAPE);
        if (!strstr(sago_message(), configs[i][1])) fail_msg("no %s in: %s", configs[i][1], sago_message());
    }
    write_text(dir, "config.json", config_v11);
    list[3].shape[0]++;
    write_file(file, list, 0, n);
    char part[256];
    snprintf(part, sizeof part, "tensor %s is F32[%d, 8]; config.json asks for [%d, 8]", list[3].name,
             (int)list[3].shape[0], (int)list[3].shape[0] - 1);
    assert_fails(sago_hf_import(dir, ckpt), SAGO_E_SHAPE, part);
    list[3].shape[0]--;
    write_file(file, list, 0, n - 1);
    assert_fails(sago_hf_import(dir, ckpt), SAGO_E_INPUT, "tensor lm_head.weight is missing");
    add(list, n, "encoder.block.1.layer.0.layer_norm.weight", 8, 0);
    write_file(file, list, 0, n + 1);
    assert_fails(sago_hf_import(dir, ckpt), SAGO_E_INPUT,
                 "layer_norm.weight belongs to no model of this config.json");
    write_file(file, list, 0, n);
    write_text(dir, "spiece.model", "");
    assert_fails(sago_hf_import(dir, ckpt), SAGO_E_INPUT, "spiece.model: is empty");
    assert_false(sago_ckpt_exists(ckpt)); /* nothing of all this was written */
    assert_int_equal(remove(file), 0);
    assert_fails(sago_hf_import(dir, ckpt), SAGO_E_INPUT, "neither model.safetensors nor");
    assert_fails(sago_hf_import(test_path("none"), ckpt), SAGO_E_IO, "none/config.json");
    free(dir), free(file), free(ckpt);
}

static void cohere_round_trips(void **unused) {
    (void)unused;
    entry list[96];
    int n = list_cohere(list);
    char *dir = make_model("cohere", config_cohere, list, n);
    assert_round_trip(dir);
    char *path = sago_format("%s.out/config.json", dir);
    json_t *before = json_loads(config_cohere, 0, NULL), *after;
    assert_ok(sago_json_read(path, 0, &after));
    const char *key;
    json_t *value;
    json_object_foreach(before, key, value) {
        if (!json_equal(value, json_object_get(after, key))) fail_msg("config.json: \"%s\" has changed", key);
    }
    json_decref(before);
    json_decref(after);
    free(path);
    /* A second name of the embedding comes back too; other contents under it are no tied model. */
    int m = add(list, n, "lm_head.weight", 11, 8);
    list[n].shared = true;
    char *many = make_model("cohere-names", config_cohere, list, m);
    assert_round_trip(many);
    list[n].shared = false;
    char *untied = make_model("cohere-untied", config_cohere, list, m),
         *ckpt = sago_format("%s.ckpt", untied);
    assert_fails(sago_hf_import(untied, ckpt), SAGO_E_INPUT,
                 "tensor lm_head.weight differs from the embedding");
    add(list, n, "model.layers.0.self_attn.q_norm.weight", 4, 6);
    char *normed = make_model("cohere-normed", config_cohere, list, m);
    assert_fails(sago_hf_import(normed, ckpt), SAGO_E_INPUT, "q_norm.weight belongs to no");
    assert_false(sago_ckpt_exists(ckpt));
    free(normed), free(untied), free(ckpt), free(many), free(dir);
}

/* The config.json of config_cohere with one key set to this JSON, or without it where json is NULL. */
static json_t *cohere_with(const char *key, const char *json) {
    json_t *config = json_loads(config_cohere, 0, NULL);
    if (json)
        json_object_set_new(config, key, json_loads(json, JSON_DECODE_ANY, NULL));
    else
        json_object_del(config, key);
    return config;
}

static void wrong_coheres(void **unused) {
    (void)unused;
    static const struct {
        const char *key, *json, *message;
    } wrong[] = {
        {"use_qk_norm", "true", "\"use_qk_norm\" must be false"},
        {"attention_bias", "true", "\"attention_bias\" must be false"},
        {"attention_bias", "1", "\"attention_bias\" must be false"},
        {"tie_word_embeddings", "false", "\"tie_word_embeddings\" must be true"},
        {"hidden_act", "\"gelu\"", "\"hidden_act\" is not \"silu\""},
        {"hidden_act", "null", "\"hidden_act\" is not \"silu\""},
        {"rope_scaling", "{\"rope_type\":\"linear\",\"factor\":2.0}", "\"rope_scaling\" is set"},
        {"rope_parameters", "{\"rope_type\":\"yarn\",\"rope_theta\":1e4}", "\"rope_type\" is \"yarn\""},
        {"rope_theta", "\"10000\"", "\"rope_theta\" is no number"},
        {"rope_theta", "0.5", "rope_theta is 0.5"},
        {"logit_scale", "null", "\"logit_scale\" is no number"},
        {"logit_scale", "-1", "logit_scale is -1"},
        {"layer_norm_eps", "true", "\"layer_norm_eps\" is no number"},
        {"head_dim", "5", "head_dim is 5"},
        {"num_key_value_heads", "3", "3 key/value heads do not divide 4 heads"},
        {"num_key_value_heads", "0", "\"num_key_value_heads\" is no positive integer"},
        {"hidden_size", NULL, "\"hidden_size\" is missing"},
        {"intermediate_size", NULL, "\"intermediate_size\" is missing"},
        {"model_type", "\"cohere2\"", "\"model_type\" is \"cohere2\""},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        sago_model_shape shape;
        json_t *config = cohere_with(wrong[i].key, wrong[i].json);
        sago_status status = sago_hf_read_config(config, "here/config.json", &shape);
        if (status == SAGO_OK) fail_msg("%s %s was read", wrong[i].key, wrong[i].json);
        const char *said = sago_message();
        if (!strstr(said, wrong[i].message)) fail_msg("no %s in: %s", wrong[i].message, said);
        assert_non_null(strstr(said, "here/config.json"));
        assert_null(strchr(said, '\n'));
        json_decref(config);
    }
}

static void cohere_defaults(void **unused) {
    (void)unused;
    sago_model_shape shape;
    json_t *config = json_loads(config_cohere, 0, NULL);
    assert_ok(sago_hf_read_config(config, "config.json", &shape));
    assert_string_equal(shape.family, "palm");
    assert_true(shape.rope_interleaved && shape.tied_embeddings && shape.activation == SAGO_SWIGLU);
    assert_true(shape.rope_theta == 5000 && shape.logit_scale == 0.3f && shape.norm_epsilon == 1e-6f);
    assert_int_equal(shape.kv_heads, 2);
    assert_int_equal(shape.head_dim, 6);
    /* What CohereConfig takes where a key is absent. */
    static const char *const absent[] = {
        "num_key_value_heads", "head_dim",       "layer_norm_eps", "logit_scale",         "rope_theta",
        "use_qk_norm",         "attention_bias", "hidden_act",     "tie_word_embeddings", "rope_scaling"};
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) json_object_del(config, absent[i]);
    assert_ok(sago_hf_read_config(config, "config.json", &shape));
    assert_int_equal(shape.kv_heads, 4);
    assert_int_equal(shape.head_dim, 2);
    assert_true(shape.rope_theta == 10000 && shape.logit_scale == 0.0625f && shape.norm_epsilon == 1e-5f);
    /* Where transformers 5 has theta; it is written back there alone. */
    json_object_set_new(config, "rope_parameters",
                        json_pack("{s:s, s:f}", "rope_type", "default", "rope_theta", 700.0));
    assert_ok(sago_hf_read_config(config, "config.json", &shape));
    assert_true(shape.rope_theta == 700);
    json_t *back = sago_hf_write_config(&shape, config);
    assert_null(json_object_get(back, "rope_theta"));
    assert_true(
        json_equal(json_object_get(back, "rope_parameters"), json_object_get(config, "rope_parameters")));
    json_decref(back);
    json_decref(config);
    /* A model of sago's own: the shortest decimals that are these floats. */
    shape.norm_epsilon = 1e-6f, shape.logit_scale = 0.1f;
    config = sago_hf_write_config(&shape, NULL);
    assert_true(json_real_value(json_object_get(config, "layer_norm_eps")) == 1e-6);
    assert_true(json_real_value(json_object_get(config, "logit_scale")) == 0.1);
    assert_true(json_real_value(json_object_get(config, "rope_theta")) == 700);
    sago_model_shape again;
    assert_ok(sago_hf_read_config(config, "config.json", &again));
    assert_memory_equal(&shape, &again, sizeof shape);
    json_decref(config);
}

/* Cohere turns neighbouring pairs: a model of halves under its name would compute something else. */
static void rotary_halves_are_not_exported(void **unused) {
    (void)unused;
    sago_model_shape shape;
    json_t *config = json_loads(config_cohere, 0, NULL), *meta = json_object();
    assert_ok(sago_hf_read_config(config, "config.json", &shape));
    shape.rope_interleaved = false;
    json_object_set_new(meta, "model", sago_model_shape_to_json(&shape));
    float value = 1;
    sago_piece piece = {"param/x", SAGO_F32, 1, {1, 1}, {0, 0}, {1, 1}, &value};
    const sago_ckpt_save save = {
        .dir = test_path("halves"), .step = 1, .pieces = &piece, .n_pieces = 1, .meta = meta};
    sago_ckpt_writer *writer;
    assert_ok(sago_ckpt_writer_open(NULL, false, &writer));
    assert_ok(sago_ckpt_writer_start(writer, &save));
    sago_ckpt_writer_close(writer);
    assert_fails(sago_hf_export(test_path("halves"), test_path("never"), false), SAGO_E_INPUT,
                 "model.rope is half");
    assert_false(sago_is_dir(test_path("never")));
    json_decref(meta);
    json_decref(config);
}

static void runs_are_safe(void **unused) {
    (void)unused;
    entry list[96];
    int n = list_model(list, true);
    char *dir = make_model("safe", config_v11, list, n), *ckpt = sago_format("%s.ckpt", dir);
    float value = 1;
    sago_piece piece = {"param/x", SAGO_F32, 1, {1, 1}, {0, 0}, {1, 1}, &value};
    const sago_ckpt_save save = {.dir = ckpt, .step = 7, .pieces = &piece, .n_pieces = 1};
    sago_ckpt_writer *writer;
    assert_ok(sago_ckpt_writer_open(NULL, false, &writer));
    assert_ok(sago_ckpt_writer_start(writer, &save));
    sago_ckpt_writer_close(writer);
    assert_fails(sago_hf_import(dir, ckpt), SAGO_E_BUSY, "holds the steps of a run");
    assert_fails(sago_hf_export(ckpt, test_path("never"), false), SAGO_E_INPUT,
                 "model"); /* no model in its meta */
    assert_false(sago_is_dir(test_path("never")));
    free(dir), free(ckpt);
}

static void goldens(void **unused) {
    (void)unused;
    const char *folder = getenv("SAGO_GOLDEN");
    if (!folder) skip();
    static const char *const models[] = {"t5", "t5-tied", "palm", "palm-gqa"};
    for (int i = 0; i < 4; i++) {
        char *model = sago_format("%s/%s/model", folder, models[i]),
             *ckpt = sago_format("%s/g%d", test_folder, i);
        char *out = sago_format("%s/g%d.out", test_folder, i);
        assert_ok(sago_hf_import(model, ckpt));
        assert_ok(sago_hf_export(ckpt, out, true));
        char *a = sago_format("%s/model.safetensors", model), *b = sago_format("%s/model.safetensors", out);
        assert_same_file(a, b);
        free(model), free(ckpt), free(out), free(a), free(b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(round_trips),
                                       cmocka_unit_test(in_parts),
                                       cmocka_unit_test(wrong_models),
                                       cmocka_unit_test(cohere_round_trips),
                                       cmocka_unit_test(wrong_coheres),
                                       cmocka_unit_test(cohere_defaults),
                                       cmocka_unit_test(rotary_halves_are_not_exported),
                                       cmocka_unit_test(runs_are_safe),
                                       cmocka_unit_test(goldens)};
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
