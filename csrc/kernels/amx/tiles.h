// Tiles: eight registers of up to 16 rows of 64 bytes.
//
// One instruction multiplies a tile of 16 rows of activations with one of 16 columns of weights, a unit of a panel
// (layouts.h) per row of that tile: 64 k of int8, 32 of bf16.  It takes 16 cycles, however few k there are.
// Source: Intel SDM, volume 1, chapter 18.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quintet::amx {
namespace {

constexpr int kTileHeight = 16;
constexpr size_t kTileRowBytes = 64;

struct TileShape {
  int rows;
  int row_bytes;  // a multiple of 4
};

// A thread's tiles, released at the end: until then the system saves 8 kB more with the thread.
class Tiles {
 public:
  Tiles() = default;
  template <size_t N>
  explicit Tiles(const TileShape (&shapes)[N]) {
    configure(shapes);
  }
  ~Tiles() { __asm__ volatile("tilerelease"); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  // Shapes of tiles 0, 1 ..; one of no rows is not used.  Takes some 200 cycles.
  template <size_t N>
  void configure(const TileShape (&shapes)[N]) {
    static_assert(N <= 8);
    Configuration configuration{};
    configuration.palette = 1;
    for (size_t i = 0; i < N; ++i) {
      configuration.rows[i] = static_cast<uint8_t>(shapes[i].rows);
      configuration.row_bytes[i] = static_cast<uint16_t>(shapes[i].rows == 0 ? 0 : shapes[i].row_bytes);
    }
    // Not the intrinsic: gcc 12 takes it to read no more than eight bytes and drops what it sees no use of.
    __asm__ volatile("ldtilecfg %0" : : "m"(configuration));
  }

 private:
  struct Configuration {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  };
  static_assert(sizeof(Configuration) == 64);
};

// Assembly, because intrinsics take literals only and tell the compiler of no memory that they use.
template <int TILE>
[[gnu::always_inline]] inline void load(const void* p, size_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(TILE) : "memory");
}

template <int TILE>
[[gnu::always_inline]] inline void store(void* p, size_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(TILE) : "memory");
}

template <int TILE>
[[gnu::always_inline]] inline void zero() {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(TILE));
}

// SUM[row][column] += X[row] . W[column], of signed bytes: exact.
template <int SUM, int X, int W>
[[gnu::always_inline]] inline void add_dots_int8() {
  __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUM), "i"(X), "i"(W));
}

// The same of bf16: even and odd k of the tile in two chains from 0, whose sum is added.  Flushes denormals.
template <int SUM, int X, int W>
[[gnu::always_inline]] inline void add_dots_bf16() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUM), "i"(X), "i"(W));
}

// Products of bf16 with one or two tiles of rows and one or two of columns: sums are tiles 0 .. 3, by rows, then by
// columns; rows 4 and 5; columns 6 and 7.
constexpr size_t kBF16TileK = 32;

class BF16Tiles {
 public:
  // For blocks of up to 32 rows.
  void fit(int rows) {
    if (rows == rows_) return;
    rows_ = rows;
    const int first = rows < kTileHeight ? rows : kTileHeight;
    const int second = rows - first < kTileHeight ? rows - first : kTileHeight;
    const TileShape upper{first, kTileRowBytes};
    const TileShape lower{second, kTileRowBytes};
    const TileShape columns{kTileHeight, kTileRowBytes};
    tiles_.configure({upper, upper, lower, lower, upper, lower, columns, columns});
  }

 private:
  Tiles tiles_;
  int rows_ = 0;
};

template <bool TWO_TILES, bool TWO_COLUMNS>
[[gnu::always_inline]] inline void zero_bf16_sums() {
  zero<0>();
  if constexpr (TWO_COLUMNS) zero<1>();
  if constexpr (TWO_TILES) zero<2>();
  if constexpr (TWO_TILES && TWO_COLUMNS) zero<3>();
}

// Strides in bytes.
template <bool TWO_TILES, bool TWO_COLUMNS>
[[gnu::always_inline]] inline void add_bf16_tiles(const void* rows, size_t row_stride, const void* first,
                                                  const void* second, size_t stride) {
  load<6>(first, stride);
  load<4>(rows, row_stride);
  add_dots_bf16<0, 4, 6>();
  if constexpr (TWO_COLUMNS) {
    load<7>(second, stride);
    add_dots_bf16<1, 4, 7>();
  }
  if constexpr (TWO_TILES) {
    load<5>(static_cast<const std::byte*>(rows) + kTileHeight * row_stride, row_stride);
    add_dots_bf16<2, 5, 6>();
    if constexpr (TWO_COLUMNS) add_dots_bf16<3, 5, 7>();
  }
}

template <bool TWO_TILES, bool TWO_COLUMNS>
[[gnu::always_inline]] inline void store_bf16_sums(float* y, size_t ldy) {
  const size_t stride = ldy * sizeof *y;
  store<0>(y, stride);
  if constexpr (TWO_COLUMNS) store<1>(y + 16, stride);
  if constexpr (TWO_TILES) store<2>(y + kTileHeight * ldy, stride);
  if constexpr (TWO_TILES && TWO_COLUMNS) store<3>(y + kTileHeight * ldy + 16, stride);
}

template <bool TWO_TILES, bool TWO_COLUMNS>
[[gnu::always_inline]] inline void load_bf16_sums(const float* y, size_t ldy) {
  const size_t stride = ldy * sizeof *y;
  load<0>(y, stride);
  if constexpr (TWO_COLUMNS) load<1>(y + 16, stride);
  if constexpr (TWO_TILES) load<2>(y + kTileHeight * ldy, stride);
  if constexpr (TWO_TILES && TWO_COLUMNS) load<3>(y + kTileHeight * ldy + 16, stride);
}

// Memory to bring into L2 while tiles are busy with something else, some lines at a time.
struct Upcoming {
  const uint8_t* at;
  const uint8_t* end;

  // How many lines at a time bring all of it in so many steps.
  int lines_per_step(size_t steps) const {
    const auto lines = static_cast<size_t>(end - at) / kLine;
    return static_cast<int>((lines + steps - 1) / steps);
  }
  [[gnu::always_inline]] void ask(int lines) {
    for (int i = 0; i < lines && at < end; ++i, at += kLine) __builtin_prefetch(at, 0, 2);
  }

 private:
  static constexpr size_t kLine = 64;
};

}  // namespace
}  // namespace quintet::amx
