// Long native work asks now and then whether it should stop: a signal, or a deadline.
#pragma once
#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

#include "base.hpp"

namespace unspool {

using Clock = std::chrono::steady_clock;

struct Poll {
  // Set by the Python binding: takes the GIL and runs signal handlers; throws to stop.
  static inline thread_local void (*check_signals)() = nullptr;
  static inline thread_local Clock::time_point deadline = Clock::time_point::max();

  // Many short calls under one deadline must end too, not only a long one.
  Poll() {
    if (last_ >= deadline) throw Deadline("The deadline of this call has passed.");
  }

  // From here on, report(fraction) is called now and then, out of so many units of work.
  void expect(u64 work, std::function<void(double)> report) {
    expected_ = std::max<u64>(work, 1);
    done_ = 0;
    report_ = std::move(report);
  }

  // Call with the amount of work done since the last call, in units of about a microsecond or less.
  void operator()(u64 work = 1) {
    pending_ += work;
    if (UNSPOOL_LIKELY(pending_ < 4096)) return;
    done_ += pending_;
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
    if (report_ && now - reported_ >= std::chrono::milliseconds(100)) {
      reported_ = now;
      report_(std::min(0.99, static_cast<double>(done_) / static_cast<double>(expected_)));
    }
  }
  u64 pending_ = 0, done_ = 0, expected_ = 1;
  std::function<void(double)> report_;
  Clock::time_point last_ = Clock::now(), reported_ = last_;
};

}  // namespace unspool
