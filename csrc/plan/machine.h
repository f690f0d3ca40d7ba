// Measurements of the machine itself.
#pragma once

#include <cstddef>

namespace quintet {

// Best bytes per second over `seconds` of passes that read size_bytes once, split between num_threads; 0 bytes: more
// than caches hold.
double measure_read_bandwidth(int num_threads, size_t size_bytes, double seconds);

// Best int8 multiply-accumulates per second over `seconds`, from registers, on num_threads, with the instructions of
// the active kernels.  Throws std::invalid_argument when QUINTET_KERNELS names kernels this CPU cannot run.
double measure_int8_peak(int num_threads, double seconds);

}  // namespace quintet
