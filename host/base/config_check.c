// SPDX-License-Identifier: Apache-2.0
#include "config_schema.h"

#include <string.h>

static sago_status check_text(const sago_config_member *member, int i) {
    bool text = strcmp(member->format, "text") == 0, objective = strcmp(member->objective, "none") != 0;
    if (text && !objective)
        return sago_fail(
            SAGO_E_CONFIG,
            "data.mixture.%d.objective: text needs one: causal-lm, prefix-lm, span-corruption, ul2 or "
            "ul2r",
            i);
    if (!text && objective)
        return sago_fail(SAGO_E_CONFIG, "data.mixture.%d.objective: %s is for format text, not for %s", i,
                         member->objective, member->format);
    if (text && member->cap > 0)
        return sago_fail(SAGO_E_CONFIG, "data.mixture.%d.cap: text has no tasks that a cap could weigh", i);
    if (text && member->template_[0])
        return sago_fail(SAGO_E_CONFIG, "data.mixture.%d.template: text has no template", i);
    return SAGO_OK;
}

static sago_status check_mixture(const sago_config *config, const char **key) {
    double sum = 0;
    *key = "data.mixture";
    for (int i = 0; i < config->data.n_mixture; i++) {
        const sago_config_member *member = &config->data.mixture[i];
        sum += member->share;
        if (!member->name[0]) return sago_fail(SAGO_E_CONFIG, "data.mixture.%d.name: a name is needed", i);
        for (int j = 0; j < i; j++)
            if (strcmp(member->name, config->data.mixture[j].name) == 0)
                return sago_fail(SAGO_E_CONFIG, "data.mixture.%d.name: \"%s\" is the name of member %d too",
                                 i, member->name, j);
        SAGO_TRY(check_text(member, i));
    }
    if (config->data.n_mixture && !(sum > 0))
        return sago_fail(SAGO_E_CONFIG, "data.mixture: all shares are 0");
    return SAGO_OK;
}

static sago_status check_schedule(const sago_config *config, const char **key) {
    const char *name = config->optimizer.schedule;
    if (strcmp(name, "constant") == 0) return SAGO_OK;
    *key = "optimizer.schedule_steps";
    if (config->optimizer.schedule_steps < 1)
        return sago_fail(SAGO_E_CONFIG,
                         "optimizer.schedule_steps: the %s schedule needs its length in steps, at least 1",
                         name);
    *key = "optimizer.warmup_steps";
    if (strcmp(name, "rsqrt") != 0 && config->optimizer.warmup_steps >= config->optimizer.schedule_steps)
        return sago_fail(
            SAGO_E_CONFIG, "optimizer.warmup_steps: %lld must be less than optimizer.schedule_steps, %lld",
            (long long)config->optimizer.warmup_steps, (long long)config->optimizer.schedule_steps);
    return SAGO_OK;
}

sago_status config_check(const sago_config *config, const char **key) {
    SAGO_TRY(check_mixture(config, key));
    SAGO_TRY(check_schedule(config, key));
    *key = "train.spike.threshold";
    if (config->train.spike.threshold > 0 && config->train.spike.threshold <= 1)
        return sago_fail(SAGO_E_CONFIG,
                         "train.spike.threshold: %g is given, 0 (off) or a number above 1 is needed",
                         config->train.spike.threshold);
    return SAGO_OK;
}
