// What scales codes: how each kind of layout turns a group's integer sums into a row's float sum.
#pragma once

#include "codes.h"

namespace quintet::avx512 {
namespace {

constexpr size_t kMaxGroups = kMaxHalvesK / kGroup;

// The sums of the first 16 of each group, for layouts whose scales change there.
struct HalfSums {
  static constexpr int kMaxRows = 24;      // 100 kB
  static constexpr int kPanelsPerUse = 8;  // of two; their cost is small beside that of these
  HalfSums(const Rows& x, int row, int rows) {
    const size_t width = static_cast<size_t>(x.width);
    for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
      const int8_t* q = x.q8 + (static_cast<size_t>(row) + r) * width;
      // Two groups at a time, of which k has an even number: absolute differences sum what is made unsigned.
      for (size_t g = 0; g < width / kGroup; g += 2) {
        const __m512i both = _mm512_xor_si512(_mm512_loadu_si512(q + g * kGroup), _mm512_set1_epi8(-128));
        __m512i sum = _mm512_sad_epu8(both, _mm512_setzero_si512());
        sum = _mm512_add_epi32(sum, _mm512_shuffle_epi32(sum, _MM_PERM_BADC));
        first[r][g] = static_cast<int16_t>(_mm_cvtsi128_si32(_mm512_castsi512_si128(sum)) - 128 * 16);
        first[r][g + 1] = static_cast<int16_t>(_mm_cvtsi128_si32(_mm512_extracti32x4_epi32(sum, 2)) - 128 * 16);
      }
    }
  }
  int16_t first[kMaxRows][kMaxGroups + 32];  // a line more, or all rows would share one set of the cache
};

// The q8 form of one row, from one group on.
template <typename Prepared>
struct Q8Row {
  const int8_t* q;
  const float* scale;
  const int32_t* sum;
  size_t width;   // elements between rows of q
  size_t groups;  // elements between rows of scale and of sum
  const Prepared& prepared;
  size_t row;  // of the tile
  size_t group;

  [[gnu::always_inline]] void next_row() {
    q += width;
    scale += groups;
    sum += groups;
    ++row;
  }
  [[gnu::always_inline]] void next_group() {
    q += kGroup;
    ++scale;
    ++sum;
    ++group;
  }
};

[[gnu::always_inline]] inline __m512 load_bytes(const uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

[[gnu::always_inline]] inline __m512 load_signed_bytes(const uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

// 2^(e - 128): e - 1 is the exponent field, but of the smallest two, which are denormals.
[[gnu::always_inline]] inline __m512 load_exponents(const uint8_t* p) {
  const __m512i e = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
  const __mmask16 tiny = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
  return _mm512_castsi512_ps(_mm512_mask_sllv_epi32(normal, tiny, _mm512_set1_epi32(0x00200000), e));
}

// The integer sums of one row and group: k = 0 .. 15 and 16 .. 31.  Two, because a chain of eight dot products takes
// too long to end: what waits for it fills the scheduler.
struct Dots {
  __m512i first;
  __m512i second;
  [[gnu::always_inline]] __m512 total() const { return _mm512_cvtepi32_ps(_mm512_add_epi32(first, second)); }
};

// s (code - zero point): the zero point is where the integer sum starts.
template <Layout LAYOUT>
struct Symmetric {
  static constexpr int kMaxRows = 32;
  static constexpr int kZeroPoint = zero_point(LAYOUT);
  using Prepared = NothingPrepared;
  __m512 scale;
  [[gnu::always_inline]] static __m512 load(const uint8_t* block, const uint8_t* p) {
    if constexpr (LAYOUT == Layout::kW4x) return _mm512_mul_ps(load_halves(block), load_signed_bytes(p));
    if constexpr (LAYOUT == Layout::kW4e) return load_exponents(p);
    return load_halves(p);
  }
  [[gnu::always_inline]] Symmetric(const uint8_t* block, const uint8_t* p) : scale(load(block, p)) {}
  [[gnu::always_inline]] void prepare(__m512i (&codes)[8]) const { look_up<LAYOUT>(codes); }

  [[gnu::always_inline]] static Dots start(const Q8Row<Prepared>& x) {
    return {_mm512_set1_epi32(-kZeroPoint * *x.sum), _mm512_setzero_si512()};
  }
  [[gnu::always_inline]] __m512 add(const Dots& dots, const Q8Row<Prepared>& x, __m512 sum) const {
    return _mm512_fmadd_ps(dots.total(), _mm512_mul_ps(scale, _mm512_set1_ps(*x.scale)), sum);
  }
};

// s code - m.
struct WithMin {
  static constexpr int kMaxRows = 32;
  using Prepared = NothingPrepared;
  __m512 scale;
  __m512 min;
  [[gnu::always_inline]] void prepare(__m512i (&)[8]) const {}

  [[gnu::always_inline]] static Dots start(const Q8Row<Prepared>&) {
    return {_mm512_setzero_si512(), _mm512_setzero_si512()};
  }
  [[gnu::always_inline]] __m512 add(const Dots& dots, const Q8Row<Prepared>& x, __m512 sum) const {
    const __m512 q_sum = _mm512_cvtepi32_ps(broadcast4(x.sum));
    const __m512 part = _mm512_fnmadd_ps(min, q_sum, _mm512_mul_ps(scale, dots.total()));
    return _mm512_fmadd_ps(part, _mm512_set1_ps(*x.scale), sum);
  }
};

struct HalfWithMin : WithMin {
  [[gnu::always_inline]] HalfWithMin(const uint8_t*, const uint8_t* p) : WithMin{load_halves(p), load_halves(p + 32)} {}
};

struct ByteWithMin : WithMin {
  [[gnu::always_inline]] ByteWithMin(const uint8_t* block, const uint8_t* p)
      : WithMin{_mm512_mul_ps(load_halves(block), load_bytes(p)),
                _mm512_mul_ps(load_halves(block + 32), load_bytes(p + 16))} {}
};

// s (code - zero point) with a scale per 16 k.
template <Layout LAYOUT>
struct TwoScales {
  static constexpr int kMaxRows = HalfSums::kMaxRows;
  using Prepared = HalfSums;
  static constexpr int kZeroPoint = zero_point(LAYOUT);
  __m512 first;
  __m512 second;
  [[gnu::always_inline]] static __m512 load_d(const uint8_t* block) {
    if constexpr (has_table(LAYOUT)) return _mm512_mul_ps(load_halves(block), _mm512_set1_ps(kTableUnit));
    return load_halves(block);
  }
  [[gnu::always_inline]] TwoScales(const uint8_t* block, const uint8_t* p)
      : first(_mm512_mul_ps(load_d(block), load_signed_bytes(p))),
        second(_mm512_mul_ps(load_d(block), load_signed_bytes(p + 16))) {}
  [[gnu::always_inline]] void prepare(__m512i (&)[8]) const {}

  [[gnu::always_inline]] static Dots start(const Q8Row<Prepared>& x) {
    const int32_t first_sum = x.prepared.first[x.row][x.group];
    return {_mm512_set1_epi32(-kZeroPoint * first_sum), _mm512_set1_epi32(-kZeroPoint * (*x.sum - first_sum))};
  }
  [[gnu::always_inline]] __m512 add(const Dots& dots, const Q8Row<Prepared>& x, __m512 sum) const {
    const __m512 part =
        _mm512_fmadd_ps(second, _mm512_cvtepi32_ps(dots.second), _mm512_mul_ps(first, _mm512_cvtepi32_ps(dots.first)));
    return _mm512_fmadd_ps(part, _mm512_set1_ps(*x.scale), sum);
  }
};

// The same, of codes that the block's own table has the values of.
template <Layout LAYOUT>
struct TableScales : TwoScales<LAYOUT> {
  __m512i table;
  [[gnu::always_inline]] TableScales(const uint8_t* block, const uint8_t* p)
      : TwoScales<LAYOUT>(block, p),
        table(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block + kTableOffset)))) {}
  [[gnu::always_inline]] void prepare(__m512i (&codes)[8]) const {
#pragma GCC unroll 8
    for (auto& c : codes) c = _mm512_shuffle_epi8(table, c);
  }
};

// d s code - e m with s and m per 16 k.  Codes of two bits times s of four still fit a byte, so that both halves are
// one integer sum, and one step sums both minima.
struct ScaledCodes {
  static constexpr int kMaxRows = HalfSums::kMaxRows;
  using Prepared = HalfSums;
  __m512 d;
  __m512 e;
  __m512i both;  // per column the bytes of the two halves, s and m, as 16 bits each
  [[gnu::always_inline]] ScaledCodes(const uint8_t* block, const uint8_t* p)
      : d(load_halves(block)),
        e(load_halves(block + 32)),
        both(_mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))) {}

  // A product of 16 bits multiplies two codes at once: neither exceeds its byte.
  [[gnu::always_inline]] void prepare(__m512i (&codes)[8]) const {
    const __m512i s = _mm512_and_si512(both, _mm512_set1_epi16(15));
    const __m512i first = _mm512_or_si512(_mm512_slli_epi32(s, 16), _mm512_and_si512(s, _mm512_set1_epi32(15)));
    const __m512i second = _mm512_or_si512(_mm512_srli_epi32(s, 16), _mm512_andnot_si512(_mm512_set1_epi32(15), s));
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) codes[j] = _mm512_mullo_epi16(codes[j], j < 4 ? first : second);
  }

  [[gnu::always_inline]] static Dots start(const Q8Row<Prepared>&) {
    return {_mm512_setzero_si512(), _mm512_setzero_si512()};
  }
  [[gnu::always_inline]] __m512 add(const Dots& dots, const Q8Row<Prepared>& x, __m512 sum) const {
    const int16_t first = x.prepared.first[x.row][x.group];
    const int16_t halves[2] = {first, static_cast<int16_t>(*x.sum - first)};
    const __m512i mins = _mm512_madd_epi16(_mm512_srli_epi16(both, 4), broadcast4(halves));
    const __m512 part = _mm512_fnmadd_ps(e, _mm512_cvtepi32_ps(mins), _mm512_mul_ps(d, dots.total()));
    return _mm512_fmadd_ps(part, _mm512_set1_ps(*x.scale), sum);
  }
};

}  // namespace
}  // namespace quintet::avx512
