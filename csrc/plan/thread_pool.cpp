#include "thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "denormals.h"

namespace quintet {
namespace {

// About 50 us on current x86 cores, where one pause is 40 to 140 cycles.
constexpr int kSpins = 2000;

inline void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns once `counter` differs from `old`.
void wait_while(const std::atomic<uint32_t>& counter, uint32_t old) {
  for (int i = 0; i < kSpins; i++) {
    if (counter.load(std::memory_order_acquire) != old) return;
    relax();
  }
  while (counter.load(std::memory_order_acquire) == old) counter.wait(old, std::memory_order_acquire);
}

int affinity_cpus(cpu_set_t* set) {
  CPU_ZERO(set);
  return sched_getaffinity(0, sizeof(*set), set) == 0 ? CPU_COUNT(set) : 1;
}

// Physical cores among the allowed CPUs: two hyperthreads of one core share its multiplier.
int physical_cores(const cpu_set_t& set) {
  std::set<std::pair<int, int>> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &set)) continue;
    const std::string base = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    int package = 0;
    int core = cpu;
    std::ifstream(base + "physical_package_id") >> package;
    std::ifstream core_file(base + "core_id");
    if (!(core_file >> core)) core = cpu;
    cores.emplace(package, core);
  }
  return static_cast<int>(cores.size());
}

// CPUs this process's cgroup (v2, or v1 at its usual mount) may use; infinity without a quota.
double cgroup_quota() {
  double best = INFINITY;
  std::ifstream self("/proc/self/cgroup");
  std::string line;
  while (std::getline(self, line)) {
    if (line.rfind("0::", 0) != 0) continue;
    // The quota of every ancestor binds too.
    for (std::string path = line.substr(3);; path = path.substr(0, path.find_last_of('/'))) {
      std::ifstream max("/sys/fs/cgroup" + path + "/cpu.max");
      std::string quota;
      double period = 0;
      if (max >> quota >> period && quota != "max" && period > 0)
        best = std::min(best, std::strtod(quota.c_str(), nullptr) / period);
      if (path.empty() || path == "/") break;
    }
  }
  double quota = -1;
  double period = 0;
  std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> quota;
  std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
  if (quota > 0 && period > 0) best = std::min(best, quota / period);
  return best;
}

}  // namespace

int default_num_threads() {
  cpu_set_t set;
  int threads = affinity_cpus(&set);
  threads = std::min(threads, std::max(1, physical_cores(set)));
  const double quota = cgroup_quota();
  if (quota < threads) threads = static_cast<int>(quota);
  return std::max(1, threads);
}

ThreadPool::ThreadPool(int num_threads) : num_threads_(std::max(1, num_threads)) {
  threads_.reserve(static_cast<size_t>(num_threads_ - 1));
  for (int worker = 1; worker < num_threads_; worker++) {
    threads_.emplace_back([this, worker] { worker_loop(worker); });
    const std::string name = "quintet-" + std::to_string(worker);
    pthread_setname_np(threads_.back().native_handle(), name.c_str());
  }
}

ThreadPool::~ThreadPool() {
  stopping_.store(true, std::memory_order_relaxed);
  epoch_.value.fetch_add(1, std::memory_order_release);
  epoch_.value.notify_all();
  for (auto& thread : threads_) thread.join();
}

void ThreadPool::run(const std::function<void(int)>& task) {
  const FlushDenormals mode;
  if (num_threads_ > 1) {
    task_ = &task;
    epoch_.value.fetch_add(1, std::memory_order_release);
    epoch_.value.notify_all();
  }
  task(0);
  barrier();
}

void ThreadPool::worker_loop(int worker) {
  const FlushDenormals mode;
  uint32_t seen = 0;
  while (true) {
    wait_while(epoch_.value, seen);
    seen++;
    if (stopping_.load(std::memory_order_relaxed)) return;
    (*task_)(worker);
    barrier();
  }
}

void ThreadPool::barrier() {
  if (num_threads_ == 1) return;
  const uint32_t generation = released_.value.load(std::memory_order_acquire);
  if (arrived_.value.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(num_threads_)) {
    arrived_.value.store(0, std::memory_order_relaxed);
    released_.value.fetch_add(1, std::memory_order_release);
    released_.value.notify_all();
    return;
  }
  wait_while(released_.value, generation);
}

}  // namespace quintet
