// Splits a long batch over the processors; every thread has ended when the call returns.
//
// A thread is started only for work of some hundred microseconds, so starting one (about 30) costs
// little, and a process that forks, or embeds the engine, is left with no thread of ours.
#pragma once
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "poll.hpp"

namespace unspool {

// Processors that this process may run on, or fewer where UNSPOOL_THREADS says so; at least 1.
u64 num_threads();
// Set from Python; 0: as by default.
void set_threads(u64 threads);

namespace detail {
struct Stopped {};  // another thread's piece has failed
inline thread_local const std::atomic<bool>* stop = nullptr;
inline void check_stop() {
  if (stop->load(std::memory_order_relaxed)) throw Stopped{};
}
}  // namespace detail

// Calls f(begin, end, poll) for pieces of [0, n) that hold at most `most`, on several threads where
// each gets at least `least`. The first exception ends the other threads and is thrown here; signals
// are handled by the calling thread, the deadline is everyone's.
template <class F>
void in_pieces(u64 n, u64 least, u64 most, F f) {
  const u64 threads = std::max<u64>(1, std::min(num_threads(), n / least));
  const u64 piece = std::min(most, ceil_div(n, threads));
  std::atomic<u64> next{0};
  std::atomic<bool> stop{false};
  std::exception_ptr failed;
  std::mutex mutex;
  const auto work = [&] {
    try {
      Poll poll;
      for (u64 begin; !stop.load(std::memory_order_relaxed) &&
                      (begin = next.fetch_add(piece, std::memory_order_relaxed)) < n;)
        f(begin, std::min(n, begin + piece), poll);
    } catch (const detail::Stopped&) {
    } catch (...) {
      std::lock_guard lock(mutex);
      if (!failed) failed = std::current_exception();
      stop = true;
    }
  };
  std::vector<std::thread> others;
  const Clock::time_point deadline = Poll::deadline;
  try {
    others.reserve(threads - 1);
    while (others.size() + 1 < threads)
      others.emplace_back([&] {
        Poll::deadline = deadline;
        Poll::check_signals = detail::check_stop;
        detail::stop = &stop;
        work();
      });
  } catch (const std::system_error&) {
    // No more threads are to be had: those that there are do the work.
  }
  work();
  for (std::thread& other : others) other.join();
  if (failed) std::rethrow_exception(failed);
}

}  // namespace unspool
