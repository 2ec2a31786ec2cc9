#include "team.hpp"

#include <system_error>
#include <thread>

#if defined(_WIN32)
#include <process.h>
#else
#include <unistd.h>
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

std::int64_t process_id() {
#if defined(_WIN32)
  return _getpid();
#else
  return getpid();
#endif
}

}  // namespace

Team& Team::shared() {
  static Team* team = new Team;
  return *team;
}

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
  std::unique_lock lock(mutex_, std::defer_lock);
  if (threads < 2 || items < 2 || !lock.try_lock()) {
    for (std::uint32_t i = 0; i < items; ++i) call(argument, i);
    return;
  }
  start(threads - 1);
  if (started_ == 0) {
    for (std::uint32_t i = 0; i < items; ++i) call(argument, i);
    return;
  }
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
  const std::int64_t process = process_id();
  if (process_ == 0) process_ = process;
  if (process_ != process) {  // a child of fork: the threads stayed with the parent
    started_ = 0;
    return;
  }
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
