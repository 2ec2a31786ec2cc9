#include "team.hpp"

#include <algorithm>
#include <system_error>
#include <thread>

#if !defined(_WIN32)
#include <dlfcn.h>
#include <pthread.h>
#endif

namespace unspool {

namespace {

constexpr int kLooks = 20000;  // some hundred microseconds

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
  asm volatile("yield");
#endif
}

std::atomic<bool> g_forked{false};
std::atomic<bool> g_share{true};

// void GOMP_parallel(void (*)(void*), void*, unsigned threads, unsigned flags): how GCC enters a
// parallel region. Its first caller makes the pool that later regions of the same thread find.
using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

Parallel openmp() {
#if defined(__linux__)
  static std::atomic<Parallel> found{nullptr};
  Parallel parallel = found.load(std::memory_order_relaxed);
  if (!parallel) {  // it may be loaded later
    parallel = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    found.store(parallel, std::memory_order_relaxed);
  }
  return g_share.load(std::memory_order_relaxed) ? parallel : nullptr;
#else
  return nullptr;
#endif
}

struct Shared {
  void (*call)(void*, std::uint32_t);
  void* argument;
  std::uint32_t items;
  std::atomic<std::uint32_t> next{0};
};

void take_part(void* data) {
  auto& shared = *static_cast<Shared*>(data);
  for (std::uint32_t i; (i = shared.next.fetch_add(1, std::memory_order_relaxed)) < shared.items;)
    shared.call(shared.argument, i);
}

}  // namespace

Team& Team::shared() {
  static Team* team = [] {
#if !defined(_WIN32)
    pthread_atfork(nullptr, nullptr, [] { g_forked.store(true); });
#endif
    return new Team;
  }();
  return *team;
}

void Team::share(bool shared) { g_share.store(shared); }

bool Team::claim(std::uint32_t generation, std::uint32_t items, std::uint32_t& item) {
  std::uint64_t now = ticket_.load(std::memory_order_acquire);
  while (static_cast<std::uint32_t>(now >> 32) == generation) {
    item = static_cast<std::uint32_t>(now);
    if (item >= items) return false;
    if (ticket_.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel)) return true;
  }
  return false;
}

void Team::run_items(std::uint32_t threads, std::uint32_t items, Call call, void* argument) {
  const auto alone = [&] {
    for (std::uint32_t i = 0; i < items; ++i) call(argument, i);
  };
  threads = std::min(threads, items);
  if (threads < 2 || g_forked.load(std::memory_order_relaxed)) return alone();
  if (const Parallel parallel = openmp()) {
    Shared shared{call, argument, items};
    return parallel(take_part, &shared, threads, 0);
  }
  std::unique_lock lock(mutex_, std::defer_lock);
  if (!lock.try_lock()) return alone();
  start(threads - 1);
  if (started_ == 0) return alone();
  const std::uint32_t generation = generation_.load(std::memory_order_relaxed) + 1;
  call_.store(call, std::memory_order_relaxed);
  argument_.store(argument, std::memory_order_relaxed);
  items_.store(items, std::memory_order_relaxed);
  wanted_.store(threads - 1, std::memory_order_relaxed);
  done_.store(0, std::memory_order_relaxed);
  ticket_.store(static_cast<std::uint64_t>(generation) << 32, std::memory_order_release);
  generation_.store(generation);  // in one order with `sleeping_`: nobody sleeps through it
  if (sleeping_.load() != 0) generation_.notify_all();
  std::uint32_t item;
  while (claim(generation, items, item)) {
    call(argument, item);
    done_.fetch_add(1, std::memory_order_acq_rel);
  }
  for (int looks = 0; done_.load(std::memory_order_acquire) != items; ++looks) {
    if (looks < kLooks)
      pause();
    else
      std::this_thread::yield();
  }
}

void Team::start(std::uint32_t threads) {
  try {
    while (started_ < threads) {
      const std::uint32_t number = started_;
      std::thread([this, number] { serve(number); }).detach();
      ++started_;
    }
  } catch (const std::system_error&) {
    // No more threads are to be had: those that there are do the work.
  }
}

void Team::serve(std::uint32_t number) {
  std::uint32_t seen = 0;
  while (true) {
    std::uint32_t now = generation_.load(std::memory_order_acquire);
    for (int looks = 0; now == seen; ++looks) {
      if (looks < kLooks) {
        pause();
      } else {
        sleeping_.fetch_add(1);
        generation_.wait(seen);
        sleeping_.fetch_sub(1);
      }
      now = generation_.load(std::memory_order_acquire);
    }
    seen = now;
    if (number >= wanted_.load(std::memory_order_relaxed)) continue;
    const Call call = call_.load(std::memory_order_relaxed);
    void* argument = argument_.load(std::memory_order_relaxed);
    const std::uint32_t items = items_.load(std::memory_order_relaxed);
    // An item of this generation can be claimed only while its call is not over, so what was read
    // above belongs to it.
    for (std::uint32_t item; claim(now, items, item);) {
      call(argument, item);
      done_.fetch_add(1, std::memory_order_acq_rel);
    }
  }
}

}  // namespace unspool
