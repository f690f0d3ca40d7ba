// Hidden rows rather than logits: the program up to what its head would read.
#include <algorithm>
#include <cstring>

#include "phases.h"
#include "plan.h"
#include "require.h"

namespace quintet {

void Plan::mark_hidden(int buffer_id) {
  static_cast<void>(buffer(buffer_id));
  hidden_ = buffer_id;
  hidden_phase_ = select_phase_ = phases_.size();
  while (select_phase_ > 0) {
    const Phase* phase = phases_[select_phase_ - 1].get();
    const auto* rows = dynamic_cast<const RowPhase*>(phase);
    const auto* stop = dynamic_cast<const ObservePhase*>(phase);
    const bool is_selected = rows != nullptr ? rows->logits_rows() : stop != nullptr && stop->observation().logits_rows;
    if (!is_selected) break;
    select_phase_--;
  }
  require(select_phase_ < hidden_phase_, "mark_hidden: no rows have been selected");
  open_rows_ = nullptr;  // what follows is not needed for them
}

int Plan::hidden_size() const { return buffer(hidden_).width; }

const char* Plan::check_hidden(const Step& step) const {
  if (hidden_ < 0) return "the plan has no hidden rows";
  return check_tokens(step);
}

void Plan::run_hidden(const Step& step, float* out) {
  const Buffer& hidden = buffer(hidden_);
  const auto width = static_cast<size_t>(hidden.width);
  for (const auto& phase : phases_) phase->reset();
  pool_.run([&](int worker) {
    fill_rotations(step, worker);
    pool_.barrier();
    const StepContext context{*this, step, worker};
    for (size_t i = 0; i < select_phase_; i++) {
      phases_[i]->run(context);
      pool_.barrier();
    }
    // There may be more rows than buffers of selected rows hold.
    for (int begin = 0; begin < step.num_logits_rows; begin += options_.max_logits_rows) {
      Step part = step;
      part.logits_rows = step.logits_rows + begin;
      part.num_logits_rows = std::min(options_.max_logits_rows, step.num_logits_rows - begin);
      const StepContext part_context{*this, part, worker};
      for (size_t i = select_phase_; i < hidden_phase_; i++) {
        phases_[i]->run(part_context);
        pool_.barrier();
      }
      const int threads = pool_.num_threads();
      const auto row_of = [&](int w) { return static_cast<int>(int64_t{part.num_logits_rows} * w / threads); };
      for (int row = row_of(worker); row < row_of(worker + 1); row++) {
        std::memcpy(out + static_cast<size_t>(begin + row) * width, hidden.row(row), width * sizeof(float));
      }
      pool_.barrier();  // before the buffers are written again
    }
  });
}

}  // namespace quintet
