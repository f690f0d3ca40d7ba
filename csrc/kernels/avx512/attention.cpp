// Attention's dot products: VDPBF16PS for bf16, VPDPWSSD for int8, FMA for float.
#include "../lanes/attention.h"

#include <algorithm>

#include "../impl.h"
#include "../lanes/write_kv.h"
#include "dot_bf16.h"
#include "lanes.h"

namespace quintet::avx512 {
namespace {

struct DotF32 {
  using Lanes = avx512::Lanes;
  using Element = float;
  using Operand = __m512;
  using Scalar = __m512;
  static constexpr int kStep = 1;
  static constexpr bool kQuantized = false;
  static constexpr int kMaxRows = kRegisterRows;
  static constexpr int max_vectors(int rows) { return vectors_for(rows); }

  QUINTET_INLINE Operand load(const std::byte* p) { return _mm512_loadu_ps(p); }
  QUINTET_INLINE Operand load_first(const std::byte* p, int n) { return _mm512_maskz_loadu_ps(Lanes::first(n), p); }
  QUINTET_INLINE Scalar broadcast(const float* p) { return _mm512_set1_ps(*p); }
  QUINTET_INLINE Lanes::F multiply_add(Scalar a, Operand b, Lanes::F acc) { return _mm512_fmadd_ps(a, b, acc); }
  QUINTET_INLINE Lanes::F store(float* p, Lanes::F x) {
    _mm512_storeu_ps(p, x);
    return x;
  }
};

// Bytes widened to 16 bits, those of even k apart from those of odd.
struct DotInt8 {
  using Lanes = avx512::Lanes;
  using Element = int16_t;  // of each four, k 0, 2, 1, 3
  struct Operand {
    __m512i even, odd;
  };
  struct Scalar {
    __m512i even, odd;
  };
  static constexpr int kStep = 4;
  static constexpr bool kQuantized = true;
  static constexpr int kMaxRows = kRegisterRows;
  static constexpr int max_vectors(int rows) { return vectors_for(rows); }

  QUINTET_INLINE Operand load(const std::byte* p) { return widen(_mm512_loadu_si512(p)); }
  QUINTET_INLINE Operand load_first(const std::byte* p, int n) {
    return widen(_mm512_maskz_loadu_epi32(Lanes::first(n), p));
  }
  QUINTET_INLINE Scalar broadcast(const int16_t* p) {
    int pairs[2];
    std::memcpy(pairs, p, sizeof pairs);
    return {_mm512_set1_epi32(pairs[0]), _mm512_set1_epi32(pairs[1])};
  }
  QUINTET_INLINE Lanes::F multiply_add(const Scalar& a, const Operand& b, Lanes::F acc) {
    const __m512i sum = _mm512_dpwssd_epi32(_mm512_castps_si512(acc), b.even, a.even);
    return _mm512_castsi512_ps(_mm512_dpwssd_epi32(sum, b.odd, a.odd));
  }
  QUINTET_INLINE Lanes::F to_float(Lanes::F sum) { return _mm512_cvtepi32_ps(_mm512_castps_si512(sum)); }
  QUINTET_INLINE void store(int16_t* p, Lanes::F x) {
    const __m512i ordered = _mm512_shuffle_epi32(_mm512_cvtps_epi32(x), _MM_PERM_DBCA);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(ordered));
  }

 private:
  QUINTET_INLINE Operand widen(__m512i x) {
    return {_mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8), _mm512_srai_epi16(x, 8)};
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

}  // namespace quintet::avx512
