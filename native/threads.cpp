#include "threads.hpp"

#include <algorithm>
#include <cstdlib>

#if defined(__linux__)
#include <sched.h>
#endif

namespace unspool {

namespace {

std::atomic<u64> g_threads{0};

u64 processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return static_cast<u64>(CPU_COUNT(&set));
#endif
  return std::thread::hardware_concurrency();
}

}  // namespace

u64 num_threads() {
  if (const u64 wanted = g_threads.load(std::memory_order_relaxed)) return wanted;
  const char* given = std::getenv("UNSPOOL_THREADS");
  const long limit = given ? std::strtol(given, nullptr, 10) : 0;
  const u64 found = std::max<u64>(1, processors());
  return limit > 0 ? std::min(found, static_cast<u64>(limit)) : found;
}

void set_threads(u64 threads) { g_threads.store(threads, std::memory_order_relaxed); }

}  // namespace unspool
