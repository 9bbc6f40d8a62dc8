// SPDX-License-Identifier: Apache-2.0
#include "block.h"

#include <stdio.h>

/* --- rows and room
 * ---------------------------------------------------------------------------------------------- */

/* PREFIX.norm and the attention's rows under PREFIX, "encoder.3.attention". */
static sago_status declare_attention(sago_block *block, sago_norm *norm, sago_attention *attention,
                                     sago_registry *registry, const char *prefix, const sago_model_shape *shape,
                                     int bias, bool cross) {
    SAGO_TRY(sago_norm_declare(norm, registry, block->number, prefix, "norm", shape));
    return sago_attention_declare(attention, registry, block->number, prefix, shape, bias,
                                  cross || block->kind == SAGO_BLOCK_ENCODER, cross);
}

sago_status sago_block_declare(sago_block *block, sago_registry *registry, sago_block_kind kind, int number,
                               const char *name, int layer, const sago_model_shape *shape, int bias) {
    *block = (sago_block){.kind = kind, .number = number, .d_model = shape->d_model};
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s.%d", name, layer);
    if (kind == SAGO_BLOCK_PARALLEL) {
        SAGO_TRY(sago_norm_declare(&block->self_norm, registry, number, prefix, "norm", shape));
        snprintf(prefix, sizeof prefix, "%s.%d.attention", name, layer);
        SAGO_TRY(sago_attention_declare(&block->self, registry, number, prefix, shape, bias, false, false));
        snprintf(prefix, sizeof prefix, "%s.%d.mlp", name, layer);
        return sago_mlp_declare(&block->mlp, registry, number, prefix, shape);
    }
    bool decoder = kind == SAGO_BLOCK_DECODER;
    snprintf(prefix, sizeof prefix, "%s.%d.%s", name, layer, decoder ? "self_attention" : "attention");
    SAGO_TRY(declare_attention(block, &block->self_norm, &block->self, registry, prefix, shape, bias, false));
    if (decoder) {
        snprintf(prefix, sizeof prefix, "%s.%d.cross_attention", name, layer);
        SAGO_TRY(declare_attention(block, &block->cross_norm, &block->cross, registry, prefix, shape, -1, true));
    }
    snprintf(prefix, sizeof prefix, "%s.%d.mlp", name, layer);
    SAGO_TRY(sago_norm_declare(&block->mlp_norm, registry, number, prefix, "norm", shape));
    return sago_mlp_declare(&block->mlp, registry, number, prefix, shape);
}

void sago_block_plan(const sago_block *block, const sago_plan *plan, int64_t tokens, int64_t memory_tokens,
                     sago_block_saved *saved) {
    *saved = (sago_block_saved){0};
    sago_norm_plan(&block->self_norm, plan, tokens, &saved->self_norm);
    saved->self_normed = sago_plan_take(plan, tokens * block->d_model);
    sago_attention_plan(&block->self, plan, tokens, tokens, &saved->self);
    if (block->kind != SAGO_BLOCK_PARALLEL) {
        saved->after_self = sago_plan_take(plan, tokens * block->d_model);
        if (block->kind == SAGO_BLOCK_DECODER) {
            sago_norm_plan(&block->cross_norm, plan, tokens, &saved->cross_norm);
            saved->cross_normed = sago_plan_take(plan, tokens * block->d_model);
            sago_attention_plan(&block->cross, plan, tokens, memory_tokens, &saved->cross);
            saved->after_cross = sago_plan_take(plan, tokens * block->d_model);
        }
        sago_norm_plan(&block->mlp_norm, plan, tokens, &saved->mlp_norm);
        saved->mlp_normed = sago_plan_take(plan, tokens * block->d_model);
    }
    sago_mlp_plan(&block->mlp, plan, tokens, &saved->mlp);
}

void sago_block_plan_work(const sago_block *block, const sago_plan *plan, int64_t tokens,
                          int64_t memory_tokens, sago_block_work *work) {
    work->d_normed = sago_plan_take(plan, tokens * block->d_model);
    work->d_sum = block->kind == SAGO_BLOCK_PARALLEL ? sago_plan_take(plan, tokens * block->d_model) : NULL;
    sago_overlap overlap = sago_overlap_begin(plan->arena);
    sago_attention_plan_work(&block->self, plan, tokens, tokens, &work->self);
    sago_overlap_next(&overlap, plan->arena);
    if (block->kind == SAGO_BLOCK_DECODER)
        sago_attention_plan_work(&block->cross, plan, tokens, memory_tokens, &work->cross);
    sago_overlap_next(&overlap, plan->arena);
    sago_mlp_plan_work(&block->mlp, plan, tokens, &work->mlp);
    sago_overlap_end(&overlap, plan->arena);
}

static sago_tensor at(void *data, sago_tensor like) {
    like.data = data;
    return like;
}

/* --- T5: one sub-layer after another
 * ---------------------------------------------------------------------------- */

/* out = x + dropout(attention(norm(x))); out.data NULL: only fills what is saved. */
static sago_status attend(const sago_pass *pass, const sago_norm *norm, const sago_norm_saved *norm_saved,
                          void *normed, const sago_attention *layer, const sago_attention_saved *saved, int site,
                          sago_tensor out, sago_tensor x, const sago_attention_inputs *inputs) {
    sago_tensor n = at(normed, x);
    SAGO_TRY(sago_norm_forward(norm, pass, norm_saved, n, x));
    SAGO_TRY(sago_attention_forward(layer, pass, saved, n, inputs));
    if (!out.data) return SAGO_OK;
    return sago_linear_residual(pass, out, x, sago_attention_output(layer, pass, saved, n), layer->output, site);
}

static sago_status attend_backward(const sago_pass *pass, const sago_norm *norm, const sago_norm_saved *norm_saved,
                                   void *normed, const sago_attention *layer, const sago_attention_saved *saved,
                                   int site, void *d_normed, const sago_attention_work *work, sago_tensor d_x,
                                   sago_tensor d_memory, sago_tensor x, const sago_attention_inputs *inputs) {
    sago_tensor n = at(normed, x), d_n = at(d_normed, x), d_out;
    SAGO_TRY(sago_residual_gradient(pass, &d_out, d_x, d_normed, site));
    SAGO_TRY(sago_attention_backward(layer, pass, saved, work, d_n, 0, d_memory, d_out, n, inputs));
    return sago_norm_backward(norm, pass, norm_saved, d_x, d_n, x);
}

static sago_status run_serial(const sago_block *b, const sago_pass *pass, const sago_block_saved *saved,
                              sago_tensor out, sago_tensor x, const sago_block_inputs *inputs) {
    sago_tensor after = at(saved->after_self, x);
    SAGO_TRY(attend(pass, &b->self_norm, &saved->self_norm, saved->self_normed, &b->self, &saved->self,
                    sago_block_site(b, SAGO_SITE_OUTPUT), after, x, &inputs->self));
    if (b->kind == SAGO_BLOCK_DECODER) {
        sago_tensor after_self = after;
        after = at(saved->after_cross, x);
        SAGO_TRY(attend(pass, &b->cross_norm, &saved->cross_norm, saved->cross_normed, &b->cross, &saved->cross,
                        sago_block_site(b, SAGO_SITE_CROSS_OUTPUT), after, after_self, &inputs->cross));
    }
    sago_tensor n = at(saved->mlp_normed, x);
    SAGO_TRY(sago_norm_forward(&b->mlp_norm, pass, &saved->mlp_norm, n, after));
    SAGO_TRY(sago_mlp_forward(&b->mlp, pass, &saved->mlp, n));
    if (!out.data) return SAGO_OK;
    return sago_linear_residual(pass, out, after, sago_mlp_output(&b->mlp, pass, &saved->mlp, n), b->mlp.out,
                                sago_block_site(b, SAGO_SITE_MLP_OUTPUT));
}

static sago_status back_serial(const sago_block *b, const sago_pass *pass, const sago_block_saved *saved,
                               const sago_block_work *work, sago_tensor d_x, sago_tensor d_memory, sago_tensor x,
                               const sago_block_inputs *inputs) {
    const sago_tensor none = {0};
    bool decoder = b->kind == SAGO_BLOCK_DECODER;
    sago_tensor after_self = at(saved->after_self, x), after = decoder ? at(saved->after_cross, x) : after_self;
    sago_tensor n = at(saved->mlp_normed, x), d_n = at(work->d_normed, x), d_out;
    SAGO_TRY(sago_residual_gradient(pass, &d_out, d_x, work->d_normed, sago_block_site(b, SAGO_SITE_MLP_OUTPUT)));
    SAGO_TRY(sago_mlp_backward(&b->mlp, pass, &saved->mlp, &work->mlp, d_n, 0, d_out, n));
    SAGO_TRY(sago_norm_backward(&b->mlp_norm, pass, &saved->mlp_norm, d_x, d_n, after));
    if (decoder)
        SAGO_TRY(attend_backward(pass, &b->cross_norm, &saved->cross_norm, saved->cross_normed, &b->cross,
                                 &saved->cross, sago_block_site(b, SAGO_SITE_CROSS_OUTPUT), work->d_normed,
                                 &work->cross, d_x, d_memory, after_self, &inputs->cross));
    return attend_backward(pass, &b->self_norm, &saved->self_norm, saved->self_normed, &b->self, &saved->self,
                           sago_block_site(b, SAGO_SITE_OUTPUT), work->d_normed, &work->self, d_x, none, x,
                           &inputs->self);
}

/* --- PaLM: both at once
 * ----------------------------------------------------------------------------------------- */

static sago_status run_parallel(const sago_block *b, const sago_pass *pass, const sago_block_saved *saved,
                                sago_tensor out, sago_tensor x, const sago_block_inputs *inputs) {
    sago_tensor n = at(saved->self_normed, x);
    SAGO_TRY(sago_norm_forward(&b->self_norm, pass, &saved->self_norm, n, x));
    SAGO_TRY(sago_attention_forward(&b->self, pass, &saved->self, n, &inputs->self));
    SAGO_TRY(sago_mlp_forward(&b->mlp, pass, &saved->mlp, n));
    if (!out.data) return SAGO_OK;
    const sago_product products[] = {{sago_attention_output(&b->self, pass, &saved->self, n), b->self.output},
                                     {sago_mlp_output(&b->mlp, pass, &saved->mlp, n), b->mlp.out}};
    return sago_products_residual(pass, out, x, products, 2, sago_block_site(b, SAGO_SITE_OUTPUT));
}

static sago_status back_parallel(const sago_block *b, const sago_pass *pass, const sago_block_saved *saved,
                                 const sago_block_work *work, sago_tensor d_x, sago_tensor x,
                                 const sago_block_inputs *inputs) {
    const sago_tensor none = {0};
    sago_tensor n = at(saved->self_normed, x), d_n = at(work->d_normed, x), d_out;
    SAGO_TRY(sago_residual_gradient(pass, &d_out, d_x, work->d_sum, sago_block_site(b, SAGO_SITE_OUTPUT)));
    SAGO_TRY(sago_mlp_backward(&b->mlp, pass, &saved->mlp, &work->mlp, d_n, 0, d_out, n));
    SAGO_TRY(sago_attention_backward(&b->self, pass, &saved->self, &work->self, d_n, 1, none, d_out, n,
                                     &inputs->self));
    return sago_norm_backward(&b->self_norm, pass, &saved->self_norm, d_x, d_n, x);
}

/* --- either
 * ----------------------------------------------------------------------------------------------------- */

sago_status sago_block_forward(const sago_block *block, const sago_pass *pass, const sago_block_saved *saved,
                               sago_tensor out, sago_tensor x, const sago_block_inputs *inputs) {
    return block->kind == SAGO_BLOCK_PARALLEL ? run_parallel(block, pass, saved, out, x, inputs)
                                              : run_serial(block, pass, saved, out, x, inputs);
}

sago_status sago_block_backward(const sago_block *block, const sago_pass *pass, const sago_block_saved *saved,
                                const sago_block_work *work, sago_tensor d_x, sago_tensor d_memory,
                                sago_tensor x, const sago_block_inputs *inputs) {
    const sago_tensor none = {0}; /* without an output: that is all that backward needs */
    if (saved->recompute) SAGO_TRY(sago_block_forward(block, pass, saved, none, x, inputs));
    return block->kind == SAGO_BLOCK_PARALLEL ? back_parallel(block, pass, saved, work, d_x, x, inputs)
                                              : back_serial(block, pass, saved, work, d_x, d_memory, x, inputs);
}
