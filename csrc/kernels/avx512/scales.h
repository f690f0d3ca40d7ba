// What scales codes: how each kind of layout turns a group's integer sums into a row's float sum.
#pragma once

#include "steps.h"

namespace quintet::avx512 {
namespace {

constexpr int kFewestOfMany = 8;  // up to so many rows take no steps: filling the tables would cost more
constexpr size_t kMaxGroups = kMaxHalvesK / kGroup;

// The sums of the first 16 of each group, for layouts whose scales change there.
struct HalfSums {
  static constexpr int kMaxRows = 24;      // 100 kB
  static constexpr int kPanelsPerUse = 8;  // of two; their cost is small beside that of these
  static int max_rows(size_t) { return kMaxRows; }
  HalfSums(const Rows& x, int row, int rows) {
    const size_t width = static_cast<size_t>(x.width);
    for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
      const int8_t* q = x.q8 + (static_cast<size_t>(row) + r) * width;
      // Eight groups at a time, of which a block has as many: absolute differences sum what is made unsigned.
      for (size_t g = 0; g < width / kGroup; g += 8) {
        __m512i quads[4];  // of two groups each, sums of eight
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; ++i) {
          const __m512i two = _mm512_loadu_si512(q + (g + i * 2) * kGroup);
          quads[i] = _mm512_sad_epu8(_mm512_xor_si512(two, _mm512_set1_epi8(-128)), _mm512_setzero_si512());
        }
        const __m512i low = halves_of(quads[0], quads[1]);
        const __m512i high = halves_of(quads[2], quads[3]);
        const __m512i firsts = _mm512_permutex2var_epi64(low, _mm512_setr_epi64(0, 4, 1, 5, 8, 12, 9, 13), high);
        const __m512i sums = _mm512_sub_epi64(firsts, _mm512_set1_epi64(128 * 16));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(&first[r][g]), _mm512_cvtepi64_epi16(sums));
      }
    }
  }
  int16_t first[kMaxRows][kMaxGroups + 32];  // a line more, or all rows would share one set of the cache

 private:
  // Sums of 16: per half of a group that of a, then that of b.
  static __m512i halves_of(__m512i a, __m512i b) {
    return _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
  }
};

// With the steps of many rows.
template <int ZERO_POINT>
struct PreparedRows {
  static constexpr int kMaxRows = 32;
  static constexpr int kPanelsPerUse = 8;
  static int max_rows(size_t width) { return Steps<ZERO_POINT, false>::max_rows(width, kMaxRows); }
  PreparedRows(const Rows& x, int row, int rows) {
    if (rows > kFewestOfMany) steps.fill(x, row, rows, 0);
  }
  Steps<ZERO_POINT, false> steps;
};

template <int ZERO_POINT>
struct PreparedHalves : HalfSums {
  static int max_rows(size_t width) { return Steps<ZERO_POINT, true>::max_rows(width, kMaxRows); }
  PreparedHalves(const Rows& x, int row, int rows) : HalfSums(x, row, rows) {
    if (rows <= kFewestOfMany) return;
    steps.fill(x, row, rows, [&](size_t r, size_t g) {
      return _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(&first[r][g])));
    });
  }
  Steps<ZERO_POINT, true> steps;
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
  [[gnu::always_inline]] __m512i whole() const { return _mm512_add_epi32(first, second); }
  [[gnu::always_inline]] __m512 total() const { return _mm512_cvtepi32_ps(whole()); }
};

// s (code - zero point): the zero point is where the integer sum starts.
template <Layout LAYOUT>
struct Symmetric {
  static constexpr int kMaxRows = 32;
  static constexpr int kZeroPoint = zero_point(LAYOUT);
  static constexpr bool kStepped = LAYOUT != Layout::kW4e;  // whose scales may be too small to be exact
  using Prepared = std::conditional_t<kStepped, PreparedRows<kZeroPoint>, NothingPrepared>;
  using Tables = ScaleTable;
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

  [[gnu::always_inline]] void fill(Tables& table) const { table.fill(scale); }
  template <typename Steps>
  [[gnu::always_inline]] static Dots start_stepped(const Steps& steps, size_t at) {
    return {_mm512_set1_epi32(steps.start[at]), _mm512_setzero_si512()};
  }
  template <typename Steps>
  [[gnu::always_inline]] static __m512 add_stepped(const Dots& dots, const Tables& table, const Steps& steps, size_t at,
                                                   __m512 sum) {
    return _mm512_fmadd_ps(steps.scaled(dots.whole(), at), table.at(steps.offset[at]), sum);
  }
};

// s code - m.
struct WithMin {
  static constexpr int kMaxRows = 32;
  static constexpr bool kStepped = true;
  using Prepared = PreparedRows<0>;
  struct Tables {
    ScaleTable scale;
    alignas(64) float min[kPanelColumns];  // not in a register: there is none left
  };
  __m512 scale;
  __m512 min;
  [[gnu::always_inline]] void prepare(__m512i (&)[8]) const {}

  [[gnu::always_inline]] static Dots start(const Q8Row<Prepared>&) {
    return {_mm512_setzero_si512(), _mm512_setzero_si512()};
  }
  [[gnu::always_inline]] __m512 add(const Dots& dots, const Q8Row<Prepared>& x, __m512 sum) const {
    const __m512 with_scale = _mm512_fmadd_ps(dots.total(), _mm512_mul_ps(scale, _mm512_set1_ps(*x.scale)), sum);
    return _mm512_fnmadd_ps(min, _mm512_set1_ps(static_cast<float>(*x.sum) * *x.scale), with_scale);
  }

  [[gnu::always_inline]] void fill(Tables& tables) const {
    tables.scale.fill(scale);
    _mm512_store_ps(tables.min, min);
  }
  template <typename Steps>
  [[gnu::always_inline]] static Dots start_stepped(const Steps& steps, size_t at) {
    return {_mm512_set1_epi32(steps.start[at]), _mm512_setzero_si512()};
  }
  template <typename Steps>
  [[gnu::always_inline]] static __m512 add_stepped(const Dots& dots, const Tables& tables, const Steps& steps,
                                                   size_t at, __m512 sum) {
    const __m512 with_scale = _mm512_fmadd_ps(steps.scaled(dots.whole(), at), tables.scale.at(steps.offset[at]), sum);
    const float* min = tables.min;
    __asm__ volatile("" : "+r"(min));  // or the compiler would keep it in a register and another one on the stack
    return _mm512_fnmadd_ps(_mm512_set1_ps(steps.x_sum[at]), _mm512_load_ps(min), with_scale);
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
  static constexpr int kZeroPoint = zero_point(LAYOUT);
  static constexpr bool kStepped = true;
  using Prepared = PreparedHalves<kZeroPoint>;
  struct Tables {
    ScaleTable first;
    ScaleTable second;
  };
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
    const __m512 x_scale = _mm512_set1_ps(*x.scale);
    const __m512 half = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots.first), _mm512_mul_ps(first, x_scale), sum);
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots.second), _mm512_mul_ps(second, x_scale), half);
  }

  [[gnu::always_inline]] void fill(Tables& tables) const {
    tables.first.fill(first);
    tables.second.fill(second);
  }
  template <typename Steps>
  [[gnu::always_inline]] static Dots start_stepped(const Steps& steps, size_t at) {
    return {_mm512_set1_epi32(steps.start[at]), _mm512_set1_epi32(steps.second_start[at])};
  }
  template <typename Steps>
  [[gnu::always_inline]] static __m512 add_stepped(const Dots& dots, const Tables& tables, const Steps& steps,
                                                   size_t at, __m512 sum) {
    const int32_t offset = steps.offset[at];
    const __m512 half = _mm512_fmadd_ps(steps.scaled(dots.first, at), tables.first.at(offset), sum);
    return _mm512_fmadd_ps(steps.scaled(dots.second, at), tables.second.at(offset), half);
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
  static constexpr bool kStepped = false;
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

// Those of a layout.
template <Layout LAYOUT>
struct ScalesFor {
  using Type = Symmetric<LAYOUT>;
};
template <Layout LAYOUT>
  requires(has_halves(LAYOUT) && !has_table(LAYOUT))
struct ScalesFor<LAYOUT> {
  using Type = TwoScales<LAYOUT>;
};
template <Layout LAYOUT>
  requires(has_table(LAYOUT))
struct ScalesFor<LAYOUT> {
  using Type = TableScales<LAYOUT>;
};
template <Layout LAYOUT>
  requires(LAYOUT == Layout::kW4m || LAYOUT == Layout::kW5m)
struct ScalesFor<LAYOUT> {
  using Type = HalfWithMin;
};
template <Layout LAYOUT>
  requires(LAYOUT == Layout::kW4k || LAYOUT == Layout::kW5k)
struct ScalesFor<LAYOUT> {
  using Type = ByteWithMin;
};
template <>
struct ScalesFor<Layout::kW2k> {
  using Type = ScaledCodes;
};
template <Layout LAYOUT>
using ScalesOf = typename ScalesFor<LAYOUT>::Type;

}  // namespace
}  // namespace quintet::avx512
