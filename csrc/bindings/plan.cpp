// quintet._native.Plan: check, release the GIL, call.
#include "plan.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <tuple>

#include "bindings.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace quintet {
namespace {

template <typename T>
using Vector = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

KVType parse_kv_type(const std::string& name) {
  if (name == "float32") return KVType::kF32;
  if (name == "bfloat16") return KVType::kBF16;
  if (name == "int8") return KVType::kInt8;
  throw std::invalid_argument("kv_type must be float32, bfloat16 or int8");
}

Step make_step(const Vector<int32_t>& token_ids, const Vector<int32_t>& positions, const Vector<int32_t>& cu_seqlens,
               const Vector<int32_t>& slot_mapping, const Matrix& block_tables, const Vector<int32_t>& seq_lens,
               const Vector<int32_t>& logits_rows, const std::optional<Vector<int32_t>>& token_types) {
  const size_t tokens = token_ids.shape(0);
  const size_t seqs = seq_lens.shape(0);
  if (tokens > INT32_MAX || seqs > INT32_MAX || block_tables.shape(1) > INT32_MAX || logits_rows.shape(0) > INT32_MAX ||
      positions.shape(0) != tokens || slot_mapping.shape(0) != tokens || cu_seqlens.shape(0) != seqs + 1 ||
      block_tables.shape(0) != seqs || (token_types && token_types->shape(0) != tokens)) {
    throw std::invalid_argument("the step's arrays do not have matching lengths");
  }
  Step step;
  step.num_tokens = static_cast<int>(tokens);
  step.num_seqs = static_cast<int>(seqs);
  step.max_blocks = static_cast<int>(block_tables.shape(1));
  step.num_logits_rows = static_cast<int>(logits_rows.shape(0));
  step.token_ids = token_ids.data();
  step.positions = positions.data();
  step.cu_seqlens = cu_seqlens.data();
  step.slot_mapping = slot_mapping.data();
  step.block_tables = block_tables.data();
  step.seq_lens = seq_lens.data();
  step.logits_rows = logits_rows.data();
  if (token_types) step.token_types = token_types->data();
  return step;
}

nb::object run(nb::handle self, Vector<int32_t> token_ids, Vector<int32_t> positions, Vector<int32_t> cu_seqlens,
               Vector<int32_t> slot_mapping, Matrix block_tables, Vector<int32_t> seq_lens, Vector<int32_t> logits_rows,
               std::optional<Vector<int32_t>> token_types) {
  auto& plan = nb::cast<Plan&>(self);
  const Step step =
      make_step(token_ids, positions, cu_seqlens, slot_mapping, block_tables, seq_lens, logits_rows, token_types);
  float* logits = nullptr;
  {
    const nb::gil_scoped_release release;
    if (const char* problem = plan.check(step)) throw std::invalid_argument(problem);
    logits = plan.run(step);
  }
  const size_t shape[] = {logits_rows.shape(0), static_cast<size_t>(plan.vocab_size())};
  const int64_t strides[] = {static_cast<int64_t>(plan.logits_stride()), 1};
  return nb::cast(nb::ndarray<nb::numpy, float, nb::ndim<2>>(logits, 2, shape, self, strides));
}

void pack(Plan& plan, const std::vector<std::tuple<int, Vector<uint8_t>, SourceType>>& sources, bool is_mapped) {
  std::vector<MatrixSource> list;
  for (const auto& [matrix, bytes, type] : sources) list.push_back({matrix, type, bytes.data(), bytes.size()});
  const nb::gil_scoped_release release;
  plan.pack(list, is_mapped);
}

std::vector<std::tuple<int, int, int, size_t, size_t>> matrix_places(Plan& plan) {
  std::vector<std::tuple<int, int, int, size_t, size_t>> places;
  for (const Weights::Place& place : plan.weights().places()) {
    places.emplace_back(place.n, place.k, static_cast<int>(place.layout), place.offset, place.size_bytes);
  }
  return places;
}

nb::object packed_weights(nb::handle self) {
  auto& plan = nb::cast<Plan&>(self);
  const size_t shape[] = {plan.weights().data() == nullptr ? 0 : plan.weights().size_bytes()};
  return nb::cast(nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>>(plan.weights().data(), 1, shape, self));
}

void run_hidden(Plan& plan, Vector<int32_t> token_ids, Vector<int32_t> positions, Vector<int32_t> cu_seqlens,
                Vector<int32_t> slot_mapping, Matrix block_tables, Vector<int32_t> seq_lens,
                Vector<int32_t> logits_rows, nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu> out,
                std::optional<Vector<int32_t>> token_types) {
  const Step step =
      make_step(token_ids, positions, cu_seqlens, slot_mapping, block_tables, seq_lens, logits_rows, token_types);
  const nb::gil_scoped_release release;
  if (const char* problem = plan.check_hidden(step)) throw std::invalid_argument(problem);
  if (out.shape(0) != logits_rows.shape(0) || out.shape(1) != static_cast<size_t>(plan.hidden_size())) {
    throw std::invalid_argument("out: expected [len(logits_rows), hidden_size]");
  }
  plan.run_hidden(step, out.data());
}

// Rows of a plan's, valid during the call they are given to.
template <typename T>
nb::object rows_of(nb::handle self, T* rows, size_t count, size_t width, size_t stride) {
  const size_t shape[] = {count, width};
  const int64_t strides[] = {static_cast<int64_t>(stride), 1};
  return nb::cast(nb::ndarray<nb::numpy, const T, nb::ndim<2>>(rows, 2, shape, self, strides));
}

void run_observed(nb::handle self, Vector<int32_t> token_ids, Vector<int32_t> positions, Vector<int32_t> cu_seqlens,
                  Vector<int32_t> slot_mapping, Matrix block_tables, Vector<int32_t> seq_lens,
                  Vector<int32_t> logits_rows, std::optional<Vector<int32_t>> token_types, nb::callable observer) {
  auto& plan = nb::cast<Plan&>(self);
  const Step step =
      make_step(token_ids, positions, cu_seqlens, slot_mapping, block_tables, seq_lens, logits_rows, token_types);
  const auto show = [&](const Observation& seen) {
    const nb::gil_scoped_acquire acquire;
    const Buffer& x = plan.buffer(seen.buffer);
    const auto count = static_cast<size_t>(seen.logits_rows ? step.num_logits_rows : step.num_tokens);
    const nb::object rows = rows_of(self, x.row(0), count, static_cast<size_t>(x.width), x.stride);
    if (seen.experts < 0) {
      observer(seen.id, rows);
      return;
    }
    const Experts& e = plan.experts(seen.experts);
    const auto used = static_cast<size_t>(e.num_used);
    const auto bounds = static_cast<size_t>(e.num_experts) + 1;
    const Buffer& inner = plan.buffer(e.gate_rows);
    observer(seen.id, rows, rows_of(self, e.visits.as<int>(), count, used, used),
             rows_of(self, e.begins.as<int>(), 1, bounds, bounds),
             rows_of(self, inner.row(0), count * used, static_cast<size_t>(inner.width), inner.stride));
  };
  const nb::gil_scoped_release release;
  if (const char* problem = plan.check_observed(step)) throw std::invalid_argument(problem);
  plan.run_observed(step, show);
}

using PhaseProfile = std::tuple<std::string, int64_t, double, double, double, size_t, size_t>;

std::vector<PhaseProfile> profile(const Plan& plan) {
  const std::vector<PhaseInfo> infos = plan.phase_info();
  const std::vector<Profiler::Times>& times = plan.profiler().times();
  std::vector<PhaseProfile> phases;
  for (size_t i = 0; i < std::min(infos.size(), times.size()); i++) {
    phases.emplace_back(infos[i].label, times[i].calls, times[i].work_s, times[i].wait_s, times[i].cpu_s,
                        infos[i].weight_bytes, infos[i].num_weights);
  }
  return phases;
}

}  // namespace

void bind_plan(nb::module_& m) {
  m.attr("LAYOUTS_VERSION") = kLayoutsVersion;
  nb::enum_<Layout>(m, "Layout", "How a packed matrix lies in memory.")
      .value("F32", Layout::kF32)
      .value("F16", Layout::kF16)
      .value("BF16", Layout::kBF16)
      .value("W8", Layout::kW8)
      .value("W4", Layout::kW4)
      .value("W5", Layout::kW5)
      .value("W4M", Layout::kW4m)
      .value("W5M", Layout::kW5m)
      .value("W4K", Layout::kW4k)
      .value("W5K", Layout::kW5k)
      .value("W6K", Layout::kW6k)
      .value("W3K", Layout::kW3k)
      .value("W2K", Layout::kW2k)
      .value("W4N", Layout::kW4n)
      .value("W4X", Layout::kW4x)
      .value("W4E", Layout::kW4e)
      .value("W4T", Layout::kW4t)
      .value("W3T", Layout::kW3t);
  nb::enum_<SourceType>(m, "SourceType", "What pack_panels reads.")
      .value("F32", SourceType::kF32)
      .value("F16", SourceType::kF16)
      .value("BF16", SourceType::kBF16)
      .value("Q8_0", SourceType::kQ8_0)
      .value("Q4_0", SourceType::kQ4_0)
      .value("Q5_0", SourceType::kQ5_0)
      .value("Q4_1", SourceType::kQ4_1)
      .value("Q5_1", SourceType::kQ5_1)
      .value("Q4_K", SourceType::kQ4_K)
      .value("Q5_K", SourceType::kQ5_K)
      .value("Q6_K", SourceType::kQ6_K)
      .value("Q3_K", SourceType::kQ3_K)
      .value("Q2_K", SourceType::kQ2_K)
      .value("IQ4_NL", SourceType::kIQ4_NL)
      .value("IQ4_XS", SourceType::kIQ4_XS)
      .value("MXFP4", SourceType::kMXFP4)
      .value("TABLE4", SourceType::kTable4)
      .value("TABLE3", SourceType::kTable3);
  nb::class_<ThreadPool>(m, "ThreadPool", "Threads that work together: a plan's, or others.  One caller at a time.")
      .def(
          "__init__",
          [](ThreadPool* self, int num_threads) {
            constexpr int kMax = 4096;
            if (num_threads < 1 || num_threads > kMax) {
              throw std::invalid_argument("num_threads is " + std::to_string(num_threads) + ", expected 1 to 4096");
            }
            new (self) ThreadPool(num_threads);
          },
          "num_threads"_a)
      .def_prop_ro("num_threads", &ThreadPool::num_threads);

  nb::class_<Plan>(m, "Plan", "A compiled program with its weights and KV cache; see csrc/plan/plan.h.")
      .def(
          "__init__",
          [](Plan* self, int max_tokens, int max_logits_rows, int num_blocks, int num_layers, int num_kv_heads,
             int head_dim, const std::string& kv_type, int num_threads, const std::string& kernels) {
            new (self) Plan({max_tokens, max_logits_rows, num_blocks, num_layers, num_kv_heads, head_dim,
                             parse_kv_type(kv_type), num_threads, kernels});
          },
          nb::kw_only(), "max_tokens"_a, "max_logits_rows"_a, "num_blocks"_a, "num_layers"_a, "num_kv_heads"_a,
          "head_dim"_a, "kv_type"_a, "num_threads"_a, "kernels"_a = "")
      .def("add_matrix", &Plan::add_matrix, "n"_a, "k"_a, "layout"_a)
      .def("allocate_weights", [](Plan& plan) { plan.weights().allocate(); })
      .def(
          "map_weights",
          [](Plan& plan, int file, size_t offset) {
            const nb::gil_scoped_release release;
            return plan.weights().map(file, offset);
          },
          "file"_a, "offset"_a, "Takes the packed weights from a file; False where it is too short.")
      .def("unmap_weights", [](Plan& plan) { plan.weights().unmap(); })
      .def(
          "lock_weights",
          [](Plan& plan) {
            const nb::gil_scoped_release release;
            return plan.weights().lock();
          },
          "Keeps the packed weights in physical memory; 0, or errno.")
      .def("pack", &pack, "sources"_a, nb::kw_only(), "is_mapped"_a,
           "Packs (matrix, bytes, type) each, on all threads, with the GIL released.")
      .def(
          "weights_checksum",
          [](Plan& plan) {
            const nb::gil_scoped_release release;
            return plan.weights_checksum();
          },
          "Of all packed weights.")
      .def("matrix_places", &matrix_places, "Per matrix: n, k, layout, and offset and bytes in packed_weights.")
      .def("packed_weights", &packed_weights, "All packed matrices as bytes.")
      .def(
          "add_vector",
          [](Plan& plan, Vector<float> values) {
            if (values.size() > INT32_MAX) throw std::invalid_argument("the vector is too long");
            return plan.add_vector(values.data(), static_cast<int>(values.size()));
          },
          "values"_a)
      .def("add_buffer", &Plan::add_buffer, "width"_a, "logits_rows"_a = false)
      .def("add_forms", &Plan::add_forms, "width"_a, nb::kw_only(), "f32"_a, "bf16"_a, "q8"_a, "logits_rows"_a = false)
      .def(
          "add_rotation",
          [](Plan& plan, Vector<double> inv_freq, int head_dim, bool interleaved, double factor) {
            if (inv_freq.size() > INT32_MAX / 2) throw std::invalid_argument("too many frequencies");
            return plan.add_rotation(inv_freq.data(), static_cast<int>(inv_freq.size()), head_dim, interleaved, factor);
          },
          "inv_freq"_a, nb::kw_only(), "head_dim"_a, "interleaved"_a, "factor"_a)
      .def("begin_rows", &Plan::begin_rows, "logits_rows"_a = false)
      .def("row_embed", &Plan::row_embed, "matrix"_a, "dst"_a)
      .def("row_embed_position", &Plan::row_embed_position, "matrix"_a, "dst"_a)
      .def("row_embed_type", &Plan::row_embed_type, "matrix"_a, "dst"_a)
      .def("row_layer_norm", &Plan::row_layer_norm, "src"_a, "vector"_a, "bias"_a, "eps"_a, "dst"_a)
      .def("row_gelu", &Plan::row_gelu, "src"_a, "up"_a, "dst"_a)
      .def("row_tanh", &Plan::row_tanh, "src"_a, "dst"_a)
      .def("row_columns", &Plan::row_columns, "src"_a, "begin"_a, "dst"_a)
      .def(
          "row_arrange",
          [](Plan& plan, const std::vector<int>& srcs, const std::vector<std::tuple<int, int, int>>& runs, int dst) {
            std::vector<Plan::Run> list;
            for (const auto& [source, begin, width] : runs) list.push_back({source, begin, width});
            plan.row_arrange(srcs, list, dst);
          },
          "srcs"_a, "runs"_a, "dst"_a, "A run is (which of srcs or -1, begin, width).")
      .def("row_add", &Plan::row_add, "src"_a, "dst"_a)
      .def("row_copy", &Plan::row_copy, "src"_a, "dst"_a)
      .def("row_select", &Plan::row_select, "src"_a, "dst"_a)
      .def("row_rms_norm", &Plan::row_rms_norm, "src"_a, "vector"_a, "eps"_a, "dst"_a)
      .def("row_rope", &Plan::row_rope, "buffer"_a, "rotation"_a)
      .def("row_silu_mul", &Plan::row_silu_mul, "gate"_a, "up"_a, "dst"_a)
      .def("row_gelu_tanh", &Plan::row_gelu_tanh, "src"_a, "up"_a, "dst"_a)
      .def("row_scale", &Plan::row_scale, "src"_a, "factor"_a, "dst"_a)
      .def("row_scale_by_position", &Plan::row_scale_by_position, "src"_a, "growth"_a, "period"_a, "dst"_a)
      .def("row_softcap", &Plan::row_softcap, "src"_a, "cap"_a, "dst"_a)
      .def(
          "add_experts",
          [](Plan& plan, int num_experts, int num_used, int gate, int up, int down, int gate_bias, int up_bias,
             int down_bias, int selection_bias, int num_groups, int num_groups_used, int group_top, bool sigmoid,
             bool normalize, float factor, float limit) {
            return plan.add_experts({num_experts, num_used, gate, up, down, gate_bias, up_bias, down_bias,
                                     selection_bias, num_groups, num_groups_used, group_top, sigmoid, normalize, factor,
                                     limit});
          },
          nb::kw_only(), "num_experts"_a, "num_used"_a, "gate"_a, "up"_a, "down"_a, "gate_bias"_a, "up_bias"_a,
          "down_bias"_a, "selection_bias"_a, "num_groups"_a, "num_groups_used"_a, "group_top"_a, "sigmoid"_a,
          "normalize"_a, "factor"_a, "limit"_a)
      .def("row_route", &Plan::row_route, "scores"_a, "experts"_a)
      .def("run_experts", &Plan::run_experts, "src"_a, "experts"_a, nb::kw_only(), "is_observed"_a = false,
           "Returns the observation's number, or -1.")
      .def("observe", &Plan::observe, "buffer"_a, "logits_rows"_a = false, "Returns the observation's number.")
      .def("row_combine", &Plan::row_combine, "experts"_a, "dst"_a)
      .def("row_forms", &Plan::row_forms, "src"_a, "forms"_a)
      .def("row_write_kv", &Plan::row_write_kv, "k"_a, "v"_a, "layer"_a)
      .def(
          "linear",
          [](Plan& plan, const std::vector<std::tuple<int, int, int, int>>& tasks, bool logits_rows) {
            std::vector<LinearTask> list;
            for (const auto& [matrix, forms, output, bias] : tasks) list.push_back({matrix, forms, output, bias});
            plan.linear(list, logits_rows);
          },
          "tasks"_a, "logits_rows"_a = false, "Independent products; a task is (matrix, forms, output, bias or -1).")
      .def(
          "attention",
          [](Plan& plan, int q, int out, int layer, float scale, int left, int right, float softcap, int sinks) {
            plan.attention({q, out, layer, scale, left, right, softcap, sinks});
          },
          "q"_a, "out"_a, "layer"_a, "scale"_a, nb::kw_only(), "left"_a, "right"_a, "softcap"_a = 0.0f, "sinks"_a = -1)
      .def("mark_hidden", &Plan::mark_hidden, "buffer"_a)
      .def("finish", &Plan::finish, "logits"_a)
      .def("run", &run, "token_ids"_a, "positions"_a, "cu_seqlens"_a, "slot_mapping"_a, "block_tables"_a, "seq_lens"_a,
           "logits_rows"_a, "token_types"_a = nb::none(),
           "Runs one step with the GIL released; logits [len(logits_rows), vocab_size].")
      .def("run_hidden", &run_hidden, "token_ids"_a, "positions"_a, "cu_seqlens"_a, "slot_mapping"_a, "block_tables"_a,
           "seq_lens"_a, "logits_rows"_a, "out"_a.noconvert(), "token_types"_a = nb::none(),
           "Runs one step up to its head with the GIL released; writes out [len(logits_rows), hidden_size].")
      .def("run_observed", &run_observed, "token_ids"_a, "positions"_a, "cu_seqlens"_a, "slot_mapping"_a,
           "block_tables"_a, "seq_lens"_a, "logits_rows"_a, "token_types"_a.none(), "observer"_a,
           "Runs one step up to its head; calls observer(number, rows) or, of experts, observer(number, rows, visits, "
           "begins, inner) in between.")
      .def("start_profile", &Plan::start_profile, "Times every phase from now on; forgets earlier times.")
      .def("stop_profile", &Plan::stop_profile)
      .def("profile", &profile,
           "What was timed: per phase (label, calls, work_s, wait_s, cpu_s, weight_bytes, num_weights).")
      .def_prop_ro("first_phase_s", [](const Plan& plan) { return plan.profiler().first_phase_s(); })
      .def_prop_ro("kernels", [](const Plan& plan) { return std::string(plan.kernels().name); })
      .def_prop_ro("num_threads", &Plan::num_threads)
      .def_prop_ro("threads", &Plan::threads, nb::rv_policy::reference_internal)
      .def_prop_ro("weight_bytes", &Plan::weight_bytes)
      .def_prop_ro("cache_bytes", &Plan::cache_bytes)
      .def_prop_ro("buffer_bytes", &Plan::buffer_bytes);
}

}  // namespace quintet
