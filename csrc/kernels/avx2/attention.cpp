// Attention's dot products by FMA; bf16 pairs are widened to float, the first of a pair before the second.
#include "../lanes/attention.h"

#include "../impl.h"
#include "../lanes/write_kv.h"
#include "lanes.h"

namespace quintet::avx2 {
namespace {

// 4 x 1 vectors of 16 lanes are 8 registers of accumulators, bf16 operands 4 more, of 16.
constexpr int kRegisterRows = 4;
constexpr int vectors_for(int rows) { return rows <= 2 ? 4 / rows : 1; }

struct DotF32 {
  using Lanes = avx2::Lanes;
  using Element = float;
  using Operand = Lanes::F;
  using Scalar = __m256;
  static constexpr int kStep = 1;
  static constexpr int kMaxRows = kRegisterRows;
  static constexpr int max_vectors(int rows) { return vectors_for(rows); }

  QUINTET_INLINE Operand load(const std::byte* p) { return Lanes::load(reinterpret_cast<const float*>(p)); }
  QUINTET_INLINE Operand load_first(const std::byte* p, int n) {
    return Lanes::load_first(reinterpret_cast<const float*>(p), n);
  }
  QUINTET_INLINE Scalar broadcast(const float* p) { return _mm256_broadcast_ss(p); }
  QUINTET_INLINE Lanes::F multiply_add(Scalar a, Operand b, Lanes::F acc) {
    return {_mm256_fmadd_ps(a, b.lo, acc.lo), _mm256_fmadd_ps(a, b.hi, acc.hi)};
  }
  QUINTET_INLINE Lanes::F store(float* p, Lanes::F x) {
    Lanes::store(p, x);
    return x;
  }
};

struct DotBF16 {
  using Lanes = avx2::Lanes;
  using Element = float;  // already rounded to bf16
  struct Operand {
    Lanes::F first, second;
  };
  struct Scalar {
    __m256 first, second;
  };
  static constexpr int kStep = 2;
  static constexpr int kMaxRows = kRegisterRows;
  static constexpr int max_vectors(int rows) { return vectors_for(rows); }

  QUINTET_INLINE Operand load(const std::byte* p) { return widen(Lanes::load(reinterpret_cast<const float*>(p))); }
  QUINTET_INLINE Operand load_first(const std::byte* p, int n) {
    return widen(Lanes::load_first(reinterpret_cast<const float*>(p), n));
  }
  QUINTET_INLINE Scalar broadcast(const float* p) { return {_mm256_broadcast_ss(p), _mm256_broadcast_ss(p + 1)}; }
  QUINTET_INLINE Lanes::F multiply_add_first(const Scalar& a, const Operand& b, Lanes::F acc) {
    return {_mm256_fmadd_ps(a.first, b.first.lo, acc.lo), _mm256_fmadd_ps(a.first, b.first.hi, acc.hi)};
  }
  QUINTET_INLINE Lanes::F multiply_add(const Scalar& a, const Operand& b, Lanes::F acc) {
    acc = multiply_add_first(a, b, acc);
    return {_mm256_fmadd_ps(a.second, b.second.lo, acc.lo), _mm256_fmadd_ps(a.second, b.second.hi, acc.hi)};
  }
  QUINTET_INLINE Lanes::F store(float* p, Lanes::F x) {
    const Lanes::F rounded = Lanes::round_bf16(x);
    Lanes::store(p, rounded);
    return rounded;
  }

 private:
  QUINTET_INLINE Operand widen(Lanes::F pairs) {
    return {{first(pairs.lo), first(pairs.hi)}, {second(pairs.lo), second(pairs.hi)}};
  }
  QUINTET_INLINE __m256 first(__m256 x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), 16)); }
  QUINTET_INLINE __m256 second(__m256 x) {
    return _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
};

}  // namespace

void write_kv(const KVCache& cache, int64_t slot, const float* k, const float* v) {
  lanes::write_kv<Lanes>(cache, slot, k, v);
}

void attention(const KVCache& cache, const AttentionArgs& args, const SequenceView& seq, int kv_head, int query_begin,
               int query_end, void* scratch) {
  const auto run = cache.type == KVType::kBF16 ? lanes::attention<DotBF16> : lanes::attention<DotF32>;
  run(cache, args, seq, kv_head, query_begin, query_end, scratch);
}

size_t attention_scratch_bytes(int, int) { return sizeof(lanes::Scratch<DotF32>); }

}  // namespace quintet::avx2
