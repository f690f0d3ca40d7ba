#include "../peak.h"

#include "tiles.h"

namespace quintet::amx {

int64_t dot_peak(int64_t rounds) {
  constexpr TileShape kFull{kTileHeight, kTileRowBytes};
  const Tiles tiles({kFull, kFull, kFull, kFull, kFull, kFull});
  zero<0>(), zero<1>(), zero<2>(), zero<3>(), zero<4>(), zero<5>();
  for (int64_t i = 0; i < rounds; i++) {
    add_dots_int8<0, 4, 5>();
    add_dots_int8<1, 4, 5>();
    add_dots_int8<2, 4, 5>();
    add_dots_int8<3, 4, 5>();
  }
  return rounds * 4 * kTileHeight * kTileHeight * static_cast<int64_t>(kTileRowBytes);
}

}  // namespace quintet::amx
