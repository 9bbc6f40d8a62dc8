// SPDX-License-Identifier: Apache-2.0
/**
 * The sources of the cpu device's own loops are compiled once an instruction set, with SAGO_ISA=base, v3 or v4 (the
 * x86-64 levels). SAGO_CPU(name) makes each copy's public names its own: SAGO_CPU(fill) is sago_cpu_fill_v4.
 */
#ifndef SAGO_CPU_ISA_H
#define SAGO_CPU_ISA_H

#define SAGO_CPU_PASTE(name, isa)  sago_cpu_##name##_##isa
#define SAGO_CPU_EXPAND(name, isa) SAGO_CPU_PASTE(name, isa)
#define SAGO_CPU(name)             SAGO_CPU_EXPAND(name, SAGO_ISA)

#endif
