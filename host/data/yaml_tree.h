// SPDX-License-Identifier: Apache-2.0
/**
 * YAML tree: libyaml's document behind the few calls that template and mapping files need; every error names
 * file and line.
 */
#ifndef SAGO_YAML_TREE_H
#define SAGO_YAML_TREE_H

#include "status.h"
#include "str.h"

#include <yaml.h>

typedef struct sago_yaml {
    const char *name;
    yaml_document_t document;
    bool loaded;
} sago_yaml;

/** Parses the first document of a text. SAGO_E_CONFIG with "NAME:LINE". name must outlive the tree. */
sago_status sago_yaml_parse(sago_yaml *yaml, const char *name, const char *text,
                            size_t length) SAGO_MUST_CHECK;
void sago_yaml_free(sago_yaml *yaml);

yaml_node_t *sago_yaml_root(sago_yaml *yaml); /* NULL for an empty document */
yaml_node_t *sago_yaml_node(sago_yaml *yaml, int id);
int sago_yaml_line(const yaml_node_t *node); /* from 1 */

/** SAGO_E_CONFIG "NAME:LINE: MESSAGE". */
sago_status sago_yaml_fail(const sago_yaml *yaml, const yaml_node_t *node, const char *format, ...)
    SAGO_PRINTF(3, 4);

/** Text of a scalar node; NULL for other kinds. */
const char *sago_yaml_text(const yaml_node_t *node);

/** Number of items of a sequence, or pairs of a mapping; 0 for others. */
int sago_yaml_count(const yaml_node_t *node);
yaml_node_t *sago_yaml_item(sago_yaml *yaml, yaml_node_t *node, int i);
/** Pair i of a mapping; the key is a scalar, checked at parsing. */
void sago_yaml_pair(sago_yaml *yaml, yaml_node_t *node, int i, const char **key, yaml_node_t **value);

/** A scalar's text, copied; a list of such; true or false. SAGO_E_CONFIG for other nodes. */
sago_status sago_yaml_read_text(const sago_yaml *yaml, const yaml_node_t *node, const char *key,
                                char **out) SAGO_MUST_CHECK;
sago_status sago_yaml_read_list(sago_yaml *yaml, yaml_node_t *node, const char *key, char ***out,
                                int *count) SAGO_MUST_CHECK;
sago_status sago_yaml_read_bool(const sago_yaml *yaml, const yaml_node_t *node, const char *key,
                                bool *out) SAGO_MUST_CHECK;

#endif
