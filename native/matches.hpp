// The longest matches of a text over all shards of a tier: of its end, and of each of its starts.
//
// Source: the ∞-gram's back-off and "creativity" of Liu et al. (2024), "Infini-gram". Departures: the
// back-off tries several lengths side by side; of all starts only maximal matches are searched.
// Cost: back-off two or three rounds of at most eight searches; all starts O(sum of m log m) steps
// over the lengths m of the maximal matches, so a text copied whole costs one pass.
#pragma once
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "poll.hpp"
#include "query.hpp"

namespace unspool {

// The rows of one context in each shard.
struct Context {
  std::vector<std::pair<u64, u64>> ranges;
  u64 count() const {
    u64 sum = 0;
    for (const auto& [lo, hi] : ranges) sum += hi - lo;
    return sum;
  }
};

template <class Shard>
using Shards = std::vector<std::unique_ptr<Shard>>;
// The dense symbols of a text, by shard.
using DenseText = std::vector<std::vector<u32>>;

// Rows of the empty context.
template <class Shard>
Context everything(const Shards<Shard>& shards) {
  Context out;
  for (const auto& s : shards) out.ranges.emplace_back(s->all_rows_begin(), s->num_rows());
  return out;
}

// The longest suffix that occurs in some shard. Whether a suffix occurs is monotone in its length,
// so a few lengths are tried side by side, further and further out, then inside the gap.
template <class Shard>
Context longest_suffix_rows(const Shards<Shard>& shards, const DenseText& dense, u64 n, u64* length,
                            Poll& poll) {
  constexpr u64 kSideBySide = 8;
  const u64 k = shards.size();
  Context best = everything(shards);
  u64 yes = 0, no = n + 1, reach = std::min<u64>(n, 32);
  std::vector<Find<Shard>> finds;
  while (no - yes > 1) {
    const u64 top = std::min(no - 1, reach);
    const u64 tries = std::min(kSideBySide, top - yes);
    u64 tried[kSideBySide];
    finds.clear();
    for (u64 t = 0; t < tries; ++t) {
      tried[t] = yes + (top - yes) * (t + 1) / tries;
      for (u64 s = 0; s < k; ++s)
        finds.push_back({shards[s].get(), dense[s].data() + (n - tried[t]), tried[t]});
    }
    Shard::find_many(finds.data(), finds.size(), poll);
    for (u64 t = 0; t < tries; ++t) {
      u64 count = 0;
      for (u64 s = 0; s < k; ++s) count += finds[t * k + s].hi - finds[t * k + s].lo;
      if (!count) {
        no = tried[t];
        break;
      }
      yes = tried[t];
      for (u64 s = 0; s < k; ++s) best.ranges[s] = {finds[t * k + s].lo, finds[t * k + s].hi};
    }
    if (yes == reach) reach = std::min(n, 8 * reach);
  }
  *length = yes;
  return best;
}

// For each start of a text of n symbols the length of its longest match, and the count of that match
// where it is maximal, else -1. From a maximal match [l, r) the next one starts at the smallest l' in
// (l, r] whose match covers symbol r; the starts between them end at r as well.
template <class Shard>
void longest_matches(const Shards<Shard>& shards, const DenseText& dense, u64 n, i64* lengths,
                     i64* counts, Poll& poll) {
  const u64 k = shards.size();
  std::vector<Find<Shard>> finds(k);
  std::vector<Extend<Shard>> steps(k);
  const auto occurs = [&](u64 begin, u64 end, Context& context) {
    for (u64 s = 0; s < k; ++s) finds[s] = {shards[s].get(), dense[s].data() + begin, end - begin};
    Shard::find_many(finds.data(), k, poll);
    context.ranges.resize(k);
    for (u64 s = 0; s < k; ++s) context.ranges[s] = {finds[s].lo, finds[s].hi};
    return context.count() > 0;
  };
  Context here = everything(shards), found, probe;  // here: the matches of text[l, r)
  u64 l = 0, r = 0;
  while (l < n) {
    for (; r < n; ++r) {
      for (u64 s = 0; s < k; ++s)
        steps[s] = {shards[s].get(), dense[s][r], r - l, here.ranges[s].first, here.ranges[s].second};
      Shard::extend_many(steps.data(), k);
      u64 left = 0;
      for (const auto& step : steps) left += step.hi - step.lo;
      poll(2);
      if (!left) break;
      for (u64 s = 0; s < k; ++s) here.ranges[s] = {steps[s].lo, steps[s].hi};
    }
    lengths[l] = static_cast<i64>(r - l);
    counts[l] = r > l ? static_cast<i64>(here.count()) : -1;
    u64 start = n;
    if (r < n) {
      u64 yes = r + 1, no = l;  // text[yes, r + 1) occurs (empty at first), text[no, r + 1) does not
      for (u64 step = 1; yes > no + 1; step *= 2) {
        const u64 at = step < yes - no ? yes - step : no + 1;
        if (!occurs(at, r + 1, probe)) {
          no = at;
          break;
        }
        yes = at;
        std::swap(found, probe);
      }
      while (yes > no + 1) {
        const u64 mid = (yes + no) / 2;
        if (occurs(mid, r + 1, probe)) {
          yes = mid;
          std::swap(found, probe);
        } else {
          no = mid;
        }
      }
      start = yes;
    }
    for (u64 i = l + 1; i < std::min(start, n); ++i) {
      lengths[i] = i < r ? static_cast<i64>(r - i) : 0;
      counts[i] = -1;
    }
    here = start <= r ? found : everything(shards);
    l = start;
    ++r;  // symbol r is covered by the match that starts at l, or is left behind
  }
}

}  // namespace unspool
