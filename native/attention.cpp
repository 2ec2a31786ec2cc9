#include "attention.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "poll.hpp"
#include "team.hpp"

namespace unspool::attention {

namespace {

// A list is cut here, for few rows: the parts then occupy several threads. The same whatever the
// number of threads, so that the sums are the same bits.
constexpr i64 kPart = 4096;
// Multiplications below which waking threads takes longer than the work.
constexpr i64 kSmall = 1'000'000;

// Room for the matrices of a tile, kept by each thread.
char* scratch_for(const Problem& p) {
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  static thread_local std::unique_ptr<char, Free> kept;
  static thread_local u64 size = 0;
  const i64 widths = p.head_dim + p.value_dim + p.k_width + p.v_width + 32;
  // Three times over for gradients, with padding to whole cache lines.
  const i64 bytes = 4 * (3 * widths + 2 * (kKeys + 16)) * kRows + 8 * widths + (64 << 10);
  const u64 wanted = round_up(static_cast<u64>(bytes), 64);
  if (size < wanted) {
    size = 0;
    kept.reset(static_cast<char*>(std::aligned_alloc(64, wanted)));
    if (!kept) throw std::bad_alloc();
    size = wanted;
  }
  return kept.get();
}

struct Stopped {};  // another thread's item has failed

// Calls f(item, check) for every item, on at most so many threads; `check` throws where the call is
// to end. The first exception ends the others and is thrown here; signals are the caller's, the
// deadline is everyone's.
template <class F>
void share_out(u64 threads, u64 items, F f) {
  Poll poll;
  const std::thread::id caller = std::this_thread::get_id();
  const Clock::time_point deadline = Poll::deadline;
  std::atomic<bool> stop{false};
  std::exception_ptr failed;
  std::mutex mutex;
  Team::shared().run(static_cast<u32>(threads), static_cast<u32>(items), [&](u32 item) {
    if (stop.load(std::memory_order_relaxed)) return;
    const bool own = std::this_thread::get_id() == caller;
    try {
      f(item, [&] {
        if (stop.load(std::memory_order_relaxed)) throw Stopped{};
        if (own)
          poll(4096);
        else if (Clock::now() >= deadline)
          throw Deadline("The deadline of this call has passed.");
      });
    } catch (const Stopped&) {
    } catch (...) {
      std::lock_guard lock(mutex);
      if (!failed) failed = std::current_exception();
      stop = true;
    }
  });
  if (failed) std::rethrow_exception(failed);
}

// Query heads of a key-value head whose lists are the same.
i64 sharing(const Problem& p) {
  const i64 group = p.heads / p.kv_heads;
  if (!p.indices) return group;
  const i64 same = p.heads / p.list_heads;
  return same % group == 0 ? group : group % same == 0 ? same : 1;
}

i64 list_end(const Problem& p, const Tile& tile) {
  if (!p.indices) return static_cast<i64>(ceil_div(p.keys, kKeys));
  const i64 batch = p.list_batches == 1 ? 0 : tile.batch;
  const i64 head = tile.head * p.list_heads / p.heads;
  const i64 count =
      p.counts[(batch * p.list_heads + head) * p.list_rows + tile.query / p.block_q];
  return std::clamp<i64>(count, 0, p.list_length);
}

// Calls f(tile) for the tiles of one key-value head, in order.
template <class F>
void tiles_of(const Problem& p, i64 batch, i64 kv_head, F f) {
  const i64 group = p.heads / p.kv_heads, shared = sharing(p);
  const i64 block = p.indices ? std::min(p.block_q, p.queries) : p.queries;
  for (i64 first = 0; first < group; first += shared) {
    // Heads that meet the same keys go together where their queries leave room for them.
    const i64 heads = std::clamp<i64>(kRows / std::min(kRows, block), 1, shared);
    for (i64 head = first; head < first + shared; head += heads)
      for (i64 start = 0; start < p.queries; start += block)
        for (i64 query = start; query < std::min(p.queries, start + block);) {
          Tile tile{batch, kv_head, kv_head * group + head, std::min(heads, first + shared - head),
                    query, 1, 0, 0, nullptr};
          const i64 left = std::min(p.queries, start + block) - query;
          tile.count = std::min(left, kRows / tile.heads);
          tile.end = list_end(p, tile);
          f(tile);
          query += tile.count;
        }
  }
}

// Joins the parts of a tile's rows by their maxima and sums.
void join(const Problem& p, const Tile& tile, const float* parts, i64 num_parts) {
  const i64 size = partial_size(p), width = p.value_dim;
  std::vector<float> values(static_cast<std::size_t>(width));
  for (i64 row = 0; row < tile.rows(); ++row) {
    const auto part = [&](i64 i) { return parts + (i * tile.rows() + row) * size; };
    float top = kNothing, total = 0;
    for (i64 i = 0; i < num_parts; ++i) top = std::max(top, part(i)[width]);
    std::fill(values.begin(), values.end(), 0.0f);
    const bool blind = top <= kNothing / 2;
    for (i64 i = 0; i < num_parts && !blind; ++i) {
      const float weight = std::exp2(part(i)[width] - top);
      total += weight * part(i)[width + 1];
      for (i64 d = 0; d < width; ++d) values[static_cast<std::size_t>(d)] += weight * part(i)[d];
    }
    const i64 head = tile.head + row / tile.count, query = tile.query + row % tile.count;
    const i64 at = tile.batch * p.out_strides.batch + head * p.out_strides.head +
                   query * p.out_strides.row;
    for (i64 d = 0; d < width; ++d) {
      const float value = blind ? 0.0f : values[static_cast<std::size_t>(d)] / total;
      if (p.half)
        static_cast<u16*>(p.out)[at + d] = to_bfloat16(value);
      else
        static_cast<float*>(p.out)[at + d] = value;
    }
    p.lse[(tile.batch * p.heads + head) * p.queries + query] =
        blind ? -INFINITY : static_cast<float>(top * 0.69314718056 + std::log(total));
  }
}

}  // namespace

const Kernels& kernels(const std::string& name) {
  std::string found;
  for (const Kernels* one : {avx512_bf16(), avx512(), avx2(), &portable()}) {
    if (one && (name.empty() || name == one->name)) return *one;
    if (one) found += std::string(found.empty() ? "" : ", ") + one->name;
  }
  throw BadQuery("This processor has no attention kernels named " + name + ", but " + found + ".");
}

void forward(const Problem& p, const Kernels& use, u64 threads) {
  struct Work {
    Tile tile;
    i64 parts;       // of its list
    std::size_t at;  // of its parts in the store
  };
  std::vector<Work> work;
  std::vector<Tile> pieces;
  std::size_t store = 0;
  i64 pairs = 0;
  const i64 keys_each = p.indices ? p.block_k : kKeys;
  const i64 per_part = std::max<i64>(1, kPart / keys_each);
  for (i64 batch = 0; batch < p.batch; ++batch)
    for (i64 head = 0; head < p.kv_heads; ++head)
      tiles_of(p, batch, head, [&](const Tile& tile) {
        const bool few = 2 * tile.rows() <= use.lanes;
        const i64 cut = static_cast<i64>(ceil_div(tile.end, per_part));
        const i64 parts = few ? std::max<i64>(1, cut) : 1;
        work.push_back({tile, parts, store});
        pairs += tile.end * keys_each * tile.rows();
        for (i64 part = 0; part < parts; ++part) {
          pieces.push_back(tile);
          if (parts == 1) continue;
          pieces.back().begin = part * per_part;
          pieces.back().end = std::min(tile.end, (part + 1) * per_part);
        }
        if (parts > 1) store += static_cast<std::size_t>(parts * tile.rows() * partial_size(p));
      });
  std::vector<float> parts(store);
  std::size_t next = 0;
  for (const Work& w : work)
    for (i64 part = 0; part < w.parts; ++part, ++next)
      if (w.parts > 1)
        pieces[next].partial =
            parts.data() + w.at +
            static_cast<std::size_t>(part * w.tile.rows() * partial_size(p));
  if (pairs * (p.head_dim + p.value_dim) < kSmall) threads = 1;
  share_out(threads, pieces.size(), [&](u32 item, auto check) {
    const bool few = 2 * pieces[item].rows() <= use.lanes;
    (few ? use.few : use.tile)(p, pieces[item], scratch_for(p));
    check();
  });
  for (const Work& w : work)
    if (w.parts > 1) join(p, w.tile, parts.data() + w.at, w.parts);
}

void backward(const Problem& p, const Kernels& use, u64 threads) {
  // One key-value head is one thread's: its tiles add to the same gradients, always in this order.
  share_out(threads, static_cast<u64>(p.batch * p.kv_heads), [&](u32 item, auto check) {
    tiles_of(p, item / p.kv_heads, item % p.kv_heads, [&](const Tile& tile) {
      use.gradients(p, tile, scratch_for(p));
      check();
    });
  });
}

}  // namespace unspool::attention
