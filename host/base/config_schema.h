// SPDX-License-Identifier: Apache-2.0
/**
 * Inside of the configuration: the schema that everything about it is driven by, and the parts that share it.
 * Only files of host/base/config_*.c include this.
 *
 *     config_schema.c   the table: a row a key
 *     config_yaml.c     YAML text -> tree of nodes with line numbers
 *     config_value.c    one node -> one field; one field -> text
 *     config_load.c     tree and --set -> sago_config
 *     config_write.c    sago_config -> YAML; what may change on resume
 *     config_docs.c     docs/config.md
 */
#ifndef SAGO_CONFIG_SCHEMA_H
#define SAGO_CONFIG_SCHEMA_H

#include "config.h"

typedef enum config_kind {
    CONFIG_BOOL,    /* bool */
    CONFIG_INT,     /* int64_t, range low to high */
    CONFIG_NUMBER,  /* double, range low to high */
    CONFIG_TEXT,    /* char *, never NULL */
    CONFIG_CHOICE,  /* char *, one of choices */
    CONFIG_PATH,    /* char *, absolute once loaded; a word among choices is none */
    CONFIG_NAME,    /* char *, a name; what ends with .yaml is a path, absolute once loaded */
    CONFIG_TEXTS,   /* sago_string_list */
    CONFIG_RECORDS, /* pointer to structs described by record, their number at count_offset */
} config_kind;

typedef struct config_record config_record;

/* The upper end of ranges that have none: whole numbers up to here are exact in a double as well. */
#define CONFIG_LARGEST 1e15

typedef struct config_key {
    const char *path; /* "run.steps"; inside a record the bare name */
    config_kind kind;
    size_t offset;         /* of the field in sago_config, or in the record's struct */
    const char *otherwise; /* default as YAML text; NULL: must be given (in records alone) */
    double low, high;
    const char *choices; /* "fp32|bf16" */
    bool may_change;     /* when a run continues */
    const char *doc;     /* a sentence or two */
    const config_record *record;
    size_t count_offset;
} config_key;

struct config_record {
    const char *noun; /* "member" */
    size_t bytes;
    const config_key *keys; /* ends with a path of NULL; the first names the record in --set, may be */
};

typedef struct config_section {
    const char *path, *doc;
} config_section;

extern const config_key config_keys[];         /* ends with a path of NULL */
extern const config_section config_sections[]; /* in the order of docs; ends with NULL */

/** The row of that path among keys, or NULL. */
const config_key *config_find(const config_key *keys, const char *path);
/** Is path a section ("train", "train.spike")? */
bool config_is_section(const char *path);

/* --- config_yaml.c
 * ------------------------------------------------------------------------------------------------ */

typedef enum config_node_kind { CONFIG_NODE_SCALAR, CONFIG_NODE_LIST, CONFIG_NODE_MAP } config_node_kind;

typedef struct config_node {
    config_node_kind kind;
    int line;                  /* from 1 */
    char *text;                /* of a scalar; no NUL inside */
    bool plain;                /* not quoted: may be a number, a bool or empty */
    struct config_node *items; /* of a map: key, value, key, value ... */
    int count, room;
} config_node;

enum {
    CONFIG_MAX_BYTES = 4 << 20,
    CONFIG_MAX_DEPTH = 12,
    CONFIG_MAX_NODES = 200000,
};

/** Parses one document. name is for messages: a file, or "" when text came from --set (then at names the
 * key). */
sago_status config_yaml_parse(const char *text, size_t length, const char *name,
                              config_node *out) SAGO_MUST_CHECK;
void config_node_free(config_node *node);

/* --- config_value.c
 * ----------------------------------------------------------------------------------------------- */

/** Where a value stands, for messages and for relative paths. */
typedef struct config_place {
    const char *file; /* NULL: --set */
    int line;
    const char *path;   /* whole key: "data.mixture.0.share" */
    const char *folder; /* that relative paths count from */
} config_place;

/** SAGO_E_CONFIG: "FILE:LINE: KEY: ..." or "--set KEY: ...". */
sago_status config_fail(const config_place *place, const char *format, ...) SAGO_PRINTF(2, 3);

/** Replaces the field by the node's value. On failure the field keeps its old value. Not for CONFIG_RECORDS.
 */
sago_status config_value_read(const config_key *key, const config_node *node, const config_place *place,
                              void *field);

/** Sets the default; field is uninitialised before. */
void config_value_default(const config_key *key, void *field);
void config_value_free(const config_key *key, void *field);

/** Appends the value in YAML flow form, on one line. */
void config_value_text(const config_key *key, const void *field, sago_str *out);
/** Appends text as a YAML scalar that reads back to the same bytes, quoted where it must be. */
void config_scalar_text(const char *text, sago_str *out);
/** Appends a double with the fewest digits that read back to the same bits. */
void config_number_text(double value, sago_str *out);

/** "a whole number from 1 to 100", "true or false": what a key takes. */
void config_value_range(const config_key *key, sago_str *out);

static inline void *config_field(const config_key *key, const void *base) {
    return (char *)(uintptr_t)base + key->offset;
}
static inline int *config_count(const config_key *key, const void *base) {
    return (int *)((char *)(uintptr_t)base + key->count_offset);
}

/* --- config_load.c
 * ------------------------------------------------------------------------------------------------ */

/** Defaults of all keys into the struct at base, which is uninitialised; frees them. */
void config_record_default(const config_key *keys, void *base);
void config_record_free(const config_key *keys, void *base);

/* --- config_check.c
 * ----------------------------------------------------------------------------------------------- */

/** What spans several keys. Errors name the key and both values; the caller puts file and line in front. */
sago_status config_check(const sago_config *config, const char **key) SAGO_MUST_CHECK;

#endif
