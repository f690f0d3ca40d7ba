// The ops that touch one row at a time.  Each checks its operands once, then is a call of a kernel.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "phases.h"
#include "plan.h"
#include "require.h"

namespace quintet {

void Plan::begin_rows(bool logits_rows) {
  auto phase = std::make_unique<RowPhase>(logits_rows);
  open_rows_ = phase.get();
  phases_.push_back(std::move(phase));
}

void Plan::add_row_op(const char* name, RowOp op) {
  require(open_rows_ != nullptr, "a row op outside a row phase");
  open_rows_->add(name, std::move(op));
}

void Plan::row_embed(int matrix_id, int dst) {
  const PackedMatrix& w = matrix(matrix_id);
  const Buffer& y = buffer(dst);
  require(w.k == y.width, "embed: widths differ");
  max_token_id_ = std::min(max_token_id_, w.n - 1);
  add_row_op("embed", [matrix_id, &y, this](const StepContext& c, int row) {
    kernels_.unpack_row(matrix(matrix_id), c.step.token_ids[row], y.row(row));
  });
}

void Plan::row_add(int src, int dst) {
  const Buffer& x = buffer(src);
  const Buffer& y = buffer(dst);
  require(x.width == y.width, "add: widths differ");
  add_row_op("add", [&x, &y, this](const StepContext&, int row) { kernels_.add(x.row(row), y.width, y.row(row)); });
}

void Plan::row_copy(int src, int dst) {
  const Buffer& x = buffer(src);
  const Buffer& y = buffer(dst);
  require(x.width == y.width, "copy: widths differ");
  add_row_op("copy", [&x, &y](const StepContext&, int row) {
    std::memcpy(y.row(row), x.row(row), static_cast<size_t>(y.width) * sizeof(float));
  });
}

void Plan::row_select(int src, int dst) {
  const Buffer& x = buffer(src);
  const Buffer& y = buffer(dst);
  require(x.width == y.width, "select: widths differ");
  require(open_rows_ != nullptr && open_rows_->logits_rows(), "select: outside a phase of logits rows");
  add_row_op("select", [&x, &y](const StepContext& c, int row) {
    std::memcpy(y.row(row), x.row(c.step.logits_rows[row]), static_cast<size_t>(y.width) * sizeof(float));
  });
}

void Plan::row_rms_norm(int src, int vector_id, float eps, int dst) {
  const Buffer& x = buffer(src);
  const Buffer& y = buffer(dst);
  const float* weight = vector(vector_id).data();
  const auto group = static_cast<int>(vector(vector_id).size());
  require(x.width == y.width, "rms_norm: widths differ");
  require(x.width % group == 0, "rms_norm: groups do not divide the row");
  add_row_op("rms_norm", [&x, &y, weight, group, eps, this](const StepContext&, int row) {
    for (int i = 0; i < x.width; i += group) kernels_.rms_norm(x.row(row) + i, weight, group, eps, y.row(row) + i);
  });
}

void Plan::row_rope(int buffer_id, int rotation_id) {
  const Buffer& x = buffer(buffer_id);
  const Rotation& r = rotation(rotation_id);
  require(x.width % r.head_dim == 0, "rope: the row is not whole heads");
  add_row_op("rope", [&x, &r, this](const StepContext&, int row) {
    const size_t half = r.inv_freq.size();
    const RopeArgs args{.head_dim = r.head_dim,
                        .rotary_dim = static_cast<int>(2 * half),
                        .interleaved = r.interleaved,
                        .cos = r.cos_pages.as<float>() + static_cast<size_t>(row) * half,
                        .sin = r.sin_pages.as<float>() + static_cast<size_t>(row) * half};
    kernels_.rope(x.row(row), x.width / r.head_dim, args);
  });
}

void Plan::row_silu_mul(int gate, int up, int dst) {
  const Buffer& g = buffer(gate);
  const Buffer& u = buffer(up);
  const Buffer& y = buffer(dst);
  require(g.width == u.width && g.width == y.width, "silu_mul: widths differ");
  add_row_op("silu_mul", [&g, &u, &y, this](const StepContext&, int row) {
    kernels_.silu_mul(g.row(row), u.row(row), g.width, y.row(row));
  });
}

void Plan::row_gelu_tanh(int src, int up, int dst) {
  const Buffer& x = buffer(src);
  const Buffer& y = buffer(dst);
  const Buffer* u = up < 0 ? nullptr : &buffer(up);
  require(x.width == y.width && (u == nullptr || u->width == x.width), "gelu_tanh: widths differ");
  add_row_op("gelu_tanh", [&x, u, &y, this](const StepContext&, int row) {
    kernels_.gelu_tanh(x.row(row), u == nullptr ? nullptr : u->row(row), x.width, y.row(row));
  });
}

void Plan::row_scale(int src, float factor, int dst) {
  const Buffer& x = buffer(src);
  const Buffer& y = buffer(dst);
  require(x.width == y.width, "scale: widths differ");
  add_row_op("scale", [&x, factor, &y, this](const StepContext&, int row) {
    kernels_.scale(x.row(row), factor, x.width, y.row(row));
  });
}

void Plan::row_scale_by_position(int src, double growth, int period, int dst) {
  const Buffer& x = buffer(src);
  const Buffer& y = buffer(dst);
  require(x.width == y.width && period > 0, "scale_by_position: widths differ, or the period is not positive");
  add_row_op("scale_by_position", [&x, growth, period, &y, this](const StepContext& c, int row) {
    const double factor = 1 + growth * std::log(1.0 + c.step.positions[row] / period);
    kernels_.scale(x.row(row), static_cast<float>(factor), x.width, y.row(row));
  });
}

void Plan::row_softcap(int src, float cap, int dst) {
  const Buffer& x = buffer(src);
  const Buffer& y = buffer(dst);
  require(x.width == y.width && cap > 0, "softcap: widths differ, or the cap is not positive");
  add_row_op("softcap", [&x, cap, &y, this](const StepContext&, int row) {
    kernels_.softcap(x.row(row), cap, x.width, y.row(row));
  });
}

void Plan::row_arrange(const std::vector<int>& srcs, const std::vector<Run>& runs, int dst) {
  const Buffer& y = buffer(dst);
  std::vector<const Buffer*> sources;
  for (const int src : srcs) {
    require(src != dst, "arrange: in place");
    sources.push_back(&buffer(src));
  }
  int64_t width = 0;
  for (const Run& run : runs) {
    require(run.width > 0 && run.begin >= 0 && run.source < static_cast<int>(sources.size()), "arrange: a bad run");
    width += run.width;
    if (run.source < 0) continue;
    const int limit = sources[static_cast<size_t>(run.source)]->width;
    require(run.begin <= limit && run.width <= limit - run.begin, "arrange: outside the row");
  }
  require(width == y.width, "arrange: widths differ");
  add_row_op("arrange", [sources, runs, &y](const StepContext&, int row) {
    float* to = y.row(row);
    for (const Run& run : runs) {
      const auto bytes = static_cast<size_t>(run.width) * sizeof(float);
      if (run.source < 0) {
        std::memset(to, 0, bytes);
      } else {
        std::memcpy(to, sources[static_cast<size_t>(run.source)]->row(row) + run.begin, bytes);
      }
      to += run.width;
    }
  });
}

void Plan::row_forms(int src, int forms_id) {
  const Buffer& x = buffer(src);
  const Forms& y = forms(forms_id);
  require(x.width == y.width, "forms: widths differ");
  add_row_op("forms", [&x, &y, this](const StepContext&, int row) {
    kernels_.make_rows(x.row(row), x.stride, 1, x.width, y.row_out(row));
  });
}

void Plan::row_write_kv(int k, int v, int layer) {
  const KVCache& kv = cache(layer);
  const Buffer& k_rows = buffer(k);
  const Buffer& v_rows = buffer(v);
  const int width = kv.num_kv_heads * kv.head_dim;
  require(k_rows.width == width && v_rows.width == width, "write_kv: widths differ from the cache's");
  add_row_op("write_kv", [&k_rows, &v_rows, kv, this](const StepContext& c, int row) {
    kernels_.write_kv(kv, c.step.slot_mapping[row], k_rows.row(row), v_rows.row(row));
  });
}

}  // namespace quintet
