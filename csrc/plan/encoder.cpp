// The row ops that encoders have and decoders do without.
#include <algorithm>
#include <cstring>

#include "phases.h"
#include "plan.h"
#include "require.h"

namespace quintet {

void Plan::row_embed_position(int matrix_id, int dst) {
  const PackedMatrix& w = matrix(matrix_id);
  const Buffer& y = buffer(dst);
  require(w.k == y.width, "embed_position: widths differ");
  max_position_ = std::min(max_position_, w.n - 1);
  add_row_op("embed_position", [matrix_id, &y, this](const StepContext& c, int row) {
    kernels_.unpack_row(matrix(matrix_id), c.step.positions[row], y.row(row));
  });
}

void Plan::row_embed_type(int matrix_id, int dst) {
  const PackedMatrix& w = matrix(matrix_id);
  const Buffer& y = buffer(dst);
  require(w.k == y.width, "embed_type: widths differ");
  max_token_type_ = std::min(max_token_type_, w.n - 1);
  add_row_op("embed_type", [matrix_id, &y, this](const StepContext& c, int row) {
    const int type = c.step.token_types == nullptr ? 0 : c.step.token_types[row];
    kernels_.unpack_row(matrix(matrix_id), type, y.row(row));
  });
}

void Plan::row_layer_norm(int src, int vector_id, int bias_id, float eps, int dst) {
  const Buffer& x = buffer(src);
  const Buffer& y = buffer(dst);
  require(x.width == y.width && static_cast<int>(vector(vector_id).size()) == x.width, "layer_norm: widths differ");
  require(bias_id < 0 || static_cast<int>(vector(bias_id).size()) == x.width, "layer_norm: widths differ");
  const float* weight = vector(vector_id).data();
  const float* bias = bias_id < 0 ? nullptr : vector(bias_id).data();
  add_row_op("layer_norm", [&x, &y, weight, bias, eps, this](const StepContext&, int row) {
    kernels_.layer_norm(x.row(row), weight, bias, x.width, eps, y.row(row));
  });
}

void Plan::row_gelu(int src, int up, int dst) {
  const Buffer& x = buffer(src);
  const Buffer& y = buffer(dst);
  const Buffer* u = up < 0 ? nullptr : &buffer(up);
  require(x.width == y.width && (u == nullptr || u->width == x.width), "gelu: widths differ");
  add_row_op("gelu", [&x, u, &y, this](const StepContext&, int row) {
    kernels_.gelu(x.row(row), u == nullptr ? nullptr : u->row(row), x.width, y.row(row));
  });
}

void Plan::row_tanh(int src, int dst) {
  const Buffer& x = buffer(src);
  const Buffer& y = buffer(dst);
  require(x.width == y.width, "tanh: widths differ");
  add_row_op("tanh", [&x, &y, this](const StepContext&, int row) { kernels_.tanh(x.row(row), x.width, y.row(row)); });
}

void Plan::row_columns(int src, int begin, int dst) {
  const Buffer& x = buffer(src);
  const Buffer& y = buffer(dst);
  require(begin >= 0 && begin <= x.width && y.width <= x.width - begin, "columns: outside the row");
  require(src != dst, "columns: in place");
  add_row_op("columns", [&x, begin, &y](const StepContext&, int row) {
    std::memcpy(y.row(row), x.row(row) + begin, static_cast<size_t>(y.width) * sizeof(float));
  });
}

}  // namespace quintet
