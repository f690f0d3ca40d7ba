// The most int8 arithmetic a thread can do: what the matrix kernels' speed is a fraction of.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace quintet {

// Does int8 dot products on registers, `rounds` times, and returns the multiply-accumulates it did.
using DotPeak = int64_t (*)(int64_t rounds);

// The loop made of the instructions that this table's int8 kernels are made of.
DotPeak dot_peak(const KernelTable& table);

namespace avx2 {
int64_t dot_peak(int64_t rounds);  // VPMADDUBSW and VPADDW
}
namespace avx512 {
int64_t dot_peak(int64_t rounds);  // VPDPBUSD
}
namespace amx {
int64_t dot_peak(int64_t rounds);  // TDPBSSD over 64 k: kernels stop after 16 or 32 k to scale
}
namespace neon {
int64_t dot_peak(int64_t rounds);  // SDOT
}

}  // namespace quintet
