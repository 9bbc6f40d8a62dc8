// SPDX-License-Identifier: Apache-2.0
/**
 * Sharding rules: text of the configuration that says which logical axis of the parameters is cut over which
 * axis of the mesh.
 *
 *     heads: model     cut query heads over the model axis
 *     embed: none      never cut the model width
 *
 * The first rule that names an axis decides about it. A parameter is cut along one dim at most: rules come in
 * order of preference, so of two dims that both may be cut the one of the earlier rule is.
 */
#ifndef SAGO_RULES_H
#define SAGO_RULES_H

#include "registry.h"

/** "vocab", "embed", "heads", "kv", "mlp", "buckets", "none". */
const char *sago_axis_name(sago_axis axis);

/** The dim that is cut over the model axis, -1 when none. SAGO_E_CONFIG names a rule that can't be read. */
sago_status sago_rules_dim(const char *const rules[], int n_rules, int n_dims, const sago_axis axes[],
                           int *dim) SAGO_MUST_CHECK;

#endif
