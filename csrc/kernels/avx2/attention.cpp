// Attention's dot products by FMA, of int8 by VPMADDWD; bf16 pairs are widened to float, the first of a pair before the
// second.
#include "../lanes/attention.h"

#include <algorithm>

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
  static constexpr bool kQuantized = false;
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
  static constexpr bool kQuantized = false;
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

// Bytes widened to 16 bits, those of even k apart from those of odd.
struct DotInt8 {
  using Lanes = avx2::Lanes;
  using Element = int16_t;  // of each four, k 0, 2, 1, 3
  struct Half {
    __m256i even, odd;
  };
  struct Operand {
    Half lo, hi;
  };
  using Scalar = Half;
  static constexpr int kStep = 4;
  static constexpr bool kQuantized = true;
  static constexpr int kMaxRows = kRegisterRows;
  static constexpr int max_vectors(int rows) { return vectors_for(rows); }

  QUINTET_INLINE Operand load(const std::byte* p) { return widen(Lanes::load(reinterpret_cast<const float*>(p))); }
  QUINTET_INLINE Operand load_first(const std::byte* p, int n) {
    return widen(Lanes::load_first(reinterpret_cast<const float*>(p), n));
  }
  QUINTET_INLINE Scalar broadcast(const int16_t* p) {
    int pairs[2];
    std::memcpy(pairs, p, sizeof pairs);
    return {_mm256_set1_epi32(pairs[0]), _mm256_set1_epi32(pairs[1])};
  }
  QUINTET_INLINE Lanes::F multiply_add(const Scalar& a, const Operand& b, Lanes::F acc) {
    return {multiply_add(a, b.lo, acc.lo), multiply_add(a, b.hi, acc.hi)};
  }
  QUINTET_INLINE Lanes::F to_float(Lanes::F sum) {
    return {_mm256_cvtepi32_ps(_mm256_castps_si256(sum.lo)), _mm256_cvtepi32_ps(_mm256_castps_si256(sum.hi))};
  }
  QUINTET_INLINE void store(int16_t* p, Lanes::F x) {
    const __m256i lo = _mm256_shuffle_epi32(_mm256_cvtps_epi32(x.lo), 0xd8);
    const __m256i hi = _mm256_shuffle_epi32(_mm256_cvtps_epi32(x.hi), 0xd8);
    const __m256i shorts = _mm256_permute4x64_epi64(_mm256_packs_epi32(lo, hi), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), shorts);
  }

 private:
  QUINTET_INLINE Operand widen(Lanes::F x) { return {widen(x.lo), widen(x.hi)}; }
  QUINTET_INLINE Half widen(__m256 x) {
    const __m256i bytes = _mm256_castps_si256(x);
    return {_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(bytes, 8)};
  }
  QUINTET_INLINE __m256 multiply_add(const Scalar& a, const Half& b, __m256 acc) {
    const __m256i both = _mm256_add_epi32(_mm256_madd_epi16(b.even, a.even), _mm256_madd_epi16(b.odd, a.odd));
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(acc), both));
  }
};

}  // namespace

void write_kv(const KVCache& cache, int64_t slot, const float* k, const float* v) {
  lanes::write_kv<Lanes>(cache, slot, k, v);
}

void attention(const KVCache& cache, const AttentionArgs& args, const SequenceView& seq, int kv_head, int query_begin,
               int query_end, void* scratch) {
  const auto run = cache.type == KVType::kInt8   ? lanes::attention<DotInt8>
                   : cache.type == KVType::kBF16 ? lanes::attention<DotBF16>
                                                 : lanes::attention<DotF32>;
  run(cache, args, seq, kv_head, query_begin, query_end, scratch);
}

size_t attention_scratch_bytes(int, int) {
  return std::max({sizeof(lanes::Scratch<DotF32>), sizeof(lanes::Scratch<DotBF16>), sizeof(lanes::Scratch<DotInt8>)});
}

}  // namespace quintet::avx2
