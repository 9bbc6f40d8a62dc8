// SPDX-License-Identifier: Apache-2.0
/*
 * Includes the file named by FORMULAS twice: with REAL = double and names ref_NAME, with REAL = float and names plain_NAME.
 * For headers; no guard, since each of them has formulas of its own.
 */
#define REAL      double
#define REF(name) ref_##name
#include FORMULAS
#undef REAL
#undef REF
#define REAL      float
#define REF(name) plain_##name
#include FORMULAS
#undef REAL
#undef REF
#undef FORMULAS
