// Inside the kernels: every table's functions by namespace, and what the CPU can run.
//
// <isa>/linear*.cpp define the linear functions, <isa>/rowwise.cpp the row operations, <isa>/attention.cpp the two
// attention functions; signatures are those of KernelTable.  Helpers in those files have internal linkage: an inline
// function shared with another file could be kept by the linker in the copy compiled for the wider instruction set.
#pragma once

#include <type_traits>

#include "kernels.h"

namespace quintet {

template <typename Pointer>
using Function = std::remove_pointer_t<Pointer>;
using LinearFunction = Function<std::remove_extent_t<decltype(KernelTable::linear)>>;

#define QUINTET_DECLARE_KERNELS                                                                               \
  LinearFunction linear_f32, linear_f16, linear_bf16;                                                         \
  LinearFunction linear_w8, linear_w4, linear_w5, linear_w4m, linear_w5m, linear_w4k, linear_w5k, linear_w6k; \
  LinearFunction linear_w3k, linear_w2k, linear_w4n, linear_w4x, linear_w4e, linear_w4t, linear_w3t;          \
  Function<decltype(KernelTable::make_rows)> make_rows;                                                       \
  Function<decltype(KernelTable::rms_norm)> rms_norm;                                                         \
  Function<decltype(KernelTable::add)> add;                                                                   \
  Function<decltype(KernelTable::silu_mul)> silu_mul;                                                         \
  Function<decltype(KernelTable::layer_norm)> layer_norm;                                                     \
  Function<decltype(KernelTable::gelu)> gelu;                                                                 \
  Function<decltype(KernelTable::tanh)> tanh;                                                                 \
  Function<decltype(KernelTable::gelu_tanh)> gelu_tanh;                                                       \
  Function<decltype(KernelTable::swiglu_clamped)> swiglu_clamped;                                             \
  Function<decltype(KernelTable::scale)> scale;                                                               \
  Function<decltype(KernelTable::add_scaled)> add_scaled;                                                     \
  Function<decltype(KernelTable::softcap)> softcap;                                                           \
  Function<decltype(KernelTable::rope)> rope;                                                                 \
  Function<decltype(KernelTable::write_kv)> write_kv;                                                         \
  Function<decltype(KernelTable::attention)> attention;                                                       \
  Function<decltype(KernelTable::attention_scratch_bytes)> attention_scratch_bytes;

namespace reference {
QUINTET_DECLARE_KERNELS
// Of every table: strided reads of one column give wide registers nothing to do.
Function<decltype(KernelTable::unpack_row)> unpack_row;
}  // namespace reference
namespace avx2 {  // needs AVX2, FMA, F16C
QUINTET_DECLARE_KERNELS
}
namespace avx512 {  // needs AVX-512 F, BW, DQ, VL, VNNI, BF16 and all of the above
QUINTET_DECLARE_KERNELS
}
namespace amx {  // needs AMX-TILE, AMX-INT8, AMX-BF16 and all of avx512, whose kernels it has where tiles do not help
LinearFunction linear_bf16;
LinearFunction linear_w8, linear_w4, linear_w5, linear_w4m, linear_w5m, linear_w4k, linear_w5k, linear_w6k;
LinearFunction linear_w3k, linear_w2k, linear_w4n, linear_w4x, linear_w4e, linear_w4t, linear_w3t;
Function<decltype(KernelTable::attention)> attention;
Function<decltype(KernelTable::attention_scratch_bytes)> attention_scratch_bytes;
using avx512::add, avx512::add_scaled, avx512::gelu, avx512::gelu_tanh, avx512::layer_norm, avx512::linear_f16;
using avx512::linear_f32, avx512::make_rows, avx512::rms_norm, avx512::rope, avx512::scale, avx512::silu_mul;
using avx512::softcap, avx512::swiglu_clamped, avx512::tanh, avx512::write_kv;
}  // namespace amx
namespace neon {  // needs Advanced SIMD with its dot product extension
QUINTET_DECLARE_KERNELS
}

#undef QUINTET_DECLARE_KERNELS

// True where both the CPU and the operating system support all that the namespace needs.
bool cpu_runs_avx2();
bool cpu_runs_avx512();
bool cpu_runs_amx();  // asks the system, the first time, to let this process use tiles
bool cpu_runs_neon();

}  // namespace quintet
