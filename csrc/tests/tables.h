// The matrix kernels by table, taken from the namespaces: usable before, and without, the whole KernelTable.
#pragma once

#include <vector>

#include "impl.h"

namespace quintet::tests {

struct LinearTable {
  const char* name;
  LinearFunction* linear[kNumLayouts];
  Function<decltype(KernelTable::unpack_row)>* unpack_row;
};

inline constexpr const char* kLayoutNames[kNumLayouts] = {"F32", "F16", "BF16", "W8", "W4"};

// Those this CPU can run, the reference first.
inline std::vector<LinearTable> linear_tables() {
#define QUINTET_LINEAR(isa) \
  LinearTable{              \
      #isa, {isa::linear_f32, isa::linear_f16, isa::linear_bf16, isa::linear_w8, isa::linear_w4}, isa::unpack_row}
  std::vector<LinearTable> tables{QUINTET_LINEAR(reference)};
#if defined(__x86_64__)
  if (cpu_runs_avx2()) tables.push_back(QUINTET_LINEAR(avx2));
  if (cpu_runs_avx512()) tables.push_back(QUINTET_LINEAR(avx512));
#endif
#undef QUINTET_LINEAR
  return tables;
}

}  // namespace quintet::tests
