// Chooses a table of kernels for this CPU, once.
#include <cstdlib>
#include <cstring>

#include "impl.h"

namespace quintet {
namespace {

// One table per namespace; the order of `linear` is that of Layout.
#define QUINTET_TABLE(isa)                                                                                 \
  {#isa,                                                                                                   \
   {isa::linear_f32, isa::linear_f16, isa::linear_bf16, isa::linear_w8, isa::linear_w4, isa::linear_w5,    \
    isa::linear_w4m, isa::linear_w5m, isa::linear_w4k, isa::linear_w5k, isa::linear_w6k, isa::linear_w3k,  \
    isa::linear_w2k, isa::linear_w4n, isa::linear_w4x, isa::linear_w4e, isa::linear_w4t, isa::linear_w3t}, \
   reference::unpack_row,                                                                                  \
   isa::make_rows,                                                                                         \
   isa::rms_norm,                                                                                          \
   isa::add,                                                                                               \
   isa::silu_mul,                                                                                          \
   isa::layer_norm,                                                                                        \
   isa::gelu,                                                                                              \
   isa::tanh,                                                                                              \
   isa::gelu_tanh,                                                                                         \
   isa::swiglu_clamped,                                                                                    \
   isa::scale,                                                                                             \
   isa::add_scaled,                                                                                        \
   isa::softcap,                                                                                           \
   isa::rope,                                                                                              \
   isa::write_kv,                                                                                          \
   isa::attention,                                                                                         \
   isa::attention_scratch_bytes}

constexpr KernelTable kReference = QUINTET_TABLE(reference);
#ifdef QUINTET_X86
constexpr KernelTable kAvx2 = QUINTET_TABLE(avx2);
constexpr KernelTable kAvx512 = QUINTET_TABLE(avx512);
constexpr KernelTable kAmx = QUINTET_TABLE(amx);
#endif
#ifdef QUINTET_ARM64
constexpr KernelTable kNeon = QUINTET_TABLE(neon);
#endif

constexpr int kMaxTables = 4;

const KernelTable* choose() {
  const KernelTable* tables[kMaxTables];
  const int count = available_kernels(tables, kMaxTables);
  const char* forced = std::getenv("QUINTET_KERNELS");
  if (forced == nullptr || *forced == '\0') return tables[count - 1];
  for (int i = 0; i < count; ++i) {
    if (std::strcmp(tables[i]->name, forced) == 0) return tables[i];
  }
  return nullptr;
}

}  // namespace

const KernelTable& reference_kernels() { return kReference; }

int available_kernels(const KernelTable** tables, int max_tables) {
  int count = 0;
  const auto append = [&](const KernelTable& table) {
    if (count < max_tables) tables[count++] = &table;
  };
  append(kReference);
#ifdef QUINTET_X86
  if (cpu_runs_avx2()) append(kAvx2);
  if (cpu_runs_avx512()) append(kAvx512);
  if (cpu_runs_amx()) append(kAmx);
#endif
#ifdef QUINTET_ARM64
  if (cpu_runs_neon()) append(kNeon);
#endif
  return count;
}

const KernelTable* active_kernels() {
  static const KernelTable* const table = choose();
  return table;
}

}  // namespace quintet
