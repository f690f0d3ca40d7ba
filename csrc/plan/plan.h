// A compiled program: buffers, packed weights, the KV cache, and the phases one step runs through.
//
// A plan is built once, by calls that mirror what it will do, then run once per step.  A phase is work that needs no
// barrier inside: ops on single rows, one group of independent matrix products, or one attention layer.  Between
// phases all threads meet.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels.h"
#include "memory.h"
#include "profiler.h"
#include "thread_pool.h"
#include "weights.h"

namespace quintet {

inline constexpr int kMaxDimension = 1 << 28;

// One step's input; see quintet.backends.base.StepInput.
struct Step {
  int num_tokens = 0;
  int num_seqs = 0;
  int max_blocks = 0;  // columns of block_tables
  int num_logits_rows = 0;
  const int32_t* token_ids = nullptr;     // [num_tokens]
  const int32_t* positions = nullptr;     // [num_tokens]
  const int32_t* cu_seqlens = nullptr;    // [num_seqs + 1]
  const int32_t* slot_mapping = nullptr;  // [num_tokens]
  const int32_t* block_tables = nullptr;  // [num_seqs][max_blocks]
  const int32_t* seq_lens = nullptr;      // [num_seqs]
  const int32_t* logits_rows = nullptr;   // [num_logits_rows]
  const int32_t* token_types = nullptr;   // [num_tokens]; null: all 0
};

struct PlanOptions {
  int max_tokens = 0;       // new tokens a step may carry
  int max_logits_rows = 0;  // rows a step may ask logits for
  int num_blocks = 0;
  int num_layers = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  KVType kv_type = KVType::kBF16;
  int num_threads = 1;
  std::string kernels;  // a table by name; empty: the active one
};

// Float rows [max rows][stride]; stride is the width padded to 16, so rows are 64-byte aligned.
struct Buffer {
  int width = 0;
  size_t stride = 0;
  Pages pages;
  float* row(int r) const { return pages.as<float>() + static_cast<size_t>(r) * stride; }
};

// Rows in the forms that matrices read.
struct Forms {
  int width = 0;
  bool f32 = false;
  bool bf16 = false;
  bool q8 = false;
  Pages f32_pages, bf16_pages, q8_pages, scale_pages, sum_pages;
  Rows rows(int num_rows) const;
  RowsOut row_out(int row, int column) const;  // column: a multiple of 32
  Forms with_room(size_t num_rows) const;      // others of the same kind
  size_t size_bytes() const;
};

struct Rotation {
  int head_dim = 0;
  bool interleaved = false;
  double factor = 1;
  std::vector<double> inv_freq;
  Pages cos_pages, sin_pages;  // [max_tokens][rotary_dim / 2], for the step's positions
};

// A mixture of experts, and what a step's rows make of it.  A row with its chosen expert is a visit; visits lie sorted
// by expert, so that an expert's are neighbours and the kernels of ordinary matrices run on them.
struct Experts {
  int num_experts = 0;
  int num_used = 0;
  int width = 0;                                           // of a row, in and out
  int inner = 0;                                           // rows of gate and up in each expert
  int gate = 0, up = 0, down = 0;                          // matrices, each of all experts one behind the other
  int gate_bias = -1, up_bias = -1, down_bias = -1;        // vectors, likewise, or -1
  int selection_bias = -1;                                 // a vector, or -1
  int num_groups = 1, num_groups_used = 1, group_top = 1;  // see quintet.graph.Routing
  bool sigmoid = false;                                    // else softmax
  bool normalize = true;
  float factor = 1;
  float limit = 0;                               // of swiglu_clamped; 0: silu
  int in_forms = 0;                              // of visits: what gate and up read
  int inner_forms = 0;                           // of visits: what down reads
  int gate_rows = 0, up_rows = 0, out_rows = 0;  // buffers of visits
  Pages chosen, weights, visits;                 // [row][num_used]: expert, weight, and where the visit lies
  Pages begins;                                  // [num_experts + 1]: an expert's first visit
  int visit_of(int row, int rank) const { return visits.as<int>()[row * num_used + rank]; }
};

struct ExpertOptions {
  int num_experts, num_used, gate, up, down, gate_bias, up_bias, down_bias, selection_bias;
  int num_groups, num_groups_used, group_top;
  bool sigmoid, normalize;
  float factor, limit;
};

// Rows that can be looked at in the middle of a step.
struct Observation {
  int id = 0;
  int buffer = 0;  // the rows
  bool logits_rows = false;
  int experts = -1;  // those that have been given the rows, and whose inner rows gate_rows holds; or -1
};

class Plan;
class Replica;
struct RowOp;

// What one worker knows of a step.
struct StepContext {
  const Plan& plan;
  const Step& step;
  int worker = 0;
  bool sequences_apart = false;      // see Plan::sequences_apart; false is always right, and slower
  const Replica* replica = nullptr;  // where row ops find what their phase writes, if not in the plan's memory
  float* row(const Buffer& buffer, int row) const;
  RowsOut row_out(const Forms& forms, int row, int column) const;
};

// Something done to a whole row; `row` counts tokens, or logits rows after a selection.
using RowFunction = std::function<void(const StepContext& context, int row)>;

// What a phase does, for profiles.
struct PhaseInfo {
  std::string label;
  size_t weight_bytes = 0;  // of the matrices it reads, once
  size_t num_weights = 0;   // in them: multiply-accumulates per row
};

struct Phase {
  virtual ~Phase() = default;
  virtual PhaseInfo info(const Plan& plan) const = 0;
  virtual void run(const StepContext& context) = 0;
  // Called by one thread before a step's first phase.
  virtual void reset() {}
  // False where every worker made for itself what it needs of this phase.
  virtual bool needs_barrier(const Step&) const { return true; }
  // Makes the op, which follows the phase, part of it, if that changes no result.
  virtual bool absorb(const RowOp&, bool /*logits_rows*/) { return false; }
};

struct LinearTask {
  int matrix = 0;
  int forms = 0;
  int output = 0;
  int bias = -1;  // a vector, or -1
};

// A query sees the tokens up to `left` before and `right` behind it; kUnlimited for all there are.
struct AttentionOptions {
  int q, out, layer;  // buffers, and whose cache
  float scale;
  int left, right;
  float softcap = 0;  // this and sinks (a vector of a value per head, or -1): see AttentionArgs
  int sinks = -1;
};

class Plan {
  static constexpr int kNoLimit = INT32_MAX;

 public:
  // Throws std::invalid_argument when the options or QUINTET_KERNELS name kernels this CPU cannot run, std::bad_alloc.
  explicit Plan(const PlanOptions& options);
  ~Plan();

  // --- building; the returned numbers name the thing in later calls; std::invalid_argument on a bad one ---
  // A matrix [n, k] whose weights come later: see Weights.
  int add_matrix(int n, int k, Layout layout) { return weights_.add(n, k, layout); }
  int add_vector(const float* values, int size);
  int add_buffer(int width, bool logits_rows);
  int add_forms(int width, bool f32, bool bf16, bool q8, bool logits_rows);
  int add_rotation(const double* inv_freq, int size, int head_dim, bool interleaved, double factor);

  // A mixture of experts over matrices [num_experts * n, k], whose n are multiples of 16, and vectors of the same rows.
  int add_experts(const ExpertOptions& options);

  // The following row ops form one phase, but for the first ones where the phase before can do them.
  void begin_rows(bool logits_rows);
  void row_embed(int matrix, int dst);
  void row_embed_position(int matrix, int dst);                            // by position rather than token
  void row_embed_type(int matrix, int dst);                                // by token type
  void row_layer_norm(int src, int vector, int bias, float eps, int dst);  // bias: a vector, or -1
  void row_gelu(int src, int up, int dst);                                 // up: multiplies the result; or -1
  void row_tanh(int src, int dst);
  void row_columns(int src, int begin, int dst);  // dst = src's columns from `begin` on
  // dst = runs of columns of several buffers side by side: (which of srcs, first column, columns); -1 for zeros.
  struct Run {
    int source, begin, width;
  };
  void row_arrange(const std::vector<int>& srcs, const std::vector<Run>& runs, int dst);
  void row_add(int src, int dst);  // dst += src
  void row_copy(int src, int dst);
  void row_select(int src, int dst);                           // dst row i = src row logits_rows[i]
  void row_rms_norm(int src, int vector, float eps, int dst);  // over runs of the vector's size
  void row_rope(int buffer, int rotation);
  void row_silu_mul(int gate, int up, int dst);
  void row_gelu_tanh(int src, int up, int dst);  // up: multiplies the result; or -1
  void row_scale(int src, float factor, int dst);
  // dst = src * (1 + growth * log(1 + position / period)), the quotient rounded down.
  void row_scale_by_position(int src, double growth, int period, int dst);
  void row_softcap(int src, float cap, int dst);
  void row_route(int scores, int experts);  // chooses the experts of each row
  void row_combine(int experts, int dst);   // the weighted sum of what they gave, best first
  void row_forms(int src, int forms);
  void row_write_kv(int k, int v, int layer);
  void linear(const std::vector<LinearTask>& tasks, bool logits_rows);  // the tasks are independent
  void attention(const AttentionOptions& options);
  // Rows that have been routed, through their experts; with `is_observed`, an observation's number.
  int run_experts(int src, int experts, bool is_observed = false);
  // Makes the rows, as the next op will find them, one of the observations, and returns its number.
  int observe(int buffer, bool logits_rows);
  void mark_hidden(int buffer);  // what run_hidden gives; all rows since the selection, and no matrix product yet
  void finish(int logits);

  // --- weights, once all matrices are added and before the first run ---
  Weights& weights() { return weights_; }
  void pack(const std::vector<MatrixSource>& sources, bool is_mapped) { weights_.pack(sources, is_mapped, pool_); }
  uint64_t weights_checksum() { return weights_.checksum(pool_); }

  // --- running ---
  // Checks the step against the plan: a message, or null.  run() trusts what passed.
  const char* check(const Step& step) const;
  // Returns logits [num_logits_rows][logits_stride()].
  float* run(const Step& step);
  // The marked rows rather than logits, for any number of logits_rows: out [num_logits_rows][hidden_size()].
  void run_hidden(const Step& step, float* out);
  // As check, for run_hidden.
  const char* check_hidden(const Step& step) const;
  // Runs a step up to its head and calls observer(observation) for each, in order, between phases.
  void run_observed(const Step& step, const std::function<void(const Observation&)>& observer);
  // As check, for run_observed.
  const char* check_observed(const Step& step) const;
  int hidden_size() const;
  size_t logits_stride() const;
  int vocab_size() const;

  const KernelTable& kernels() const { return kernels_; }
  const PlanOptions& options() const { return options_; }
  int num_threads() const { return pool_.num_threads(); }
  ThreadPool& threads() const { return pool_; }  // not during a run
  void barrier() const { pool_.barrier(); }      // of all workers within a phase
  const PackedMatrix& matrix(int id) const { return weights_.matrix(id); }
  const std::vector<float>& vector(int id) const { return *vectors_.at(static_cast<size_t>(id)); }
  const Buffer& buffer(int id) const { return *buffers_.at(static_cast<size_t>(id)); }
  const Forms& forms(int id) const { return *forms_.at(static_cast<size_t>(id)); }
  Experts& experts(int id) const { return *experts_.at(static_cast<size_t>(id)); }
  const Rotation& rotation(int id) const { return *rotations_.at(static_cast<size_t>(id)); }
  const KVCache& cache(int layer) const { return caches_.at(static_cast<size_t>(layer)); }
  void* attention_scratch(int worker) const { return scratch_.at(static_cast<size_t>(worker)).data(); }
  size_t weight_bytes() const { return weights_.size_bytes(); }
  // Of its blocks; the last run of them may have room for some more, never touched.
  size_t cache_bytes() const;
  size_t buffer_bytes() const { return buffer_bytes_; }

  // --- profiling; not during a run ---
  void start_profile() { profiler_.start(phases_.size()); }
  void stop_profile() { profiler_.stop(); }
  const Profiler& profiler() const { return profiler_; }  // its times are those of phase_info(), in order
  std::vector<PhaseInfo> phase_info() const;

 private:
  int add_observation(Observation observation);
  void add_row_op(RowOp op);
  void add_row_op(const char* name, RowFunction run);  // of an op that nothing is known of
  // True where no sequence sees a block that another one writes in this step.
  bool sequences_apart(const Step& step);
  class RowPhase* last_row_phase() const;  // if the last phase is one
  void fill_rotations(const Step& step, int worker);
  const char* check_tokens(const Step& step) const;
  void run_profiled(const StepContext& context);
  Pages allocate(size_t rows, size_t row_bytes);
  int add_buffer_rows(int width, size_t rows);
  int add_forms_rows(int width, bool f32, bool bf16, bool q8, size_t rows);

  const KernelTable& kernels_;
  PlanOptions options_;
  mutable ThreadPool pool_;
  Weights weights_;
  std::vector<std::unique_ptr<const std::vector<float>>> vectors_;  // stable addresses: ops keep pointers
  std::vector<std::unique_ptr<Buffer>> buffers_;
  std::vector<std::unique_ptr<Forms>> forms_;
  std::vector<std::unique_ptr<Rotation>> rotations_;
  std::vector<std::unique_ptr<Experts>> experts_;
  std::vector<KVCache> caches_;
  Pages cache_pages_;
  std::vector<Pages> scratch_;
  std::vector<std::unique_ptr<Phase>> phases_;
  class RowPhase* open_rows_ = nullptr;
  std::unique_ptr<Phase> next_rows_;    // the open phase while it has no op of its own
  std::vector<int32_t> block_writers_;  // per KV block: see sequences_apart
  Profiler profiler_;
  int num_observations_ = 0;
  int logits_ = -1;
  int hidden_ = -1;
  size_t select_phase_ = 0, hidden_phase_ = 0;  // the phases of the hidden rows: [select, hidden)
  int max_position_ = kNoLimit;                 // the smallest table of positions bounds them
  int max_token_type_ = kNoLimit;
  int max_token_id_ = kNoLimit;  // the smallest embedding bounds the ids
  size_t buffer_bytes_ = 0;
};

}  // namespace quintet
