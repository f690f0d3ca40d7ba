// A step that stops where rows are to be seen: between its phases the caller looks at them, and nothing is changed.
#include "phases.h"
#include "plan.h"

namespace quintet {

int Plan::add_observation(Observation observation) {
  open_rows_ = nullptr;  // what follows must not begin before the rows have been seen
  next_rows_ = nullptr;
  phases_.push_back(std::make_unique<ObservePhase>(observation));
  return num_observations_++;
}

int Plan::observe(int buffer_id, bool logits_rows) {
  static_cast<void>(buffer(buffer_id));
  return add_observation({.id = num_observations_, .buffer = buffer_id, .logits_rows = logits_rows});
}

const char* Plan::check_observed(const Step& step) const {
  if (const char* problem = check_hidden(step)) return problem;
  return step.num_logits_rows > options_.max_logits_rows ? "logits_rows: more rows than the plan holds" : nullptr;
}

void Plan::run_observed(const Step& step, const std::function<void(const Observation&)>& observer) {
  for (const auto& phase : phases_) phase->reset();
  const bool apart = sequences_apart(step);
  for (size_t begin = 0, end = 0; begin < hidden_phase_; begin = end) {
    const ObservePhase* seen = nullptr;
    while (end < hidden_phase_ && seen == nullptr) seen = dynamic_cast<const ObservePhase*>(phases_[end++].get());
    pool_.run([&](int worker) {
      if (begin == 0) {
        fill_rotations(step, worker);
        pool_.barrier();
      }
      const StepContext context{.plan = *this, .step = step, .worker = worker, .sequences_apart = apart};
      for (size_t i = begin; i < end; i++) {
        phases_[i]->run(context);
        if (phases_[i]->needs_barrier(step)) pool_.barrier();
      }
    });
    if (seen != nullptr) observer(seen->observation());
  }
}

}  // namespace quintet
