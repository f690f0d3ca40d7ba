// Where a step's time goes, phase by phase, as the calling thread sees it.
#pragma once

#include <time.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace quintet {

// Off, it costs a branch per step; on, a few looks at the clocks per phase, some 0.5 us.
class Profiler {
 public:
  struct Times {
    int64_t calls = 0;
    double work_s = 0;  // in the phase
    double wait_s = 0;  // at the barrier behind it: the others' longer share, and the barrier's own cost
    double cpu_s = 0;   // of work_s, what the thread had a CPU for
  };

  // Forgets what was measured.
  void start(size_t num_phases) {
    times_.assign(num_phases, Times{});
    first_phase_s_ = 0;
    on_ = true;
  }
  void stop() { on_ = false; }
  bool on() const { return on_; }

  // Around each phase, in this order, by the calling thread.
  void begin_phase(size_t phase) {
    begin_cpu_s_ = now_s(CLOCK_THREAD_CPUTIME_ID);
    begin_s_ = now_s(CLOCK_MONOTONIC);
    if (phase == 0) first_phase_s_ = begin_s_;
  }
  void end_phase(size_t phase) {
    end_s_ = now_s(CLOCK_MONOTONIC);
    times_[phase].calls++;
    times_[phase].work_s += end_s_ - begin_s_;
    times_[phase].cpu_s += now_s(CLOCK_THREAD_CPUTIME_ID) - begin_cpu_s_;
  }
  void passed_barrier(size_t phase) { times_[phase].wait_s += now_s(CLOCK_MONOTONIC) - end_s_; }

  const std::vector<Times>& times() const { return times_; }
  double first_phase_s() const { return first_phase_s_; }  // of the latest step, on the monotonic clock

 private:
  static double now_s(clockid_t clock) {
    timespec now{};
    clock_gettime(clock, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
  }

  bool on_ = false;
  double first_phase_s_ = 0;
  double begin_s_ = 0, begin_cpu_s_ = 0, end_s_ = 0;
  std::vector<Times> times_;
};

}  // namespace quintet
