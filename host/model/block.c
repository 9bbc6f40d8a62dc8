// SPDX-License-Identifier: Apache-2.0
#include "block.h"

void sago_block_plan(const sago_block *block, const sago_plan *plan, int64_t tokens, int64_t memory_tokens,
                     sago_block_saved *saved) {
    *saved = (sago_block_saved){0};
    sago_attention_plan(&block->self, plan, tokens, tokens, &saved->self);
    saved->after_self = sago_plan_take(plan, tokens * block->self.d_model);
    if (block->has_cross) {
        sago_attention_plan(&block->cross, plan, tokens, memory_tokens, &saved->cross);
        saved->after_cross = sago_plan_take(plan, tokens * block->self.d_model);
    }
    sago_mlp_plan(&block->mlp, plan, tokens, &saved->mlp);
}

void sago_block_plan_work(const sago_block *block, const sago_plan *plan, int64_t tokens,
                          int64_t memory_tokens, sago_block_work *work) {
    sago_overlap overlap = sago_overlap_begin(plan->arena);
    sago_attention_plan_work(&block->self, plan, tokens, tokens, &work->self);
    sago_overlap_next(&overlap, plan->arena);
    if (block->has_cross) sago_attention_plan_work(&block->cross, plan, tokens, memory_tokens, &work->cross);
    sago_overlap_next(&overlap, plan->arena);
    sago_mlp_plan_work(&block->mlp, plan, tokens, &work->mlp);
    sago_overlap_end(&overlap, plan->arena);
}

static sago_tensor at(void *data, sago_tensor like) {
    like.data = data;
    return like;
}

/* out.data NULL: fills saved and leaves the output out, which is all that backward needs. */
static sago_status run(const sago_block *block, const sago_pass *pass, const sago_block_saved *saved,
                       sago_tensor out, sago_tensor x, const sago_block_inputs *inputs) {
    const sago_tensor none = {0};
    sago_tensor after_self = at(saved->after_self, x);
    SAGO_TRY(sago_attention_forward(&block->self, pass, &saved->self, after_self, x, none, &inputs->self));
    if (!block->has_cross) return sago_mlp_forward(&block->mlp, pass, &saved->mlp, out, after_self);
    sago_tensor after_cross = at(saved->after_cross, x);
    SAGO_TRY(sago_attention_forward(&block->cross, pass, &saved->cross, after_cross, after_self,
                                    inputs->memory, &inputs->cross));
    return sago_mlp_forward(&block->mlp, pass, &saved->mlp, out, after_cross);
}

sago_status sago_block_forward(const sago_block *block, const sago_pass *pass, const sago_block_saved *saved,
                               sago_tensor out, sago_tensor x, const sago_block_inputs *inputs) {
    return run(block, pass, saved, out, x, inputs);
}

sago_status sago_block_backward(const sago_block *block, const sago_pass *pass, const sago_block_saved *saved,
                                const sago_block_work *work, sago_tensor d_x, sago_tensor d_memory,
                                sago_tensor x, const sago_block_inputs *inputs) {
    const sago_tensor none = {0};
    if (saved->recompute) SAGO_TRY(run(block, pass, saved, none, x, inputs));
    sago_tensor after_self = at(saved->after_self, x), after_cross = at(saved->after_cross, x);
    SAGO_TRY(sago_mlp_backward(&block->mlp, pass, &saved->mlp, &work->mlp, d_x,
                               block->has_cross ? after_cross : after_self));
    if (block->has_cross)
        SAGO_TRY(sago_attention_backward(&block->cross, pass, &saved->cross, &work->cross, d_x, d_memory,
                                         after_self, inputs->memory, &inputs->cross));
    return sago_attention_backward(&block->self, pass, &saved->self, &work->self, d_x, none, x, none,
                                   &inputs->self);
}
