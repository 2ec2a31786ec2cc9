// The longest matches of texts over all shards of a tier: of their ends, and of each of their starts.
//
// Source: the ∞-gram's back-off and "creativity" of Liu et al. (2024), "Infini-gram". Departures: the
// back-off tries several lengths of many texts side by side; starts are searched side by side too, and
// one whose match is long is followed by itself, past which only maximal matches are searched.
// Cost: back-off two or three rounds of at most four searches a text; all starts O(sum of m log m)
// steps over the lengths m of the maximal matches, so a text copied whole costs one pass.
#pragma once
#include <algorithm>
#include <memory>
#include <vector>

#include "poll.hpp"
#include "query.hpp"

namespace unspool {

template <class Shard>
using Shards = std::vector<std::unique_ptr<Shard>>;

// The dense symbols of some texts, which are not the same in every shard.
class DenseTexts {
 public:
  // `encode(text, shard, out)` writes the symbols of a text of length(text).
  template <class Length, class Encode>
  DenseTexts(u64 texts, u64 shards, Length length, Encode encode) : shards_(shards) {
    starts_.reserve(texts + 1);
    u64 total = 0;
    for (u64 t = 0; t < texts; ++t) {
      starts_.push_back(total);
      total += length(t) * shards;
    }
    starts_.push_back(total);
    symbols_.resize(std::max<u64>(total, 1));
    for (u64 t = 0; t < texts; ++t)
      for (u64 s = 0; s < shards; ++s) encode(t, s, symbols_.data() + starts_[t] + s * length(t));
  }
  u64 size() const { return starts_.size() - 1; }
  u64 length(u64 t) const { return (starts_[t + 1] - starts_[t]) / shards_; }
  const u32* text(u64 t, u64 shard) const {
    return symbols_.data() + starts_[t] + shard * length(t);
  }

 private:
  u64 shards_;
  std::vector<u64> starts_;
  std::vector<u32> symbols_;
};

inline u64 total(const Rows* rows, u64 shards) {
  u64 sum = 0;
  for (u64 s = 0; s < shards; ++s) sum += rows[s].count();
  return sum;
}

// The longest suffix of each text that occurs in some shard: its length, and its rows in each shard,
// rows[text][shard]. Whether a suffix occurs is monotone in its length, so a few lengths are tried
// side by side, further and further out, then inside the gap.
template <class Shard>
void longest_suffixes(const Shards<Shard>& shards, const DenseTexts& texts, u64* lengths, Rows* rows,
                      Poll& poll) {
  constexpr u64 kSideBySide = 4, kFirstReach = 16, kFurther = 4;
  const u64 k = shards.size();
  struct Search {
    u64 text, yes, no, reach, tries, tried[kSideBySide];
  };
  std::vector<Search> active;
  for (u64 t = 0; t < texts.size(); ++t) {
    for (u64 s = 0; s < k; ++s)
      rows[t * k + s] = {shards[s]->all_rows_begin(), shards[s]->num_rows()};
    const u64 n = texts.length(t);
    active.push_back({t, 0, n + 1, std::min(n, kFirstReach), 0, {}});
  }
  std::vector<Find<Shard>> finds;
  for (;;) {
    std::erase_if(active, [&](const Search& a) {
      lengths[a.text] = a.yes;
      return a.no - a.yes <= 1;
    });
    if (active.empty()) return;
    finds.clear();
    for (Search& a : active) {
      const u64 n = texts.length(a.text), top = std::min(a.no - 1, a.reach);
      a.tries = std::min(kSideBySide, top - a.yes);
      for (u64 t = 0; t < a.tries; ++t) {
        a.tried[t] = a.yes + (top - a.yes) * (t + 1) / a.tries;
        for (u64 s = 0; s < k; ++s)
          finds.push_back({shards[s].get(), texts.text(a.text, s) + (n - a.tried[t]), a.tried[t]});
      }
    }
    Shard::find_many(finds.data(), finds.size(), poll);
    const Find<Shard>* found = finds.data();
    for (Search& a : active) {
      for (u64 t = 0; t < a.tries; ++t) {
        u64 count = 0;
        for (u64 s = 0; s < k; ++s) count += found[t * k + s].hi - found[t * k + s].lo;
        if (!count) {
          a.no = a.tried[t];
          break;
        }
        a.yes = a.tried[t];
        for (u64 s = 0; s < k; ++s)
          rows[a.text * k + s] = {found[t * k + s].lo, found[t * k + s].hi};
      }
      found += a.tries * k;
      if (a.yes == a.reach) a.reach = std::min(texts.length(a.text), kFurther * a.reach);
    }
  }
}

// The longest matches of all starts of one text: for each start the length, and the count of that
// match where it is maximal (reaches past those of all starts before it), else -1.
template <class Shard>
class LongestMatches {
 public:
  LongestMatches(const Shards<Shard>& shards, const DenseTexts& text, i64* lengths, i64* counts,
                 Poll& poll)
      : shards_(shards), text_(text), n_(text.length(0)), lengths_(lengths), counts_(counts), poll_(poll) {}

  void run() {
    u64 next = 0, width = 8;
    while (next < n_) {
      const u64 done = side_by_side(next, std::min(n_, next + width));
      next = done;
      if (long_) {
        // From here to the end of this match every start that still occurs ends where it does: the
        // next maximal match begins at the first start whose match covers one symbol more.
        next = follow(done);
        width = 8;
      } else {
        width = std::min<u64>(2 * width, 128);
      }
    }
  }

 private:
  // Longer matches are followed by themselves; a text that was copied whole is not read once a start.
  static constexpr u64 kLong = 64;

  // Starts [begin, end), or up to the first one whose match is long.
  u64 side_by_side(u64 begin, u64 end) {
    finds_.clear();
    for (u64 l = begin; l < end; ++l) push(l, std::min(kLong, n_ - l), true);
    search();
    long_ = false;
    u64 l = begin;
    asked_.clear();
    for (; l < end && !long_; ++l) {
      u64 match = 0;
      for (u64 s = 0; s < k(); ++s) match = std::max(match, finds_[(l - begin) * k() + s].matched);
      if (match == kLong && l + match < n_) {
        long_ = true;
        break;
      }
      set(l, match);
    }
    count_maximal();
    return l;
  }

  // The match of start l, which is long; the start of the next maximal match.
  u64 follow(u64 l) {
    finds_.clear();
    push(l, n_ - l, true);
    search();
    u64 match = 0;
    for (const auto& f : finds_) match = std::max(match, f.matched);
    asked_.clear();
    set(l, match);
    count_maximal();
    const u64 r = l + match;
    u64 start = n_;
    if (r < n_) {
      u64 yes = r + 1, no = l;  // text[yes, r + 1) occurs (empty at first), text[no, r + 1) does not
      for (u64 step = 1; yes > no + 1; step *= 2) {
        const u64 at = step < yes - no ? yes - step : no + 1;
        if (!occurs(at, r + 1)) {
          no = at;
          break;
        }
        yes = at;
      }
      while (yes > no + 1) {
        const u64 mid = (yes + no) / 2;
        (occurs(mid, r + 1) ? yes : no) = mid;
      }
      start = yes;
    }
    start = std::min(start, n_);
    for (u64 i = l + 1; i < start; ++i) set(i, i < r ? r - i : 0);
    return start;
  }

  bool occurs(u64 begin, u64 end) {
    finds_.clear();
    push(begin, end - begin, false);
    search();
    for (const auto& f : finds_)
      if (f.hi > f.lo) return true;
    return false;
  }

  void set(u64 l, u64 match) {
    lengths_[l] = static_cast<i64>(match);
    counts_[l] = -1;
    if (l + match <= reach_) return;
    reach_ = l + match;
    if (match) asked_.push_back(l);
  }
  void count_maximal() {
    finds_.clear();
    for (const u64 l : asked_) push(l, static_cast<u64>(lengths_[l]), false);
    search();
    for (u64 a = 0; a < asked_.size(); ++a) {
      u64 count = 0;
      for (u64 s = 0; s < k(); ++s) count += finds_[a * k() + s].hi - finds_[a * k() + s].lo;
      counts_[asked_[a]] = static_cast<i64>(count);
    }
  }

  u64 k() const { return shards_.size(); }
  void push(u64 begin, u64 length, bool partly) {
    for (u64 s = 0; s < k(); ++s)
      finds_.push_back({shards_[s].get(), text_.text(0, s) + begin, length, partly});
  }
  void search() { Shard::find_many(finds_.data(), finds_.size(), poll_); }

  const Shards<Shard>& shards_;
  const DenseTexts& text_;
  u64 n_;
  i64 *lengths_, *counts_;
  Poll& poll_;
  std::vector<Find<Shard>> finds_;
  std::vector<u64> asked_;  // starts whose match is to be counted
  u64 reach_ = 0;           // end of the furthest match so far
  bool long_ = false;
};

}  // namespace unspool
