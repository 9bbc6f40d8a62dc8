// SPDX-License-Identifier: Apache-2.0
#include "template.h"

#include "file.h"
#include "rng.h"
#include "yaml_tree.h"

#include <stdlib.h>
#include <string.h>

enum { TEMPLATE_LIMIT_BYTES = 16 << 20 };

struct sago_templates {
    char *dir;
    sago_template_set **sets;
    int n_sets, n_wordings;
    char **names; /* a wording */
    sago_mapping **mappings;
    int n_mappings;
    sago_style *styles;
    int n_styles;
};

static const sago_embedded_file *find_embedded(const char *file) {
    for (const sago_embedded_file *at = sago_embedded_templates; at->name; at++)
        if (strcmp(at->name, file) == 0) return at;
    return NULL;
}

static sago_status list_names(const char *file, const char *folder) {
    sago_str names = {0};
    for (const sago_embedded_file *at = sago_embedded_templates; at->name; at++) {
        bool inside = sago_starts_with(at->name, "tables/");
        if (inside != (folder[0] != '\0') || !strcmp(at->name, "exemplars.yaml")) continue;
        const char *base = sago_path_base(at->name);
        sago_str_printf(&names, "%s%.*s", names.length ? ", " : "", (int)(strlen(base) - 5), base);
    }
    sago_status status = sago_fail(SAGO_E_CONFIG, "there is no template file %s; built in are: %s", file,
                                   sago_str_text(&names));
    sago_str_free(&names);
    return status;
}

/* The text of a template file: where name ends with .yaml that file, else FOLDER NAME.yaml of the user's
 * folder, else the built-in one. *shown is the name for messages. */
static sago_status read_file(const sago_templates *templates, const char *name, const char *folder,
                             sago_str *text, char **shown) {
    if (sago_ends_with(name, ".yaml")) {
        *shown = sago_strdup(name);
        return sago_file_read(name, TEMPLATE_LIMIT_BYTES, text);
    }
    char *file = sago_format("%s%s.yaml", folder, name);
    char *own = templates->dir[0] ? sago_path_join(templates->dir, file) : NULL;
    const sago_embedded_file *built_in = find_embedded(file);
    sago_status status = SAGO_OK;
    if (own && sago_is_file(own)) {
        *shown = sago_strdup(own);
        status = sago_file_read(own, TEMPLATE_LIMIT_BYTES, text);
    } else {
        *shown = sago_format("templates/%s", file);
        if (built_in)
            sago_str_add(text, (const char *)built_in->text, built_in->length);
        else
            status = list_names(*shown, folder);
    }
    free(file), free(own);
    return status;
}

static void free_set(sago_template_set *set) {
    if (!set) return;
    for (int i = 0; i < set->n_wordings; i++) {
        sago_wording *wording = &set->wordings[i];
        free(wording->name), free(wording->marker);
        sago_pattern_free(wording->instruction), sago_pattern_free(wording->lead);
        sago_pattern_free(wording->inputs);
        sago_pattern_free(wording->cue), sago_pattern_free(wording->targets);
    }
    free(set->wordings), free(set->name);
    free(set);
}

void sago_templates_close(sago_templates *templates) {
    if (!templates) return;
    for (int i = 0; i < templates->n_sets; i++) free_set(templates->sets[i]);
    for (int i = 0; i < templates->n_wordings; i++) free(templates->names[i]);
    for (int i = 0; i < templates->n_mappings; i++) sago_mapping_free(templates->mappings[i]);
    for (int i = 0; i < templates->n_styles; i++) {
        free(templates->styles[i].name), free(templates->styles[i].before);
        free(templates->styles[i].between), free(templates->styles[i].after);
    }
    free(templates->sets), free(templates->names), free(templates->mappings), free(templates->styles);
    free(templates->dir);
    free(templates);
}

static sago_status read_pattern(const sago_yaml *yaml, const yaml_node_t *node, const char *key,
                                sago_pattern **out) {
    const char *text = sago_yaml_text(node);
    if (!text) return sago_yaml_fail(yaml, node, "%s: a text is needed", key);
    return sago_pattern_parse(text, yaml->name, sago_yaml_line(node), out);
}

static sago_status read_wording(sago_yaml *yaml, yaml_node_t *node, sago_wording *out) {
    if (!node || node->type != YAML_MAPPING_NODE) return sago_yaml_fail(yaml, node, "a wording needs keys");
    out->line = sago_yaml_line(node);
    out->marker = sago_strdup("");
    for (int i = 0; i < sago_yaml_count(node); i++) {
        const char *key;
        yaml_node_t *value;
        sago_yaml_pair(yaml, node, i, &key, &value);
        if (!strcmp(key, "name"))
            SAGO_TRY(sago_yaml_read_text(yaml, value, key, &out->name));
        else if (!strcmp(key, "instruction"))
            SAGO_TRY(read_pattern(yaml, value, key, &out->instruction));
        else if (!strcmp(key, "lead"))
            SAGO_TRY(read_pattern(yaml, value, key, &out->lead));
        else if (!strcmp(key, "inputs"))
            SAGO_TRY(read_pattern(yaml, value, key, &out->inputs));
        else if (!strcmp(key, "cue"))
            SAGO_TRY(read_pattern(yaml, value, key, &out->cue));
        else if (!strcmp(key, "targets"))
            SAGO_TRY(read_pattern(yaml, value, key, &out->targets));
        else if (!strcmp(key, "marker"))
            SAGO_TRY(sago_yaml_read_text(yaml, value, key, &out->marker));
        else if (!strcmp(key, "inverted"))
            SAGO_TRY(sago_yaml_read_bool(yaml, value, key, &out->inverted));
        else
            return sago_yaml_fail(yaml, value,
                                  "unknown key \"%s\"; a wording has name, instruction, lead, inputs, "
                                  "cue, targets, marker, inverted",
                                  key);
    }
    if (!out->name || !out->inputs || !out->targets)
        return sago_yaml_fail(yaml, node, "a wording needs name, inputs and targets");
    return SAGO_OK;
}

static sago_status read_wordings(sago_yaml *yaml, const char *label, sago_template_set *set) {
    yaml_node_t *root = sago_yaml_root(yaml), *list = NULL;
    if (!root || root->type != YAML_MAPPING_NODE)
        return sago_yaml_fail(yaml, root, "the keys category and wordings are needed");
    for (int i = 0; i < sago_yaml_count(root); i++) {
        const char *key;
        yaml_node_t *value;
        sago_yaml_pair(yaml, root, i, &key, &value);
        if (!strcmp(key, "wordings"))
            list = value;
        else if (strcmp(key, "category") != 0)
            return sago_yaml_fail(yaml, value, "unknown key \"%s\"; there are category and wordings", key);
        else if (!sago_yaml_text(value) || strcmp(sago_yaml_text(value), label) != 0)
            return sago_yaml_fail(yaml, value, "category must be the file's name, \"%s\"", label);
    }
    if (!list || list->type != YAML_SEQUENCE_NODE || sago_yaml_count(list) == 0)
        return sago_yaml_fail(yaml, list ? list : root, "wordings: a list is needed");
    set->wordings = sago_alloc_zero((size_t)sago_yaml_count(list), sizeof *set->wordings);
    for (int i = 0; i < sago_yaml_count(list); i++) {
        yaml_node_t *item = sago_yaml_item(yaml, list, i);
        set->n_wordings++;
        SAGO_TRY(read_wording(yaml, item, &set->wordings[i]));
        for (int k = 0; k < i; k++)
            if (!strcmp(set->wordings[k].name, set->wordings[i].name))
                return sago_yaml_fail(yaml, item, "two wordings are called \"%s\"", set->wordings[i].name);
    }
    return SAGO_OK;
}

/* "nli" of "nli" and of "/home/me/nli.yaml". */
static char *short_name(const char *name) {
    const char *base = sago_path_base(name);
    size_t length = strlen(base);
    return sago_strndup(base, sago_ends_with(base, ".yaml") ? length - 5 : length);
}

sago_status sago_templates_set(sago_templates *templates, const char *name, const sago_template_set **out) {
    for (int i = 0; i < templates->n_sets; i++) {
        if (strcmp(templates->sets[i]->name, name) == 0) {
            *out = templates->sets[i];
            return SAGO_OK;
        }
    }
    sago_template_set *set = sago_alloc_zero(1, sizeof *set);
    sago_str text = {0};
    sago_yaml yaml = {0};
    char *label = short_name(name), *shown = NULL;
    sago_status status;
    set->name = sago_strdup(name);
    set->first = templates->n_wordings;
    SAGO_TRY_TO(done, read_file(templates, name, "", &text, &shown));
    SAGO_TRY_TO(done, sago_yaml_parse(&yaml, shown, sago_str_text(&text), text.length));
    SAGO_TRY_TO(done, read_wordings(&yaml, label, set));
    templates->sets =
        sago_realloc(templates->sets, (size_t)(templates->n_sets + 1) * sizeof *templates->sets);
    templates->sets[templates->n_sets++] = set;
    int count = templates->n_wordings + set->n_wordings;
    templates->names = sago_realloc(templates->names, (size_t)count * sizeof *templates->names);
    for (int i = 0; i < set->n_wordings; i++)
        templates->names[templates->n_wordings++] = sago_format("%s/%s", label, set->wordings[i].name);
    *out = set;
done:
    if (status != SAGO_OK) free_set(set);
    sago_yaml_free(&yaml);
    sago_str_free(&text);
    free(label), free(shown);
    return status;
}

sago_status sago_templates_mapping(sago_templates *templates, const char *name, const sago_mapping **out) {
    for (int i = 0; i < templates->n_mappings; i++) {
        if (strcmp(templates->mappings[i]->name, name) == 0) {
            *out = templates->mappings[i];
            return SAGO_OK;
        }
    }
    sago_str text = {0};
    sago_mapping *mapping = NULL;
    char *shown = NULL;
    sago_status status;
    SAGO_TRY_TO(done, read_file(templates, name, "tables/", &text, &shown));
    SAGO_TRY_TO(done, sago_mapping_parse(name, shown, sago_str_text(&text), text.length, &mapping));
    templates->mappings =
        sago_realloc(templates->mappings, (size_t)(templates->n_mappings + 1) * sizeof *templates->mappings);
    templates->mappings[templates->n_mappings++] = mapping;
    *out = mapping;
done:
    sago_str_free(&text);
    free(shown);
    return status;
}

static sago_status read_styles(sago_yaml *yaml, sago_templates *templates) {
    yaml_node_t *root = sago_yaml_root(yaml), *list = NULL;
    const char *key = "";
    if (sago_yaml_count(root) == 1 && root->type == YAML_MAPPING_NODE)
        sago_yaml_pair(yaml, root, 0, &key, &list);
    if (strcmp(key, "styles") != 0 || !list || list->type != YAML_SEQUENCE_NODE || !sago_yaml_count(list))
        return sago_yaml_fail(yaml, root, "styles: a list is needed");
    templates->styles = sago_alloc_zero((size_t)sago_yaml_count(list), sizeof *templates->styles);
    for (int i = 0; i < sago_yaml_count(list); i++) {
        yaml_node_t *item = sago_yaml_item(yaml, list, i), *value;
        sago_style *style = &templates->styles[templates->n_styles++];
        if (item->type != YAML_MAPPING_NODE) return sago_yaml_fail(yaml, item, "a style needs keys");
        for (int k = 0; k < sago_yaml_count(item); k++) {
            sago_yaml_pair(yaml, item, k, &key, &value);
            char **to = !strcmp(key, "name")      ? &style->name
                        : !strcmp(key, "before")  ? &style->before
                        : !strcmp(key, "between") ? &style->between
                        : !strcmp(key, "after")   ? &style->after
                                                  : NULL;
            if (!to)
                return sago_yaml_fail(yaml, value,
                                      "unknown key \"%s\"; a style has name, before, between, after", key);
            SAGO_TRY(sago_yaml_read_text(yaml, value, key, to));
        }
        if (!style->name || !style->before || !style->between || !style->after)
            return sago_yaml_fail(yaml, item, "a style needs name, before, between and after");
    }
    return SAGO_OK;
}

sago_status sago_templates_open(const char *dir, sago_templates **out) {
    sago_templates *templates = sago_alloc_zero(1, sizeof *templates);
    sago_str text = {0};
    sago_yaml yaml = {0};
    char *shown = NULL;
    sago_status status = SAGO_OK;
    *out = NULL;
    templates->dir = sago_strdup(dir ? dir : "");
    if (templates->dir[0] && !sago_is_dir(templates->dir)) {
        status = sago_fail(SAGO_E_CONFIG, "data.templates: %s is no folder", templates->dir);
        goto done;
    }
    SAGO_TRY_TO(done, read_file(templates, "exemplars", "", &text, &shown));
    SAGO_TRY_TO(done, sago_yaml_parse(&yaml, shown, sago_str_text(&text), text.length));
    SAGO_TRY_TO(done, read_styles(&yaml, templates));
    *out = templates;
done:
    if (status != SAGO_OK) sago_templates_close(templates);
    sago_yaml_free(&yaml);
    sago_str_free(&text);
    free(shown);
    return status;
}

int sago_templates_styles(const sago_templates *templates) {
    return templates->n_styles;
}

const sago_style *sago_templates_style(const sago_templates *templates, int i) {
    return &templates->styles[i];
}

int sago_templates_count(const sago_templates *templates) {
    return templates->n_wordings;
}

void sago_templates_find(const sago_templates *templates, int number, const sago_template_set **set,
                         const sago_wording **wording) {
    int i = templates->n_sets - 1;
    while (templates->sets[i]->first > number) i--;
    *set = templates->sets[i];
    *wording = &templates->sets[i]->wordings[number - templates->sets[i]->first];
}

const char *sago_templates_name(const sago_templates *templates, int number) {
    return number >= 0 && number < templates->n_wordings ? templates->names[number] : "";
}
