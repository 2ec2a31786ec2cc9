// Threads that wait for the next of many short pieces of work.
//
// A layer of a small decoder is some ten microseconds of work on each processor: less than a thread
// takes to start (threads.hpp), so these stay. Where the process has loaded GNU OpenMP, as PyTorch
// does on Linux, they are OpenMP's: two pools that look for work at once would take turns on the
// same processors. Elsewhere they are our own, which look for work for a moment and then sleep; they
// are started by the first work that wants them and never by an import. A child of fork has none of
// either and works alone.
#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>
#include <type_traits>

namespace unspool {

class Team {
 public:
  // The one team of the process. It is never destroyed: its threads end with the process.
  static Team& shared();

  // Whether to use OpenMP's threads where there are some; for tests.
  static void share(bool shared);

  // Calls f(item) for every item in [0, items), on at most `threads` threads; returns when all are
  // done. `f` must not throw. Where another thread holds the team, the caller does all of it.
  template <class F>
  void run(std::uint32_t threads, std::uint32_t items, F&& f) {
    run_items(threads, items, [](void* p, std::uint32_t i) {
      (*static_cast<std::remove_reference_t<F>*>(p))(i);
    }, &f);
  }

 private:
  using Call = void (*)(void*, std::uint32_t);

  void run_items(std::uint32_t threads, std::uint32_t items, Call call, void* argument);
  bool claim(std::uint32_t generation, std::uint32_t items, std::uint32_t& item);
  void start(std::uint32_t threads);
  void serve(std::uint32_t number);

  std::mutex mutex_;
  std::uint32_t started_ = 0;  // beside the caller
  // Generation in the upper half, next item in the lower: an item is claimed of a known generation.
  alignas(64) std::atomic<std::uint64_t> ticket_{0};
  alignas(64) std::atomic<std::uint32_t> done_{0};
  alignas(64) std::atomic<std::uint32_t> generation_{0};
  std::atomic<std::uint32_t> sleeping_{0};
  std::atomic<std::uint32_t> items_{0};
  std::atomic<std::uint32_t> wanted_{0};
  std::atomic<Call> call_{nullptr};
  std::atomic<void*> argument_{nullptr};
};

}  // namespace unspool
