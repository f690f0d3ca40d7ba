// What this CPU and operating system can run.
#include "impl.h"

#ifdef QUINTET_X86
#include <sys/syscall.h>
#include <unistd.h>
#endif
#ifdef QUINTET_ARM64
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace quintet {

#ifdef QUINTET_X86
// The builtins check XGETBV as well as CPUID: AVX needs the operating system to save the wider registers.
bool cpu_runs_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

bool cpu_runs_avx512() {
  return cpu_runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
}

// Tiles are 8 kB that the system saves with a thread; a process must ask for them, and is refused where its signal
// stacks are too small to hold them.  Source: Linux, Documentation/arch/x86/xstate.rst.
bool cpu_runs_amx() {
  static const bool runs = [] {
    constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
    constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
    return cpu_runs_avx512() && __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8") &&
           __builtin_cpu_supports("amx-bf16") && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return runs;
}
#else
bool cpu_runs_avx2() { return false; }
bool cpu_runs_avx512() { return false; }
bool cpu_runs_amx() { return false; }
#endif

#ifdef QUINTET_ARM64
bool cpu_runs_neon() { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
#else
bool cpu_runs_neon() { return false; }
#endif

}  // namespace quintet
