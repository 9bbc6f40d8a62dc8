// SPDX-License-Identifier: Apache-2.0
#include "stack.h"

#include "str.h"

#include <stdlib.h>

void sago_stack_saved_open(const sago_stack *stack, sago_stack_saved *saved) {
    *saved = (sago_stack_saved){0};
    saved->x = sago_alloc_zero((size_t)stack->n_blocks + 1, sizeof *saved->x);
    saved->blocks = sago_alloc_zero((size_t)stack->n_blocks, sizeof *saved->blocks);
}

void sago_stack_saved_close(sago_stack_saved *saved) {
    free(saved->x);
    free(saved->blocks);
    *saved = (sago_stack_saved){0};
}

void sago_stack_plan(const sago_stack *stack, const sago_plan *plan, int64_t tokens, int64_t memory_tokens,
                     sago_keep keep, const sago_block_saved *common, sago_stack_saved *saved) {
    int64_t d_model = stack->blocks[0].d_model, own = sago_plan_own(plan, tokens);
    for (int i = 0; i <= stack->n_blocks; i++) {
        bool alternate =
            keep == SAGO_KEEP_NONE && i >= 2; /* a block reads one of two buffers and writes the other */
        saved->x[i] = alternate ? saved->x[i - 2] : sago_plan_take(plan, own * d_model);
        if (i == stack->n_blocks) break;
        if (keep == SAGO_KEEP_ALL) {
            sago_block_plan(&stack->blocks[i], plan, tokens, memory_tokens, &saved->blocks[i]);
        } else {
            saved->blocks[i] = *common;
            saved->blocks[i].recompute = keep == SAGO_KEEP_INPUTS;
        }
    }
    sago_norm_plan(&stack->final_norm, plan, own, &saved->final_norm);
    saved->out = sago_plan_take(plan, own * d_model);
}

sago_status sago_stack_forward(const sago_stack *stack, const sago_embedding *embedding,
                               const sago_pass *pass, const sago_stack_saved *saved, int32_t *ids,
                               const sago_block_inputs *in, sago_tensor *out) {
    int64_t d_model = stack->blocks[0].d_model;
    sago_tensor x = sago_residual_tokens(pass, saved->x[0], in->rows, in->tokens, d_model);
    SAGO_TRY(sago_embedding_forward(embedding, pass, x, ids, in->rows, in->tokens, stack->input_site));
    for (int i = 0; i < stack->n_blocks; i++) {
        SAGO_TRY(sago_pass_enter(pass, stack->first_block + i, SAGO_FORWARD));
        sago_tensor next = x;
        next.data = saved->x[i + 1];
        SAGO_TRY(sago_block_forward(&stack->blocks[i], pass, &saved->blocks[i], next, x, in));
        x = next;
    }
    *out = x;
    out->data = saved->out;
    SAGO_TRY(sago_norm_forward(&stack->final_norm, pass, &saved->final_norm, *out, x));
    if (pass->dropout_rate == 0) return SAGO_OK;
    const sago_dropout dropout = sago_residual_dropout(pass, stack->final_site, *out, in->rows, in->tokens);
    return pass->device->ops->dropout(pass->device, *out, *out, &dropout);
}

sago_status sago_stack_backward(const sago_stack *stack, const sago_embedding *embedding,
                                const sago_pass *pass, const sago_stack_saved *saved,
                                const sago_block_work *work, sago_tensor d_out, sago_tensor d_x,
                                sago_tensor d_memory, int32_t *ids, const sago_block_inputs *in,
                                const sago_block_done *done) {
    const sago_ops *ops = pass->device->ops;
    sago_tensor x = d_x;
    if (pass->dropout_rate > 0) {
        const sago_dropout dropout =
            sago_residual_dropout(pass, stack->final_site, d_out, in->rows, in->tokens);
        SAGO_TRY(ops->dropout(pass->device, d_out, d_out, &dropout));
    }
    SAGO_TRY(ops->fill(pass->device, d_x, 0));
    SAGO_TRY(sago_pass_enter(pass, stack->first_block + stack->n_blocks - 1, SAGO_BACKWARD));
    x.data = saved->x[stack->n_blocks];
    SAGO_TRY(sago_norm_backward(&stack->final_norm, pass, &saved->final_norm, d_x, d_out, x));
    for (int i = stack->n_blocks - 1; i >= 0; i--) {
        SAGO_TRY(sago_pass_enter(pass, stack->first_block + i, SAGO_BACKWARD));
        x.data = saved->x[i];
        SAGO_TRY(sago_block_backward(&stack->blocks[i], pass, &saved->blocks[i], work, d_x, d_memory, x, in));
        if (done->call) SAGO_TRY(done->call(done->context, stack->first_block + i));
    }
    return sago_embedding_backward(embedding, pass, d_x, ids, in->rows, in->tokens, stack->input_site);
}
