// Inside the encoders: one function per format and instruction set, over a run of blocks.
//
// The family files are compiled once per instruction set, each time into the namespace QUINTET_LANES (CMakeLists.txt).
// Everything else they use is static or a template over their own types, so that the linker cannot pick a copy compiled
// for a wider instruction set than the CPU's.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quintet::quantize {

// A run of consecutive blocks, which may span rows.
struct Run {
  const float* values;      // [num_blocks * block_size], finite unless the format is F16 or BF16
  const float* importance;  // [blocks_per_row * block_size], or null
  size_t first_in_row;      // the first block's place in its row
  size_t blocks_per_row;
  size_t num_blocks;
  uint8_t* blocks;

  // The importance of block `index` of the run.
  const float* importance_of(size_t index, size_t block_size) const {
    return importance == nullptr ? nullptr : importance + (first_in_row + index) % blocks_per_row * block_size;
  }
};

using Encoder = void(const Run& run);

#define QUINTET_DECLARE_ENCODERS                                                                        \
  Encoder f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, iq4_xs, mxfp4; \
  void widen_f16(const uint8_t* from, size_t count, float* to);                                         \
  void widen_bf16(const uint8_t* from, size_t count, float* to);                                        \
  bool all_finite(const float* values, size_t count);

namespace plain {
QUINTET_DECLARE_ENCODERS
}
#ifdef QUINTET_X86
namespace avx2 {  // AVX2 and F16C
QUINTET_DECLARE_ENCODERS
}
namespace avx512 {  // AVX-512 F, BW, DQ, VL and the above
QUINTET_DECLARE_ENCODERS
}
#endif

}  // namespace quintet::quantize
