// The matrix kernels by table, taken from the namespaces: usable before, and without, the whole KernelTable.
#pragma once

#include <cstring>
#include <vector>

#include "impl.h"

namespace quintet::tests {

struct LinearTable {
  const char* name;
  LinearFunction* linear[kNumLayouts];
};

inline constexpr const char* kLayoutNames[kNumLayouts] = {"F32", "F16", "BF16", "W8",  "W4",  "W5",
                                                          "W4m", "W5m", "W4k",  "W5k", "W6k", "W3k",
                                                          "W2k", "W4n", "W4x",  "W4e", "W4t", "W3t"};

// True of a table whose bf16 products are the hardware's, with its own rounding order.
inline bool has_bf16_dots(const char* table) {
  return std::strcmp(table, "avx512") == 0 || std::strcmp(table, "amx") == 0;
}

// Those this CPU can run, the reference first.
inline std::vector<LinearTable> linear_tables() {
#define QUINTET_LINEAR(isa)                                                                                     \
  LinearTable {                                                                                                 \
    #isa, {                                                                                                     \
      isa::linear_f32, isa::linear_f16, isa::linear_bf16, isa::linear_w8, isa::linear_w4, isa::linear_w5,       \
          isa::linear_w4m, isa::linear_w5m, isa::linear_w4k, isa::linear_w5k, isa::linear_w6k, isa::linear_w3k, \
          isa::linear_w2k, isa::linear_w4n, isa::linear_w4x, isa::linear_w4e, isa::linear_w4t, isa::linear_w3t  \
    }                                                                                                           \
  }
  std::vector<LinearTable> tables{QUINTET_LINEAR(reference)};
#if defined(__x86_64__)
  if (cpu_runs_avx2()) tables.push_back(QUINTET_LINEAR(avx2));
  if (cpu_runs_avx512()) tables.push_back(QUINTET_LINEAR(avx512));
  if (cpu_runs_amx()) tables.push_back(QUINTET_LINEAR(amx));
#endif
#if defined(__aarch64__)
  if (cpu_runs_neon()) tables.push_back(QUINTET_LINEAR(neon));
#endif
#undef QUINTET_LINEAR
  return tables;
}

}  // namespace quintet::tests
