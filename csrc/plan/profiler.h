// Where a step's time goes, phase by phase, as the calling thread sees it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace quintet {

// Off, it costs a branch per phase; on, three looks at the clock, some 0.1 us.
class Profiler {
 public:
  struct Times {
    int64_t calls = 0;
    double work_s = 0;  // in the phase
    double wait_s = 0;  // at the barrier behind it: the others' longer share, and the barrier's own cost
  };

  // Forgets what was measured.
  void start(size_t num_phases) {
    times_.assign(num_phases, Times{});
    first_phase_s_ = 0;
    on_ = true;
  }
  void stop() { on_ = false; }
  bool on() const { return on_; }

  static double now_s() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }
  void add(size_t phase, double begin_s, double end_s, double passed_s) {
    if (phase == 0) first_phase_s_ = begin_s;
    Times& times = times_[phase];
    times.calls++;
    times.work_s += end_s - begin_s;
    times.wait_s += passed_s - end_s;
  }
  const std::vector<Times>& times() const { return times_; }
  double first_phase_s() const { return first_phase_s_; }  // of the latest step

 private:
  bool on_ = false;
  double first_phase_s_ = 0;
  std::vector<Times> times_;
};

}  // namespace quintet
