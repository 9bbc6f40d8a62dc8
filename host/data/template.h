// SPDX-License-Identifier: Apache-2.0
/**
 * Templates: sets of wordings for a category of tasks, and styles that lay out exemplars. Read from YAML
 * files, those of configs/templates (part of the program) or of the folder data.templates, which come first.
 *
 *     category: nli
 *     wordings:
 *       - name: does-it-follow
 *         instruction: "Decide whether the second text follows from the first.\n\n"   # once, before
 * exemplars lead: "Text: "                                                              # zero-shot only
 *         inputs: "{premise}\nDoes this mean that {hypothesis:small}?\n{options:dashes}"
 *         cue: "\nAnswer:"                                                            # zero-shot only
 *         targets: "{answer}"
 *
 * Zero-shot prompt = instruction + lead + inputs + cue. Few-shot prompt = instruction + exemplars and query
 * laid out by a style.
 */
#ifndef SAGO_TEMPLATE_H
#define SAGO_TEMPLATE_H

#include "mapping.h"
#include "pattern.h"

typedef struct sago_wording {
    char *name;
    sago_pattern *instruction, *lead, *inputs, *cue, *targets; /* instruction, lead and cue may be NULL */
    char *marker;  /* the answer follows this text in the targets; "" where the targets are the answer */
    bool inverted; /* asks for the question, so it is not for evaluation */
    int line;
} sago_wording;

typedef struct sago_template_set {
    char *name;
    int first; /* number of the first wording among all that were loaded */
    sago_wording *wordings;
    int n_wordings;
} sago_template_set;

/** before + inputs + between + targets + after, for each exemplar; "{number}" counts from 1. */
typedef struct sago_style {
    char *name, *before, *between, *after;
} sago_style;

typedef struct sago_templates sago_templates;

/** dir "": the built-in files alone. Loads the styles. */
sago_status sago_templates_open(const char *dir, sago_templates **out) SAGO_MUST_CHECK;
void sago_templates_close(sago_templates *templates);

/**
 * The set of this name, or of a file where it ends with .yaml; loaded at first use. SAGO_E_CONFIG with file
 * and line, or the names there are.
 */
sago_status sago_templates_set(sago_templates *templates, const char *name,
                               const sago_template_set **out) SAGO_MUST_CHECK;

/** The mapping of tables/NAME.yaml, or of a file where name ends with .yaml. */
sago_status sago_templates_mapping(sago_templates *templates, const char *name,
                                   const sago_mapping **out) SAGO_MUST_CHECK;

int sago_templates_styles(const sago_templates *templates);
const sago_style *sago_templates_style(const sago_templates *templates, int i);

/** Number of wordings loaded so far, and the set and wording behind a number. */
int sago_templates_count(const sago_templates *templates);
void sago_templates_find(const sago_templates *templates, int number, const sago_template_set **set,
                         const sago_wording **wording);
/** "SET/WORDING", as long as the templates are open. */
const char *sago_templates_name(const sago_templates *templates, int number);

/** The files that are part of the program; name "nli.yaml" or "tables/svamp.yaml". Ends with a name of NULL.
 */
typedef struct sago_embedded_file {
    const char *name;
    const unsigned char *text;
    size_t length;
} sago_embedded_file;
extern const sago_embedded_file sago_embedded_templates[];

#endif
