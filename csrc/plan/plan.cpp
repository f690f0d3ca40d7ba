#include "plan.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "kv_block.h"
#include "phases.h"
#include "require.h"

namespace quintet {
namespace {

size_t padded(int width) { return static_cast<size_t>(num_panels(width)) * kPanelColumns; }

const KernelTable& find_kernels(const std::string& name) {
  if (name.empty()) {
    const KernelTable* active = active_kernels();
    require(active != nullptr, "QUINTET_KERNELS names kernels that this CPU cannot run");
    return *active;
  }
  const KernelTable* tables[8];
  const int count = available_kernels(tables, 8);
  const auto found = std::find_if(tables, tables + count, [&](const KernelTable* t) { return name == t->name; });
  require(found != tables + count, "these kernels are unknown, or this CPU cannot run them");
  return **found;
}

}  // namespace

Rows Forms::rows(int num_rows) const {
  return {.num_rows = num_rows,
          .width = width,
          .f32 = f32_pages.as<float>(),
          .bf16 = bf16_pages.as<uint16_t>(),
          .q8 = q8_pages.as<int8_t>(),
          .q8_scale = scale_pages.as<float>(),
          .q8_sum = sum_pages.as<int32_t>()};
}

Forms Forms::with_room(size_t num_rows) const {
  Forms forms;
  forms.width = width;
  forms.f32 = f32;
  forms.bf16 = bf16;
  forms.q8 = q8;
  const auto w = static_cast<size_t>(width);
  if (f32) forms.f32_pages = Pages(checked_mul(num_rows, w * sizeof(float)));
  if (bf16) forms.bf16_pages = Pages(checked_mul(num_rows, (w + 1) / 2 * 4));
  if (q8) {
    forms.q8_pages = Pages(checked_mul(num_rows, w));
    forms.scale_pages = Pages(checked_mul(num_rows, w / kGroup * sizeof(float)));
    forms.sum_pages = Pages(checked_mul(num_rows, w / kGroup * sizeof(int32_t)));
  }
  return forms;
}

size_t Forms::size_bytes() const {
  return f32_pages.size() + bf16_pages.size() + q8_pages.size() + scale_pages.size() + sum_pages.size();
}

RowsOut Forms::row_out(int row, int column) const {
  const auto r = static_cast<size_t>(row);
  const auto c = static_cast<size_t>(column);
  const auto w = static_cast<size_t>(width);
  RowsOut out{};
  if (f32) out.f32 = f32_pages.as<float>() + r * w + c;
  if (bf16) out.bf16 = bf16_pages.as<uint16_t>() + r * ((w + 1) / 2 * 2) + c;
  if (q8) {
    out.q8 = q8_pages.as<int8_t>() + r * w + c;
    out.q8_scale = scale_pages.as<float>() + (r * w + c) / kGroup;
    out.q8_sum = sum_pages.as<int32_t>() + (r * w + c) / kGroup;
  }
  return out;
}

Plan::Plan(const PlanOptions& options)
    : kernels_(find_kernels(options.kernels)), options_(options), pool_(std::max(1, options.num_threads)) {
  require(options.max_tokens > 0 && options.max_logits_rows > 0, "max_tokens and max_logits_rows must be positive");
  require(options.num_blocks > 0 && options.num_blocks <= INT32_MAX / kBlockTokens, "num_blocks is out of range");
  require(options.num_layers > 0 && options.num_kv_heads > 0, "num_layers and num_kv_heads must be positive");
  require(options.head_dim > 0 && options.head_dim % 2 == 0 && options.head_dim <= 256,
          "head_dim must be even and at most 256");
  // [run of blocks][layer][k, v]: see KVCache.
  const size_t half = kv_run_bytes(options.kv_type, options.head_dim, options.num_kv_heads);
  const size_t stride = checked_mul(half, 2 * static_cast<size_t>(options.num_layers));
  cache_pages_ = Pages(checked_mul(stride, static_cast<size_t>((options.num_blocks + kRunBlocks - 1) / kRunBlocks)));
  for (int layer = 0; layer < options.num_layers; layer++) {
    uint8_t* base = cache_pages_.data() + half * 2 * static_cast<size_t>(layer);
    caches_.push_back({options.kv_type, stride, options.num_kv_heads, options.head_dim, base, base + half});
  }
}

Plan::~Plan() = default;

size_t Plan::cache_bytes() const {
  const size_t per_block = 2 * static_cast<size_t>(options_.num_layers) * static_cast<size_t>(options_.num_kv_heads) *
                           kv_block_bytes(options_.kv_type, options_.head_dim);
  return static_cast<size_t>(options_.num_blocks) * per_block;
}

int Plan::add_vector(const float* values, int size) {
  require(size > 0, "an empty vector");
  vectors_.push_back(std::make_unique<const std::vector<float>>(values, values + size));
  return static_cast<int>(vectors_.size()) - 1;
}

Pages Plan::allocate(size_t rows, size_t row_bytes) {
  Pages pages(checked_mul(rows, row_bytes));
  buffer_bytes_ += pages.size();
  return pages;
}

int Plan::add_buffer(int width, bool logits_rows) {
  return add_buffer_rows(width, static_cast<size_t>(logits_rows ? options_.max_logits_rows : options_.max_tokens));
}

int Plan::add_buffer_rows(int width, size_t rows) {
  require(width > 0 && width < kMaxDimension, "width is out of range");
  auto buffer = std::make_unique<Buffer>();
  buffer->width = width;
  buffer->stride = padded(width);
  buffer->pages = allocate(rows, checked_mul(buffer->stride, sizeof(float)));
  buffers_.push_back(std::move(buffer));
  return static_cast<int>(buffers_.size()) - 1;
}

int Plan::add_forms(int width, bool f32, bool bf16, bool q8, bool logits_rows) {
  return add_forms_rows(width, f32, bf16, q8,
                        static_cast<size_t>(logits_rows ? options_.max_logits_rows : options_.max_tokens));
}

int Plan::add_forms_rows(int width, bool f32, bool bf16, bool q8, size_t rows) {
  require(width > 0 && width < kMaxDimension, "width is out of range");
  require(!q8 || width % kGroup == 0, "int8 rows need a width that is a multiple of 32");
  Forms empty;
  empty.width = width;
  empty.f32 = f32;
  empty.bf16 = bf16;
  empty.q8 = q8;
  forms_.push_back(std::make_unique<Forms>(empty.with_room(rows)));
  buffer_bytes_ += forms_.back()->size_bytes();
  return static_cast<int>(forms_.size()) - 1;
}

int Plan::add_rotation(const double* inv_freq, int size, int head_dim, bool interleaved, double factor) {
  require(size > 0 && 2 * size <= head_dim, "more rotary dimensions than the head has");
  auto rotation = std::make_unique<Rotation>();
  rotation->head_dim = head_dim;
  rotation->interleaved = interleaved;
  rotation->factor = factor;
  rotation->inv_freq.assign(inv_freq, inv_freq + size);
  const auto rows = static_cast<size_t>(options_.max_tokens);
  rotation->cos_pages = allocate(rows, static_cast<size_t>(size) * sizeof(float));
  rotation->sin_pages = allocate(rows, static_cast<size_t>(size) * sizeof(float));
  rotations_.push_back(std::move(rotation));
  return static_cast<int>(rotations_.size()) - 1;
}

void Plan::linear(const std::vector<LinearTask>& tasks, bool logits_rows) {
  require(!tasks.empty() && tasks.size() <= 16, "linear: expected 1 to 16 tasks");
  for (const LinearTask& task : tasks) {
    const PackedMatrix& w = matrix(task.matrix);
    const Forms& x = forms(task.forms);
    const ActivationForm form = activation_form(w.layout);
    require(w.k == x.width && w.n == buffer(task.output).width, "linear: widths differ");
    require(form == ActivationForm::kF32    ? x.f32
            : form == ActivationForm::kBF16 ? x.bf16
                                            : x.q8,
            "linear: the rows lack the form this layout reads");
    require(task.bias < 0 || static_cast<int>(vector(task.bias).size()) == w.n, "linear: the bias has another size");
  }
  RowPhase* before = last_row_phase();
  if (before != nullptr && can_replicate(*before, *this, tasks)) {
    before->replicate(*this);
  } else {
    before = nullptr;
  }
  open_rows_ = nullptr;
  phases_.push_back(std::make_unique<LinearPhase>(*this, tasks, logits_rows, before));
}

void Plan::attention(const AttentionOptions& options) {
  require(options.left >= 0 && options.right >= 0, "attention: a window of negative size");
  require(options.softcap >= 0, "attention: a negative softcap");
  const KVCache& kv = cache(options.layer);
  const int heads = buffer(options.q).width / kv.head_dim;
  require(buffer(options.q).width == heads * kv.head_dim && heads % kv.num_kv_heads == 0 && heads > 0,
          "attention: q is not whole groups of heads");
  require(buffer(options.out).width == buffer(options.q).width, "attention: widths differ");
  require(options.sinks < 0 || static_cast<int>(vector(options.sinks).size()) == heads,
          "attention: expected a sink for each head");
  const size_t bytes = kernels_.attention_scratch_bytes(kv.head_dim, heads / kv.num_kv_heads);
  scratch_.resize(static_cast<size_t>(pool_.num_threads()));
  for (Pages& pages : scratch_) {
    if (pages.size() < bytes) pages = Pages(bytes);
  }
  std::vector<RowOp> before;
  RowPhase* rows = last_row_phase();
  if (rows != nullptr && !rows->logits_rows() && AttentionPhase::takes(rows->ops(), kv.num_kv_heads)) {
    before = rows->ops();
    phases_.pop_back();
  }
  open_rows_ = nullptr;
  auto phase = std::make_unique<AttentionPhase>(*this, options, std::move(before));
  // The products since the attention before this one.
  for (auto earlier = phases_.rbegin(); earlier != phases_.rend(); ++earlier) {
    if (dynamic_cast<AttentionPhase*>(earlier->get()) != nullptr) break;
    if (auto* products = dynamic_cast<LinearPhase*>(earlier->get())) products->set_next(phase.get());
  }
  phases_.push_back(std::move(phase));
}

void Plan::finish(int logits) {
  static_cast<void>(buffer(logits));
  logits_ = logits;
}

size_t Plan::logits_stride() const { return buffer(logits_).stride; }
int Plan::vocab_size() const { return buffer(logits_).width; }

RowPhase* Plan::last_row_phase() const {
  return phases_.empty() ? nullptr : dynamic_cast<RowPhase*>(phases_.back().get());
}

const char* Plan::check(const Step& step) const {
  if (logits_ < 0) return "the plan is not finished";
  if (const char* problem = check_tokens(step)) return problem;
  return step.num_logits_rows > options_.max_logits_rows ? "logits_rows: more rows than the plan holds" : nullptr;
}

const char* Plan::check_tokens(const Step& step) const {
  if (weights_.data() == nullptr) return "the weights have no memory";
  if (step.num_tokens < 1 || step.num_tokens > options_.max_tokens) return "token_ids: more tokens than the plan holds";
  if (step.num_seqs < 1 || step.cu_seqlens[0] != 0 || step.cu_seqlens[step.num_seqs] != step.num_tokens) {
    return "cu_seqlens: does not cover the tokens";
  }
  for (int i = 0; i < step.num_tokens; i++) {
    if (step.token_ids[i] < 0 || step.token_ids[i] > max_token_id_) return "token_ids: outside the vocabulary";
    if (step.slot_mapping[i] < 0 || step.slot_mapping[i] >= options_.num_blocks * kBlockTokens) {
      return "slot_mapping: outside the cache";
    }
    if (step.positions[i] < 0) return "positions: negative";
    if (step.token_types != nullptr && (step.token_types[i] < 0 || step.token_types[i] > max_token_type_)) {
      return "token_types: outside the model's table";
    }
    if (step.positions[i] > max_position_) return "positions: beyond the model's table";
  }
  for (int s = 0; s < step.num_seqs; s++) {
    const int queries = step.cu_seqlens[s + 1] - step.cu_seqlens[s];
    if (queries < 1 || step.cu_seqlens[s + 1] > step.num_tokens) return "cu_seqlens: not ascending";
    if (step.seq_lens[s] < queries) return "seq_lens: fewer tokens than this step brings";
    const int blocks = (step.seq_lens[s] - 1) / kBlockTokens + 1;
    if (blocks > step.max_blocks) return "block_tables: too few columns";
    const int32_t* table = step.block_tables + static_cast<size_t>(s) * static_cast<size_t>(step.max_blocks);
    for (int b = 0; b < blocks; b++) {
      if (table[b] < 0 || table[b] >= options_.num_blocks) return "block_tables: a block outside the cache";
    }
  }
  for (int i = 0; i < step.num_logits_rows; i++) {
    if (step.logits_rows[i] < 0 || step.logits_rows[i] >= step.num_tokens) return "logits_rows: outside the step";
  }
  return nullptr;
}

void Plan::fill_rotations(const Step& step, int worker) {
  const int threads = pool_.num_threads();
  const int end = static_cast<int>(int64_t{step.num_tokens} * (worker + 1) / threads);
  for (const auto& rotation : rotations_) {
    const size_t half = rotation->inv_freq.size();
    for (int row = static_cast<int>(int64_t{step.num_tokens} * worker / threads); row < end; row++) {
      float* cos_row = rotation->cos_pages.as<float>() + static_cast<size_t>(row) * half;
      float* sin_row = rotation->sin_pages.as<float>() + static_cast<size_t>(row) * half;
      for (size_t i = 0; i < half; i++) {
        // In double: an angle of 1e5 radians has no useful bits left in float.
        const double angle = step.positions[row] * rotation->inv_freq[i];
        cos_row[i] = static_cast<float>(std::cos(angle) * rotation->factor);
        sin_row[i] = static_cast<float>(std::sin(angle) * rotation->factor);
      }
    }
  }
}

bool Plan::sequences_apart(const Step& step) {
  if (step.num_seqs == 1) return true;
  constexpr int32_t kNone = -1;
  block_writers_.resize(static_cast<size_t>(options_.num_blocks), kNone);
  const auto for_each_written = [&](auto visit) {
    for (int s = 0; s < step.num_seqs; s++) {
      for (int i = step.cu_seqlens[s]; i < step.cu_seqlens[s + 1]; i++) {
        visit(s, block_writers_[static_cast<size_t>(step.slot_mapping[i] / kBlockTokens)]);
      }
    }
  };
  bool apart = true;
  for_each_written([&](int s, int32_t& writer) {
    apart = apart && (writer == kNone || writer == s);
    writer = s;
  });
  for (int s = 0; apart && s < step.num_seqs; s++) {
    const int blocks = (step.seq_lens[s] - 1) / kBlockTokens + 1;
    const int32_t* table = step.block_tables + static_cast<size_t>(s) * static_cast<size_t>(step.max_blocks);
    for (int b = 0; b < blocks; b++) {
      const int32_t writer = block_writers_[static_cast<size_t>(table[b])];
      apart = apart && (writer == kNone || writer == s);
    }
  }
  for_each_written([](int, int32_t& writer) { writer = kNone; });
  return apart;
}

float* Plan::run(const Step& step) {
  for (const auto& phase : phases_) phase->reset();
  const bool apart = sequences_apart(step);
  pool_.run([&](int worker) {
    fill_rotations(step, worker);
    pool_.barrier();
    const StepContext context{.plan = *this, .step = step, .worker = worker, .sequences_apart = apart};
    if (worker == 0 && profiler_.on()) {
      run_profiled(context);
      return;
    }
    for (const auto& phase : phases_) {
      phase->run(context);
      if (phase->needs_barrier(step)) pool_.barrier();
    }
  });
  return buffer(logits_).row(0);
}

void Plan::run_profiled(const StepContext& context) {
  for (size_t i = 0; i < phases_.size(); i++) {
    profiler_.begin_phase(i);
    phases_[i]->run(context);
    profiler_.end_phase(i);
    if (phases_[i]->needs_barrier(context.step)) pool_.barrier();
    profiler_.passed_barrier(i);
  }
}

std::vector<PhaseInfo> Plan::phase_info() const {
  std::vector<PhaseInfo> infos;
  for (const auto& phase : phases_) infos.push_back(phase->info(*this));
  return infos;
}

}  // namespace quintet
