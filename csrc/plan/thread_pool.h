// A persistent pool whose threads run one function together, phase by phase.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace quintet {

// Threads this process should use: min(affinity mask, cgroup CPU quota, physical cores), at least 1.
int default_num_threads();

// The caller is worker 0; the others wait between runs.  Waiting spins for some 50 us, because a step's phases follow
// each other within microseconds, and then sleeps, so that an idle or oversubscribed pool costs nothing.
class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls task(worker) once on every worker and returns when all are done.  One caller at a time.  The task must not
  // throw.  Floating point runs with denormals flushed; the caller's mode is restored.
  void run(const std::function<void(int worker)>& task);

  // Called by every worker inside a task: none passes before all have arrived.
  void barrier();

 private:
  void worker_loop(int worker);

  // Each counter on its own cache line: they are written by different threads.
  struct alignas(64) Counter {
    std::atomic<uint32_t> value{0};
  };

  int num_threads_;
  const std::function<void(int)>* task_ = nullptr;
  Counter epoch_;     // increments to start a run
  Counter arrived_;   // workers at the barrier
  Counter released_;  // barriers passed
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> threads_;
};

}  // namespace quintet
