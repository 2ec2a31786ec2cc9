// Long native work asks now and then whether it should stop: a signal, or a deadline.
#pragma once
#include <chrono>

#include "base.hpp"

namespace unspool {

using Clock = std::chrono::steady_clock;

struct Poll {
  // Set by the Python binding: takes the GIL and runs signal handlers; throws to stop.
  static inline thread_local void (*check_signals)() = nullptr;
  static inline thread_local Clock::time_point deadline = Clock::time_point::max();

  // Call with the amount of work done since the last call, in units of about a microsecond or less.
  void operator()(u64 work = 1) {
    pending_ += work;
    if (UNSPOOL_LIKELY(pending_ < 4096)) return;
    pending_ = 0;
    slow();
  }

 private:
  void slow() {
    const auto now = Clock::now();
    if (now >= deadline) throw Deadline("The deadline of this call has passed.");
    if (now - last_ < std::chrono::milliseconds(50)) return;
    last_ = now;
    if (check_signals) check_signals();
  }
  u64 pending_ = 0;
  Clock::time_point last_ = Clock::now();
};

}  // namespace unspool
