// Rows of numbers to GGUF's block formats: the one public header.
//
// Formats: F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4.
//
// Method.  A group of weights x shares a scale d (and a minimum m), its codes q are small integers, and the format
// says x ~ d value(q) + m.  What is minimised is the weighted square error  sum_i w_i (x_i - d value(q_i) - m)^2,
// where w_i is the importance of column i, or without one 1; in Q2_K and Q3_K it then grows with the size of x_i, which
// keeps the norm (super.h).  For given codes the best d and m solve a linear least-squares
// problem in closed form; for given d and m the best codes are the nearest.  So for each group a few starting scales
// are tried (the range divided by a little less and a little more than the number of steps), the best is improved by
// alternating the two solutions, as Lloyd's algorithm does (Lloyd 1982, "Least squares quantization in PCM"), and in
// formats with super-blocks the group's scale and minimum are then rounded to their own integers by trying the
// neighbours, and the super-block's scales fitted to what came out.
//
// Sixteen groups are searched at once, one per vector lane, so no step of the search adds across lanes, and the result
// depends neither on the instruction set nor on the number of threads.
//
// Source of the formats: ggml/src/ggml-common.h (block_q4_0 ... block_mxfp4) of llama.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quintet::quantize {

// With the ids of GGUF.
enum class Format : int {
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kBF16 = 30,
  kMXFP4 = 39,
};

enum class Source : int { kF32 = 0, kF16 = 1, kBF16 = 30 };

struct Shape {
  size_t block_size = 0;   // weights per block
  size_t block_bytes = 0;  // 0: not a format of ours
};

Shape shape_of(Format format);

struct Job {
  Format format;
  Source source;
  const void* rows;         // [num_rows, row_size] of `source`, any alignment
  const float* importance;  // [row_size], finite, none negative; or null: all columns count alike
  size_t num_rows;
  size_t row_size;  // a multiple of the format's block size
  uint8_t* blocks;  // [num_rows, row_size / block_size, block_bytes], not overlapping the rows
};

// Encodes on `num_threads` threads (at least 1).  Returns false, with `blocks` in an unspecified state, if a value is
// NaN or infinite and the format is not F16 or BF16, which can hold those.  Throws std::bad_alloc or std::system_error.
bool run(const Job& job, int num_threads);

}  // namespace quintet::quantize
