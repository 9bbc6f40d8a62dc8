// SPDX-License-Identifier: Apache-2.0
/*
 * What the compiler checks in kernels for sim: vector accesses that are not aligned, indices outside an array
 * (those of a shared-memory struct are arrays too), shifts by 32 and more, division by zero. The compiler
 * calls these functions when built with -fsanitize=alignment and its kin, and no sanitizer's library is
 * linked; a finding ends the kernel as any other wrong use does. In a build with b_sanitize=undefined that
 * library reports instead, and this file is left out.
 */
#include "engine.h"

#include <cstdio>

using namespace sago_sim;

namespace {

/* The layout that gcc and clang give every record of theirs: first of all, where. */
struct record {
    const char *file;
    uint32_t line, column;
};

void found(const void *data, const char *what) {
    const record *at = static_cast<const record *>(data);
    site where = {at->file ? at->file : "a kernel", (int)at->line};
    /* Host code of a .cu file has no thread to end; what it does wrong, the kernel's own checks meet. */
    if (self) fail(where, "%s", what);
}

} // namespace

extern "C" {
void __ubsan_handle_type_mismatch_v1(void *data, void *pointer);
void __ubsan_handle_out_of_bounds(void *data, void *index);
void __ubsan_handle_shift_out_of_bounds(void *data, void *left, void *right);
void __ubsan_handle_divrem_overflow(void *data, void *left, void *right);

void __ubsan_handle_type_mismatch_v1(void *data, void *pointer) {
    char what[96];
    snprintf(what, sizeof what, "an access that is not aligned for its type: the address ends in %02x",
             (unsigned)(reinterpret_cast<uintptr_t>(pointer) & 0xff));
    found(data, what);
}

void __ubsan_handle_out_of_bounds(void *data, void *index) {
    char what[96];
    snprintf(what, sizeof what, "index %lld is outside its array",
             (long long)reinterpret_cast<intptr_t>(index));
    found(data, what);
}

void __ubsan_handle_shift_out_of_bounds(void *data, void *, void *) {
    found(data, "a shift by more bits than there are");
}

void __ubsan_handle_divrem_overflow(void *data, void *, void *) {
    found(data, "a division by zero");
}
}
