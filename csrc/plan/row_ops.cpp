// The ops that touch one row at a time.  Each checks its operands once, then is a call of a kernel.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "kv_block.h"
#include "phases.h"
#include "plan.h"
#include "require.h"

namespace quintet {

void Plan::begin_rows(bool logits_rows) {
  auto phase = std::make_unique<RowPhase>(logits_rows);
  open_rows_ = phase.get();
  next_rows_ = std::move(phase);
}

void Plan::add_row_op(RowOp op) {
  require(open_rows_ != nullptr, "a row op outside a row phase");
  if (next_rows_ != nullptr) {
    if (!phases_.empty() && phases_.back()->absorb(op, open_rows_->logits_rows())) return;
    phases_.push_back(std::move(next_rows_));
  }
  open_rows_->add(std::move(op));
}

void Plan::add_row_op(const char* name, RowFunction run) {
  add_row_op({.name = name,
              .width = kMaxDimension,
              .granule = kMaxDimension,
              .reads = {},
              .columns = [run = std::move(run)](const StepContext& c, int row, int, int) { run(c, row); },
              .is_private = false});
}

void Plan::row_embed(int matrix_id, int dst) {
  const PackedMatrix& w = matrix(matrix_id);
  const Buffer& y = buffer(dst);
  require(w.k == y.width, "embed: widths differ");
  max_token_id_ = std::min(max_token_id_, w.n - 1);
  add_row_op({.name = "embed",
              .width = y.width,
              .granule = y.width,
              .reads = {},
              .writes = &y,
              .columns = [matrix_id, &y, this](const StepContext& c, int row, int, int) {
                kernels_.unpack_row(matrix(matrix_id), c.step.token_ids[row], c.row(y, row));
              }});
}

void Plan::row_add(int src, int dst) {
  const Buffer& x = buffer(src);
  const Buffer& y = buffer(dst);
  require(x.width == y.width, "add: widths differ");
  add_row_op({.name = "add",
              .width = y.width,
              .granule = 1,
              .reads = {&x, &y},
              .writes = &y,
              .columns = [&x, &y, this](const StepContext& c, int row, int begin, int end) {
                kernels_.add(c.row(x, row) + begin, end - begin, c.row(y, row) + begin);
              }});
}

void Plan::row_copy(int src, int dst) {
  const Buffer& x = buffer(src);
  const Buffer& y = buffer(dst);
  require(x.width == y.width, "copy: widths differ");
  add_row_op({.name = "copy",
              .width = y.width,
              .granule = 1,
              .reads = {&x},
              .writes = &y,
              .columns = [&x, &y](const StepContext& c, int row, int begin, int end) {
                std::memcpy(c.row(y, row) + begin, c.row(x, row) + begin,
                            static_cast<size_t>(end - begin) * sizeof(float));
              }});
}

void Plan::row_select(int src, int dst) {
  const Buffer& x = buffer(src);
  const Buffer& y = buffer(dst);
  require(x.width == y.width, "select: widths differ");
  require(open_rows_ != nullptr && open_rows_->logits_rows(), "select: outside a phase of logits rows");
  add_row_op({.name = "select",
              .width = y.width,
              .granule = y.width,
              .reads = {&x},
              .writes = &y,
              .columns = [&x, &y](const StepContext& c, int row, int, int) {
                std::memcpy(c.row(y, row), x.row(c.step.logits_rows[row]),
                            static_cast<size_t>(y.width) * sizeof(float));
              }});
}

void Plan::row_rms_norm(int src, int vector_id, float eps, int dst) {
  const Buffer& x = buffer(src);
  const Buffer& y = buffer(dst);
  const float* weight = vector(vector_id).data();
  const auto group = static_cast<int>(vector(vector_id).size());
  require(x.width == y.width, "rms_norm: widths differ");
  require(x.width % group == 0, "rms_norm: groups do not divide the row");
  add_row_op({.name = "rms_norm",
              .width = y.width,
              .granule = group,
              .reads = {&x},
              .writes = &y,
              .columns = [&x, &y, weight, group, eps, this](const StepContext& c, int row, int begin, int end) {
                for (int i = begin; i < end; i += group) {
                  kernels_.rms_norm(c.row(x, row) + i, weight, group, eps, c.row(y, row) + i);
                }
              }});
}

void Plan::row_rope(int buffer_id, int rotation_id) {
  const Buffer& x = buffer(buffer_id);
  const Rotation& r = rotation(rotation_id);
  require(x.width % r.head_dim == 0, "rope: the row is not whole heads");
  add_row_op({.name = "rope",
              .width = x.width,
              .granule = r.head_dim,
              .reads = {&x},
              .writes = &x,
              .columns = [&x, &r, this](const StepContext& c, int row, int begin, int end) {
                const size_t half = r.inv_freq.size();
                const RopeArgs args{.head_dim = r.head_dim,
                                    .rotary_dim = static_cast<int>(2 * half),
                                    .interleaved = r.interleaved,
                                    .cos = r.cos_pages.as<float>() + static_cast<size_t>(row) * half,
                                    .sin = r.sin_pages.as<float>() + static_cast<size_t>(row) * half};
                kernels_.rope(c.row(x, row) + begin, (end - begin) / r.head_dim, args);
              }});
}

void Plan::row_silu_mul(int gate, int up, int dst) {
  const Buffer& g = buffer(gate);
  const Buffer& u = buffer(up);
  const Buffer& y = buffer(dst);
  require(g.width == u.width && g.width == y.width, "silu_mul: widths differ");
  add_row_op({.name = "silu_mul",
              .width = y.width,
              .granule = 1,
              .reads = {&g, &u},
              .writes = &y,
              .columns = [&g, &u, &y, this](const StepContext& c, int row, int begin, int end) {
                kernels_.silu_mul(c.row(g, row) + begin, c.row(u, row) + begin, end - begin, c.row(y, row) + begin);
              }});
}

void Plan::row_gelu_tanh(int src, int up, int dst) {
  const Buffer& x = buffer(src);
  const Buffer& y = buffer(dst);
  const Buffer* u = up < 0 ? nullptr : &buffer(up);
  require(x.width == y.width && (u == nullptr || u->width == x.width), "gelu_tanh: widths differ");
  std::vector<const Buffer*> reads{&x};
  if (u != nullptr) reads.push_back(u);
  add_row_op({.name = "gelu_tanh",
              .width = y.width,
              .granule = 1,
              .reads = std::move(reads),
              .writes = &y,
              .columns = [&x, u, &y, this](const StepContext& c, int row, int begin, int end) {
                kernels_.gelu_tanh(c.row(x, row) + begin, u == nullptr ? nullptr : c.row(*u, row) + begin, end - begin,
                                   c.row(y, row) + begin);
              }});
}

void Plan::row_scale(int src, float factor, int dst) {
  const Buffer& x = buffer(src);
  const Buffer& y = buffer(dst);
  require(x.width == y.width, "scale: widths differ");
  add_row_op({.name = "scale",
              .width = y.width,
              .granule = 1,
              .reads = {&x},
              .writes = &y,
              .columns = [&x, factor, &y, this](const StepContext& c, int row, int begin, int end) {
                kernels_.scale(c.row(x, row) + begin, factor, end - begin, c.row(y, row) + begin);
              }});
}

void Plan::row_scale_by_position(int src, double growth, int period, int dst) {
  const Buffer& x = buffer(src);
  const Buffer& y = buffer(dst);
  require(x.width == y.width && period > 0, "scale_by_position: widths differ, or the period is not positive");
  add_row_op({.name = "scale_by_position",
              .width = y.width,
              .granule = 1,
              .reads = {&x},
              .writes = &y,
              .columns = [&x, growth, period, &y, this](const StepContext& c, int row, int begin, int end) {
                const double factor = 1 + growth * std::log(1.0 + c.step.positions[row] / period);
                kernels_.scale(c.row(x, row) + begin, static_cast<float>(factor), end - begin, c.row(y, row) + begin);
              }});
}

void Plan::row_softcap(int src, float cap, int dst) {
  const Buffer& x = buffer(src);
  const Buffer& y = buffer(dst);
  require(x.width == y.width && cap > 0, "softcap: widths differ, or the cap is not positive");
  add_row_op({.name = "softcap",
              .width = y.width,
              .granule = 1,
              .reads = {&x},
              .writes = &y,
              .columns = [&x, cap, &y, this](const StepContext& c, int row, int begin, int end) {
                kernels_.softcap(c.row(x, row) + begin, cap, end - begin, c.row(y, row) + begin);
              }});
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
  add_row_op({.name = "forms",
              .width = y.width,
              .granule = x.width % kGroup == 0 ? kGroup : x.width,
              .reads = {&x},
              .forms = &y,
              .columns = [&x, &y, this](const StepContext& c, int row, int begin, int end) {
                kernels_.make_rows(c.row(x, row) + begin, x.stride, 1, end - begin, c.row_out(y, row, begin));
              }});
}

void Plan::row_write_kv(int k, int v, int layer) {
  const KVCache& kv = cache(layer);
  const Buffer& k_rows = buffer(k);
  const Buffer& v_rows = buffer(v);
  const int width = kv.num_kv_heads * kv.head_dim;
  require(k_rows.width == width && v_rows.width == width, "write_kv: widths differ from the cache's");
  add_row_op({.name = "write_kv",
              .width = width,
              .granule = kv.head_dim,
              .reads = {&k_rows, &v_rows},
              .columns =
                  [&k_rows, &v_rows, kv, this](const StepContext& c, int row, int begin, int end) {
                    KVCache heads = kv;  // those from `begin` on, as a cache of their own
                    heads.num_kv_heads = (end - begin) / kv.head_dim;
                    heads.k = kv_block(kv, kv.k, 0, begin / kv.head_dim);
                    heads.v = kv_block(kv, kv.v, 0, begin / kv.head_dim);
                    kernels_.write_kv(heads, c.step.slot_mapping[row], c.row(k_rows, row) + begin,
                                      c.row(v_rows, row) + begin);
                  },
              .is_private = false});
}

}  // namespace quintet
