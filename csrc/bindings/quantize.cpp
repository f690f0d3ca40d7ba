// quintet._native.quantize_rows: check, release the GIL, call.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <cmath>
#include <limits>
#include <optional>
#include <stdexcept>

#include "bindings.h"
#include "encode.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace quintet {
namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

bool quantize_rows(int format, int source, const Bytes& rows, size_t row_size, const Output& blocks,
                   const std::optional<Floats>& importance, int num_threads) {
  const auto shape = quantize::shape_of(static_cast<quantize::Format>(format));
  if (shape.block_bytes == 0) throw std::invalid_argument("no such format to encode to");
  if (source != 0 && source != 1 && source != 30) throw std::invalid_argument("the source must be F32, F16 or BF16");
  if (num_threads < 1 || num_threads > 1024) throw std::invalid_argument("num_threads must be 1 to 1024");
  const size_t value_bytes = source == 0 ? 4 : 2;
  if (row_size == 0 || row_size % shape.block_size != 0 || row_size > std::numeric_limits<size_t>::max() / 8) {
    throw std::invalid_argument("row_size must be a multiple of the format's block size");
  }
  if (rows.size() % (row_size * value_bytes) != 0) throw std::invalid_argument("the rows are not whole");
  const size_t num_rows = rows.size() / (row_size * value_bytes);
  if (blocks.size() != num_rows * (row_size / shape.block_size) * shape.block_bytes) {
    throw std::invalid_argument("blocks is not as long as the rows ask for");
  }
  if (importance) {
    if (importance->size() != row_size) throw std::invalid_argument("importance must have one value per column");
    for (size_t i = 0; i < row_size; ++i) {
      const float value = importance->data()[i];
      if (!std::isfinite(value) || value < 0)
        throw std::invalid_argument("importance must be finite, and not negative");
    }
  }
  const quantize::Job job{static_cast<quantize::Format>(format),
                          static_cast<quantize::Source>(source),
                          rows.data(),
                          importance ? importance->data() : nullptr,
                          num_rows,
                          row_size,
                          blocks.data()};
  const nb::gil_scoped_release release;
  return quantize::run(job, num_threads);
}

}  // namespace

void bind_quantize(nb::module_& m) {
  m.def("quantize_rows", &quantize_rows, "format"_a, "source"_a, "rows"_a, "row_size"_a, "blocks"_a, nb::kw_only(),
        "importance"_a = nb::none(), "num_threads"_a = 1,
        "Encode rows, given as the bytes of `source` (a GGUF type id: F32, F16, BF16), to `format` (another) in "
        "`blocks`. "
        "False where a value is NaN or infinite and the format cannot hold it.");
}

}  // namespace quintet
