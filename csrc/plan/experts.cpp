// Mixtures of experts: each row's experts are chosen, its visits to them are sorted by expert, the matrices of every
// expert that has visits run on those, and each row sums what came back.
//
// Same bits whatever the batch: a visit is computed as a row of an ordinary product, and a row adds its visits in the
// order of their scores, wherever they lay.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "phases.h"
#include "plan.h"
#include "require.h"

namespace quintet {
namespace {

constexpr int kRowChunk = 256;  // as in phases.cpp
constexpr size_t kItemBytes = 256 << 10;

int share_of(int count, int worker, int threads) {
  return static_cast<int>(static_cast<int64_t>(count) * worker / threads);
}

// Places each row's visits, and writes the rows in the forms that the experts' matrices read.  Every worker counts all
// visits, which is less work than to meet once more.
class GatherPhase final : public Phase {
 public:
  GatherPhase(int src, int experts) : src_(src), experts_(experts) {}
  PhaseInfo info(const Plan&) const override { return {.label = "gather"}; }
  void run(const StepContext& context) override {
    const Plan& plan = context.plan;
    Experts& e = plan.experts(experts_);
    const Buffer& x = plan.buffer(src_);
    const Forms& forms = plan.forms(e.in_forms);
    const int threads = plan.num_threads();
    const int begin = share_of(context.step.num_tokens, context.worker, threads);
    const int end = share_of(context.step.num_tokens, context.worker + 1, threads);
    const int* chosen = e.chosen.as<int>();
    std::vector<int> next(static_cast<size_t>(e.num_experts) + 1, 0);
    const auto count = [&](int from, int to, int* into) {
      for (int i = from * e.num_used; i < to * e.num_used; i++) into[chosen[i]]++;
    };
    count(0, context.step.num_tokens, next.data() + 1);
    std::partial_sum(next.begin(), next.end(), next.begin());
    if (context.worker == 0) std::copy(next.begin(), next.end(), e.begins.as<int>());
    count(0, begin, next.data());
    for (int i = begin * e.num_used; i < end * e.num_used; i++) {
      const int visit = next[static_cast<size_t>(chosen[i])]++;
      e.visits.as<int>()[i] = visit;
      plan.kernels().make_rows(x.row(i / e.num_used), x.stride, 1, e.width, forms.row_out(visit, 0));
    }
  }

 private:
  int src_, experts_;
};

// Products of visits with the matrices of their experts.
class ExpertLinearPhase final : public Phase {
 public:
  struct Task {
    int matrix, output, bias;
  };
  ExpertLinearPhase(int experts, int forms, std::vector<Task> tasks, int num_threads)
      : experts_(experts), forms_(forms), tasks_(std::move(tasks)), share_(num_threads) {}
  void reset() override { share_.reset(); }

  PhaseInfo info(const Plan& plan) const override {
    const Experts& e = plan.experts(experts_);
    PhaseInfo info{.label = "experts, n x k:"};
    for (const Task& task : tasks_) {
      const PackedMatrix& w = plan.matrix(task.matrix);
      char text[64];
      std::snprintf(text, sizeof text, " %dx%d", w.n / e.num_experts, w.k);
      info.label += text;
      // What one row reads.
      const auto used = static_cast<size_t>(e.num_used);
      const auto all = static_cast<size_t>(e.num_experts);
      info.weight_bytes += static_cast<size_t>(num_panels(w.n)) * panel_bytes(w.layout, w.k) / all * used;
      info.num_weights += static_cast<size_t>(w.n) * static_cast<size_t>(w.k) / all * used;
    }
    return info;
  }

  void run(const StepContext& context) override {
    const Plan& plan = context.plan;
    const Experts& e = plan.experts(experts_);
    const int* begins = e.begins.as<int>();
    const int num_visits = context.step.num_tokens * e.num_used;
    std::vector<int> visited;
    for (int expert = 0; expert < e.num_experts; expert++) {
      if (begins[expert] < begins[expert + 1]) visited.push_back(expert);
    }
    // Items: for each task and expert, runs of panels.  All tasks have matrices of one shape.
    const PackedMatrix& any = plan.matrix(tasks_[0].matrix);
    const int panels = num_panels(any.n) / e.num_experts;
    const size_t bytes = std::max<size_t>(panel_bytes(any.layout, any.k), 1);
    // An even number, as in phases.cpp.
    const int per_item = std::max(2, static_cast<int>(kItemBytes / bytes) / 2 * 2);
    const int runs = (panels + per_item - 1) / per_item;
    const auto items_per_task = static_cast<int64_t>(visited.size()) * runs;
    const int64_t count = items_per_task * static_cast<int64_t>(tasks_.size());
    const Rows rows = plan.forms(forms_).rows(num_visits);
    share_.for_each(count, context.worker, [&](int64_t item) {
      const Task& task = tasks_[static_cast<size_t>(item / items_per_task)];
      const int64_t local = item % items_per_task;
      const int expert = visited[static_cast<size_t>(local / runs)];
      const int panel_begin = static_cast<int>(local % runs) * per_item;
      const int panel_end = std::min(panels, panel_begin + per_item);
      const PackedMatrix& all = plan.matrix(task.matrix);
      PackedMatrix w = all;
      w.n = all.n / e.num_experts;
      w.data += static_cast<size_t>(expert) * static_cast<size_t>(panels) * panel_bytes(w.layout, w.k);
      const Buffer& y = plan.buffer(task.output);
      for (int row = begins[expert]; row < begins[expert + 1]; row += kRowChunk) {
        const int row_end = std::min(begins[expert + 1], row + kRowChunk);
        plan.kernels().linear[static_cast<size_t>(w.layout)](w, rows, row, row_end, panel_begin, panel_end, y.row(0),
                                                             y.stride);
        if (task.bias < 0) continue;
        const int first = panel_begin * kPanelColumns;
        const int last = std::min(w.n, panel_end * kPanelColumns);
        const float* bias = plan.vector(task.bias).data() + static_cast<size_t>(expert) * static_cast<size_t>(w.n);
        for (int r = row; r < row_end; r++) plan.kernels().add(bias + first, last - first, y.row(r) + first);
      }
    });
  }

 private:
  int experts_, forms_;
  std::vector<Task> tasks_;
  WorkShare share_;
};

// act(gate) * up of every visit, in the forms that the down matrices read.
class ExpertActPhase final : public Phase {
 public:
  explicit ExpertActPhase(int experts) : experts_(experts) {}
  PhaseInfo info(const Plan&) const override { return {.label = "visits: act forms"}; }
  void run(const StepContext& context) override {
    const Plan& plan = context.plan;
    const Experts& e = plan.experts(experts_);
    const Buffer& gate = plan.buffer(e.gate_rows);
    const Buffer& up = plan.buffer(e.up_rows);
    const Forms& forms = plan.forms(e.inner_forms);
    const int visits = context.step.num_tokens * e.num_used;
    const int end = share_of(visits, context.worker + 1, plan.num_threads());
    for (int visit = share_of(visits, context.worker, plan.num_threads()); visit < end; visit++) {
      float* g = gate.row(visit);
      if (e.limit > 0) {
        plan.kernels().swiglu_clamped(g, up.row(visit), e.limit, e.inner, g);
      } else {
        plan.kernels().silu_mul(g, up.row(visit), e.inner, g);
      }
      plan.kernels().make_rows(g, gate.stride, 1, e.inner, forms.row_out(visit, 0));
    }
  }

 private:
  int experts_;
};

// Sets the ranks of all experts but those of the best groups to -infinity.
void keep_best_groups(const Experts& e, std::vector<double>& ranked) {
  const auto per_group = static_cast<ptrdiff_t>(ranked.size()) / e.num_groups;
  std::vector<std::pair<double, int>> groups;
  for (int g = 0; g < e.num_groups; g++) {
    std::vector<double> best(ranked.begin() + g * per_group, ranked.begin() + (g + 1) * per_group);
    // A NaN has no order.
    for (double& value : best) value = std::isnan(value) ? -std::numeric_limits<double>::infinity() : value;
    std::sort(best.begin(), best.end(), std::greater<>());
    groups.emplace_back(std::accumulate(best.begin(), best.begin() + e.group_top, 0.0), g);
  }
  std::stable_sort(groups.begin(), groups.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  for (size_t i = static_cast<size_t>(e.num_groups_used); i < groups.size(); i++) {
    const ptrdiff_t first = groups[i].second * per_group;
    std::fill_n(ranked.begin() + first, per_group, -std::numeric_limits<double>::infinity());
  }
}

// Chooses one row's experts.  The sums run over the experts in their order, in double: there are few.
void route(const Experts& e, const float* scores, const float* bias, int* chosen, float* weights) {
  const int n = e.num_experts;
  std::vector<double> activated(static_cast<size_t>(n));
  double sum = 0;
  if (e.sigmoid) {
    for (int i = 0; i < n; i++) activated[static_cast<size_t>(i)] = 1 / (1 + std::exp(-static_cast<double>(scores[i])));
  } else {
    const double largest = *std::max_element(scores, scores + n);
    for (int i = 0; i < n; i++) sum += activated[static_cast<size_t>(i)] = std::exp(scores[i] - largest);
    for (double& value : activated) value /= sum;
  }
  // By what experts are ranked; without a bias the scores themselves, which have the same order.
  std::vector<double> ranked(static_cast<size_t>(n));
  for (int i = 0; i < n; i++) {
    const auto at = static_cast<size_t>(i);
    ranked[at] = bias != nullptr ? activated[at] + static_cast<double>(bias[i])
                 : e.sigmoid     ? activated[at]
                                 : static_cast<double>(scores[i]);
  }
  if (e.num_groups > 1) keep_best_groups(e, ranked);
  const auto rank = [&](int i) { return ranked[static_cast<size_t>(i)]; };
  // Insertion keeps the best so far; a NaN is never better, so that a broken row still has experts.
  int found = 0;
  for (int i = 0; i < n; i++) {
    int at = found;
    while (at > 0 && rank(i) > rank(chosen[at - 1])) at--;
    if (at == e.num_used) continue;
    found = std::min(found + 1, e.num_used);
    for (int j = found - 1; j > at; j--) chosen[j] = chosen[j - 1];
    chosen[at] = i;
  }
  double total = 0;
  for (int i = 0; i < e.num_used; i++) total += activated[static_cast<size_t>(chosen[i])];
  const double scale = e.normalize ? static_cast<double>(e.factor) / total : static_cast<double>(e.factor);
  for (int i = 0; i < e.num_used; i++) {
    weights[i] = static_cast<float>(activated[static_cast<size_t>(chosen[i])] * scale);
  }
}

}  // namespace

int Plan::add_experts(const ExpertOptions& o) {
  require(o.num_experts > 0 && o.num_used > 0 && o.num_used <= o.num_experts, "experts: more used than there are");
  require(o.num_groups > 0 && o.num_experts % o.num_groups == 0 && o.num_groups_used > 0 &&
              o.num_groups_used <= o.num_groups && o.group_top > 0 && o.group_top <= o.num_experts / o.num_groups &&
              o.num_used <= o.num_groups_used * (o.num_experts / o.num_groups),
          "experts: groups that do not fit");
  const PackedMatrix& gate = matrix(o.gate);
  const PackedMatrix& up = matrix(o.up);
  const PackedMatrix& down = matrix(o.down);
  const auto rows_of = [&](const PackedMatrix& w) {
    require(w.n % (o.num_experts * kPanelColumns) == 0, "experts: rows that are not whole panels");
    return w.n / o.num_experts;
  };
  auto e = std::make_unique<Experts>();
  e->num_experts = o.num_experts;
  e->num_used = o.num_used;
  e->width = rows_of(down);
  e->inner = rows_of(gate);
  require(up.n == gate.n && up.k == gate.k && gate.k == e->width && down.k == e->inner, "experts: shapes differ");
  const auto check_bias = [&](int bias, int size) {
    require(bias < 0 || static_cast<int>(vector(bias).size()) == size, "experts: a bias has another size");
  };
  check_bias(o.gate_bias, gate.n);
  check_bias(o.up_bias, up.n);
  check_bias(o.down_bias, down.n);
  check_bias(o.selection_bias, o.num_experts);
  e->gate = o.gate;
  e->up = o.up;
  e->down = o.down;
  e->gate_bias = o.gate_bias;
  e->up_bias = o.up_bias;
  e->down_bias = o.down_bias;
  e->selection_bias = o.selection_bias;
  e->num_groups = o.num_groups;
  e->num_groups_used = o.num_groups_used;
  e->group_top = o.group_top;
  e->sigmoid = o.sigmoid;
  e->normalize = o.normalize;
  e->factor = o.factor;
  e->limit = o.limit;
  const size_t visits = checked_mul(static_cast<size_t>(options_.max_tokens), static_cast<size_t>(o.num_used));
  require(visits < INT32_MAX, "experts: too many visits");
  const auto forms_for = [&](int width, std::initializer_list<const PackedMatrix*> readers) {
    bool f32 = false, bf16 = false, q8 = false;
    for (const PackedMatrix* w : readers) {
      const ActivationForm form = activation_form(w->layout);
      (form == ActivationForm::kF32 ? f32 : form == ActivationForm::kBF16 ? bf16 : q8) = true;
    }
    return add_forms_rows(width, f32, bf16, q8, visits);
  };
  // All mixtures of one shape take turns with one set of rows.
  const auto alike = std::find_if(experts_.begin(), experts_.end(), [&](const auto& other) {
    return other->num_used == e->num_used && other->width == e->width && other->inner == e->inner;
  });
  const bool shared = alike != experts_.end();
  e->gate_rows = shared ? (*alike)->gate_rows : add_buffer_rows(e->inner, visits);
  e->up_rows = shared ? (*alike)->up_rows : add_buffer_rows(e->inner, visits);
  e->out_rows = shared ? (*alike)->out_rows : add_buffer_rows(e->width, visits);
  const auto form_of = [&](int id) { return activation_form(matrix(id).layout); };
  const bool same_forms = shared && form_of((*alike)->gate) == form_of(e->gate) &&
                          form_of((*alike)->up) == form_of(e->up) && form_of((*alike)->down) == form_of(e->down);
  e->in_forms = same_forms ? (*alike)->in_forms : forms_for(e->width, {&gate, &up});
  e->inner_forms = same_forms ? (*alike)->inner_forms : forms_for(e->inner, {&down});
  e->chosen = allocate(visits, sizeof(int));
  e->weights = allocate(visits, sizeof(float));
  e->visits = allocate(visits, sizeof(int));
  e->begins = allocate(static_cast<size_t>(o.num_experts) + 1, sizeof(int));
  experts_.push_back(std::move(e));
  return static_cast<int>(experts_.size()) - 1;
}

void Plan::row_route(int scores, int experts_id) {
  const Buffer& s = buffer(scores);
  const Experts& e = experts(experts_id);
  require(s.width == e.num_experts, "route: expected a score for each expert");
  const float* bias = e.selection_bias < 0 ? nullptr : vector(e.selection_bias).data();
  add_row_op("route", [&s, &e, bias](const StepContext&, int row) {
    const int first = row * e.num_used;
    route(e, s.row(row), bias, e.chosen.as<int>() + first, e.weights.as<float>() + first);
  });
}

int Plan::run_experts(int src, int experts_id, bool is_observed) {
  const Experts& e = experts(experts_id);
  require(buffer(src).width == e.width, "experts: widths differ");
  open_rows_ = nullptr;
  phases_.push_back(std::make_unique<GatherPhase>(src, experts_id));
  using Task = ExpertLinearPhase::Task;
  phases_.push_back(std::make_unique<ExpertLinearPhase>(
      experts_id, e.in_forms, std::vector<Task>{{e.gate, e.gate_rows, e.gate_bias}, {e.up, e.up_rows, e.up_bias}},
      num_threads()));
  phases_.push_back(std::make_unique<ExpertActPhase>(experts_id));
  const int observation =
      is_observed ? add_observation({.id = num_observations_, .buffer = src, .experts = experts_id}) : -1;
  phases_.push_back(std::make_unique<ExpertLinearPhase>(
      experts_id, e.inner_forms, std::vector<Task>{{e.down, e.out_rows, e.down_bias}}, num_threads()));
  return observation;
}

void Plan::row_combine(int experts_id, int dst) {
  const Experts& e = experts(experts_id);
  const Buffer& x = buffer(e.out_rows);
  const Buffer& y = buffer(dst);
  require(y.width == e.width, "combine: widths differ");
  add_row_op("combine", [&e, &x, &y, this](const StepContext&, int row) {
    std::memset(y.row(row), 0, static_cast<size_t>(y.width) * sizeof(float));
    for (int rank = 0; rank < e.num_used; rank++) {
      const float weight = e.weights.as<float>()[row * e.num_used + rank];
      kernels_.add_scaled(x.row(e.visit_of(row, rank)), weight, y.width, y.row(row));
    }
  });
}

}  // namespace quintet
