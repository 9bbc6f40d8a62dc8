// SPDX-License-Identifier: Apache-2.0
#include "block.h"

#include <stdio.h>

/* --- rows and room
 * ---------------------------------------------------------------------------------------------- */

/* PREFIX.norm and the attention's rows under PREFIX, "encoder.3.attention". */
static sago_status declare_attention(sago_block *block, const sago_declaration *into, sago_norm *norm,
                                     sago_attention *attention, const char *prefix, int bias, bool cross) {
    SAGO_TRY(sago_norm_declare(norm, into->registry, block->number, prefix, "norm", into->shape));
    return sago_attention_declare(attention, into, prefix, bias, cross || block->kind == SAGO_BLOCK_ENCODER,
                                  cross);
}

sago_status sago_block_declare(sago_block *block, const sago_declaration *into, sago_block_kind kind,
                               const char *name, int layer, int bias) {
    *block = (sago_block){.kind = kind, .number = into->block, .d_model = into->shape->d_model};
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s.%d", name, layer);
    if (kind == SAGO_BLOCK_PARALLEL) {
        SAGO_TRY(
            sago_norm_declare(&block->self_norm, into->registry, into->block, prefix, "norm", into->shape));
        snprintf(prefix, sizeof prefix, "%s.%d.attention", name, layer);
        SAGO_TRY(sago_attention_declare(&block->self, into, prefix, bias, false, false));
        snprintf(prefix, sizeof prefix, "%s.%d.mlp", name, layer);
        return sago_mlp_declare(&block->mlp, into, prefix);
    }
    bool decoder = kind == SAGO_BLOCK_DECODER;
    snprintf(prefix, sizeof prefix, "%s.%d.%s", name, layer, decoder ? "self_attention" : "attention");
    SAGO_TRY(declare_attention(block, into, &block->self_norm, &block->self, prefix, bias, false));
    if (decoder) {
        snprintf(prefix, sizeof prefix, "%s.%d.cross_attention", name, layer);
        SAGO_TRY(declare_attention(block, into, &block->cross_norm, &block->cross, prefix, -1, true));
    }
    snprintf(prefix, sizeof prefix, "%s.%d.mlp", name, layer);
    SAGO_TRY(sago_norm_declare(&block->mlp_norm, into->registry, into->block, prefix, "norm", into->shape));
    return sago_mlp_declare(&block->mlp, into, prefix);
}

void sago_block_plan(const sago_block *block, const sago_plan *plan, int64_t tokens, int64_t memory_tokens,
                     sago_block_saved *saved) {
    *saved = (sago_block_saved){0};
    int64_t own = sago_plan_own(plan, tokens), own_elements = own * block->d_model;
    sago_norm_plan(&block->self_norm, plan, own, &saved->self_norm);
    saved->self_normed = sago_plan_take(plan, own_elements);
    sago_attention_plan(&block->self, plan, tokens, tokens, &saved->self);
    if (block->kind != SAGO_BLOCK_PARALLEL) {
        saved->after_self = sago_plan_take(plan, own_elements);
        if (block->kind == SAGO_BLOCK_DECODER) {
            sago_norm_plan(&block->cross_norm, plan, own, &saved->cross_norm);
            saved->cross_normed = sago_plan_take(plan, own_elements);
            sago_attention_plan(&block->cross, plan, tokens, memory_tokens, &saved->cross);
            saved->after_cross = sago_plan_take(plan, own_elements);
        }
        sago_norm_plan(&block->mlp_norm, plan, own, &saved->mlp_norm);
        saved->mlp_normed = sago_plan_take(plan, own_elements);
    }
    sago_mlp_plan(&block->mlp, plan, tokens, &saved->mlp);
}

void sago_block_plan_work(const sago_block *block, const sago_plan *plan, int64_t tokens,
                          int64_t memory_tokens, sago_block_work *work) {
    work->d_normed = sago_plan_partial(plan, tokens * block->d_model);
    work->d_sum = block->kind == SAGO_BLOCK_PARALLEL
                      ? sago_plan_take(plan, sago_plan_own(plan, tokens) * block->d_model)
                      : NULL;
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

/* What a norm made of own tokens, whole, for the products that read it: gathered anew in backward. */
static sago_status gather(const sago_pass *pass, const sago_block_inputs *in, sago_tensor *whole,
                          sago_tensor own) {
    return sago_gather_tokens(pass, whole, own, in->rows, in->tokens, pass->gathered[0]);
}

static sago_status leave(const sago_pass *pass, const sago_block_inputs *in, sago_tensor *d, sago_tensor d_x,
                         void *room, int site) {
    return sago_residual_gradient(pass, d, d_x, in->rows, in->tokens, room, site);
}

/* The gradient of what was gathered, a partial sum, back through the norm: d_x += */
static sago_status join(const sago_pass *pass, const sago_norm *norm, const sago_norm_saved *saved,
                        sago_tensor d_x, sago_tensor d_n, sago_tensor x) {
    SAGO_TRY(sago_sum_partial(pass, &d_n, d_n));
    return sago_norm_backward(norm, pass, saved, d_x, d_n, x);
}

static sago_tensor partial(const sago_pass *pass, const sago_block_inputs *in, const sago_block_work *work,
                           int64_t d_model) {
    return sago_partial_sum(pass, work->d_normed, in->rows, in->tokens, d_model);
}

/* --- T5: one sub-layer after another
 * ---------------------------------------------------------------------------- */

/* A T5 block's attention, self or cross: what it is made of, and what it keeps. */
typedef struct sub_layer {
    const sago_norm *norm;
    const sago_norm_saved *norm_saved;
    void *normed;
    const sago_attention *layer;
    const sago_attention_saved *saved;
    const sago_attention_inputs *inputs;
    int site;
} sub_layer;

static sub_layer self_of(const sago_block *b, const sago_block_saved *saved, const sago_block_inputs *in) {
    return (sub_layer){&b->self_norm,
                       &saved->self_norm,
                       saved->self_normed,
                       &b->self,
                       &saved->self,
                       &in->self,
                       sago_block_site(b, SAGO_SITE_OUTPUT)};
}

static sub_layer cross_of(const sago_block *b, const sago_block_saved *saved, const sago_block_inputs *in) {
    return (sub_layer){&b->cross_norm,
                       &saved->cross_norm,
                       saved->cross_normed,
                       &b->cross,
                       &saved->cross,
                       &in->cross,
                       sago_block_site(b, SAGO_SITE_CROSS_OUTPUT)};
}

/* out = x + dropout(attention(norm(x))); out.data NULL: only fills what is saved. */
static sago_status attend(const sago_pass *pass, const sub_layer *s, sago_tensor out, sago_tensor x,
                          const sago_block_inputs *in) {
    sago_tensor own = at(s->normed, x), n;
    SAGO_TRY(sago_norm_forward(s->norm, pass, s->norm_saved, own, x));
    SAGO_TRY(gather(pass, in, &n, own));
    SAGO_TRY(sago_attention_forward(s->layer, pass, s->saved, n, s->inputs));
    if (!out.data) return SAGO_OK;
    return sago_linear_residual(pass, out, x, sago_attention_output(s->layer, pass, s->saved, n),
                                s->layer->output, s->site);
}

static sago_status attend_backward(const sago_pass *pass, const sub_layer *s, const sago_block_work *work,
                                   const sago_attention_work *attention_work, sago_tensor d_x,
                                   sago_tensor d_memory, sago_tensor x, const sago_block_inputs *in) {
    sago_tensor n, d_out, d_n = partial(pass, in, work, x.shape[2]);
    SAGO_TRY(leave(pass, in, &d_out, d_x, work->d_normed, s->site));
    SAGO_TRY(gather(pass, in, &n, at(s->normed, x)));
    SAGO_TRY(sago_attention_backward(s->layer, pass, s->saved, attention_work, d_n, 0, d_memory, d_out, n,
                                     s->inputs));
    return join(pass, s->norm, s->norm_saved, d_x, d_n, x);
}

static sago_status run_serial(const sago_block *b, const sago_pass *pass, const sago_block_saved *saved,
                              sago_tensor out, sago_tensor x, const sago_block_inputs *in) {
    const sub_layer self = self_of(b, saved, in), cross = cross_of(b, saved, in);
    sago_tensor after = at(saved->after_self, x);
    SAGO_TRY(attend(pass, &self, after, x, in));
    if (b->kind == SAGO_BLOCK_DECODER) {
        sago_tensor after_self = after;
        after = at(saved->after_cross, x);
        SAGO_TRY(attend(pass, &cross, after, after_self, in));
    }
    sago_tensor own = at(saved->mlp_normed, x), n;
    SAGO_TRY(sago_norm_forward(&b->mlp_norm, pass, &saved->mlp_norm, own, after));
    SAGO_TRY(gather(pass, in, &n, own));
    SAGO_TRY(sago_mlp_forward(&b->mlp, pass, &saved->mlp, n));
    if (!out.data) return SAGO_OK;
    return sago_linear_residual(pass, out, after, sago_mlp_output(&b->mlp, pass, &saved->mlp, n), b->mlp.out,
                                sago_block_site(b, SAGO_SITE_MLP_OUTPUT));
}

static sago_status back_serial(const sago_block *b, const sago_pass *pass, const sago_block_saved *saved,
                               const sago_block_work *work, sago_tensor d_x, sago_tensor d_memory,
                               sago_tensor x, const sago_block_inputs *in) {
    const sago_tensor none = {0};
    bool decoder = b->kind == SAGO_BLOCK_DECODER;
    const sub_layer self = self_of(b, saved, in), cross = cross_of(b, saved, in);
    sago_tensor after_self = at(saved->after_self, x),
                after = decoder ? at(saved->after_cross, x) : after_self;
    sago_tensor n, d_out, d_n = partial(pass, in, work, x.shape[2]);
    SAGO_TRY(leave(pass, in, &d_out, d_x, work->d_normed, sago_block_site(b, SAGO_SITE_MLP_OUTPUT)));
    SAGO_TRY(gather(pass, in, &n, at(saved->mlp_normed, x)));
    SAGO_TRY(sago_mlp_backward(&b->mlp, pass, &saved->mlp, &work->mlp, d_n, 0, d_out, n));
    SAGO_TRY(join(pass, &b->mlp_norm, &saved->mlp_norm, d_x, d_n, after));
    if (decoder) SAGO_TRY(attend_backward(pass, &cross, work, &work->cross, d_x, d_memory, after_self, in));
    return attend_backward(pass, &self, work, &work->self, d_x, none, x, in);
}

/* --- PaLM: both at once
 * ----------------------------------------------------------------------------------------- */

static sago_status run_parallel(const sago_block *b, const sago_pass *pass, const sago_block_saved *saved,
                                sago_tensor out, sago_tensor x, const sago_block_inputs *in) {
    sago_tensor own = at(saved->self_normed, x), n;
    SAGO_TRY(sago_norm_forward(&b->self_norm, pass, &saved->self_norm, own, x));
    SAGO_TRY(gather(pass, in, &n, own));
    SAGO_TRY(sago_attention_forward(&b->self, pass, &saved->self, n, &in->self));
    SAGO_TRY(sago_mlp_forward(&b->mlp, pass, &saved->mlp, n));
    if (!out.data) return SAGO_OK;
    const sago_product products[] = {{sago_attention_output(&b->self, pass, &saved->self, n), b->self.output},
                                     {sago_mlp_output(&b->mlp, pass, &saved->mlp, n), b->mlp.out}};
    return sago_products_residual(pass, out, x, products, 2, sago_block_site(b, SAGO_SITE_OUTPUT));
}

static sago_status back_parallel(const sago_block *b, const sago_pass *pass, const sago_block_saved *saved,
                                 const sago_block_work *work, sago_tensor d_x, sago_tensor x,
                                 const sago_block_inputs *in) {
    const sago_tensor none = {0};
    sago_tensor n, d_out, d_n = partial(pass, in, work, x.shape[2]);
    SAGO_TRY(leave(pass, in, &d_out, d_x, work->d_sum, sago_block_site(b, SAGO_SITE_OUTPUT)));
    SAGO_TRY(gather(pass, in, &n, at(saved->self_normed, x)));
    SAGO_TRY(sago_mlp_backward(&b->mlp, pass, &saved->mlp, &work->mlp, d_n, 0, d_out, n));
    SAGO_TRY(sago_attention_backward(&b->self, pass, &saved->self, &work->self, d_n, 1, none, d_out, n,
                                     &in->self));
    return join(pass, &b->self_norm, &saved->self_norm, d_x, d_n, x);
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
    return block->kind == SAGO_BLOCK_PARALLEL
               ? back_parallel(block, pass, saved, work, d_x, x, inputs)
               : back_serial(block, pass, saved, work, d_x, d_memory, x, inputs);
}
