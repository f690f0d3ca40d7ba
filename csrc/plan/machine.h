// Measurements of the machine itself.
#pragma once

#include <cstddef>

namespace quintet {

// Best bytes per second over `seconds` of passes that read size_bytes once, split between num_threads.
double measure_read_bandwidth(int num_threads, size_t size_bytes, double seconds);

}  // namespace quintet
