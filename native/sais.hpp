// Suffix arrays by induced sorting, in linear time whatever the text repeats.
//
// Source: Nong, Zhang and Chan (2009), "Linear suffix array construction by almost pure induced
// sorting". Departures: an entry's sign tells whether the suffix before it is of the type that the
// running pass induces, so a step reads the text once (two neighbouring symbols); the text is
// prefetched along the array; the recursion takes its counters from the free middle of the array.
// Shapes: T[0, n) with T[n - 1] == 0 the only 0 and symbols < K; SA[0, n).
// Memory: T, SA and 2 K counters; below the top level counters that do not fit the free middle of
// SA are allocated (at most n / 2 of them).
#pragma once
#include <algorithm>
#include <memory>
#include <vector>

#include "base.hpp"
#include "poll.hpp"

namespace unspool {

template <class Symbol, class Int>
class InducedSort {
 public:
  // `free`/`free_size`: unused memory that may hold counters.
  InducedSort(const Symbol* text, Int* sa, Int n, Int alphabet, Int* free, Int free_size, Poll& poll)
      : T(text), SA(sa), n_(n), K(alphabet), poll_(poll) {
    if (2 * static_cast<i64>(K) <= free_size) {
      count_ = free;
      bucket_ = free + K;
    } else {
      own_ = std::make_unique_for_overwrite<Int[]>(static_cast<std::size_t>(K));
      bucket_ = own_.get();
    }
  }

  void sort() {
    if (n_ == 1) {
      SA[0] = 0;
      return;
    }
    if (count_) count_symbols(count_);
    const Int m = sort_lms_substrings();
    const Int names = name_lms_substrings(m);
    if (names < m) sort_reduced(m, names);
    induce_from_sorted_lms(m);
  }

 private:
  static constexpr Int kAhead = 24;  // array entries whose text is fetched ahead of use

  const Symbol* T;
  Int* SA;
  const Int n_, K;
  Poll& poll_;
  Int* count_ = nullptr;   // symbols of each value; null: counted again for each pass
  Int* bucket_ = nullptr;  // heads or tails of the buckets
  std::unique_ptr<Int[]> own_;

  void count_symbols(Int* out) {
    std::fill(out, out + K, Int{0});
    for (Int i = 0; i < n_; ++i) ++out[T[i]];
    poll_(static_cast<u64>(n_) / 512);
  }
  void set_buckets(bool tails) {
    const Int* count = count_;
    if (!count) {
      count_symbols(bucket_);
      count = bucket_;
    }
    Int sum = 0;
    for (Int c = 0; c < K; ++c) {
      const Int here = count[c];
      sum += here;
      bucket_[c] = tails ? sum : sum - here;
    }
  }

  // Calls f(position) for each LMS position, from right to left, the sentinel first.
  template <class F>
  void each_lms(F f) const {
    f(n_ - 1);
    bool s_type = true;  // type of position i + 1
    for (Int i = n_ - 2; i >= 0; --i) {
      const bool s = T[i] < T[i + 1] || (T[i] == T[i + 1] && s_type);
      if (!s && s_type && i + 1 < n_ - 1) f(i + 1);
      s_type = s;
    }
  }

  void fetch(Int i) const {
    const Int j = SA[i];
    if (j > 0) prefetch(T + (j > 1 ? j - 2 : 0));
  }

  // Writes where buckets are far apart: fetch the place that entry i will write to.
  void fetch_target(Int i, Int shift) const {
    if constexpr (sizeof(Symbol) > 1) {
      const Int j = SA[i];
      if (j > 0) prefetch_write(SA + std::max<Int>(0, bucket_[T[j - 1]] - shift));
    }
  }
  void fetch_bucket(Int i) const {
    if constexpr (sizeof(Symbol) > 1) {
      const Int j = SA[i];
      if (j > 0) prefetch_write(bucket_ + T[j - 1]);
    }
  }

  template <class F>
  void forward(F step) {
    const Int fast = n_ > 3 * kAhead ? n_ - 3 * kAhead : 0;
    Int i = 0;
    while (i < fast) {
      const Int stop = std::min<Int>(fast, i + (Int{1} << 16));
      for (; i < stop; ++i) {
        fetch(i + 3 * kAhead);
        fetch_bucket(i + 2 * kAhead);
        fetch_target(i + kAhead, 0);
        step(i);
      }
      poll_(512);
    }
    for (; i < n_; ++i) step(i);
  }
  template <class F>
  void backward(F step) {
    const Int slow = std::min<Int>(n_, 3 * kAhead);
    Int i = n_ - 1;
    while (i >= slow) {
      const Int stop = std::max<Int>(slow, i - (Int{1} << 16));
      for (; i >= stop; --i) {
        fetch(i - 3 * kAhead);
        fetch_bucket(i - 2 * kAhead);
        fetch_target(i - kAhead, 1);
        step(i);
      }
      poll_(512);
    }
    for (; i >= 0; --i) step(i);
  }

  // Leaves the LMS positions in SA[0, m), sorted by their LMS substrings.
  Int sort_lms_substrings() {
    std::fill(SA, SA + n_, Int{0});
    set_buckets(true);
    Int m = 0;
    each_lms([&](Int p) {
      SA[--bucket_[T[p]]] = p;
      ++m;
    });
    poll_(static_cast<u64>(n_) / 256);

    // Only the L suffixes with an S suffix before them are kept: they seed the next pass.
    set_buckets(false);
    forward([this](Int i) {
      const Int j = SA[i];
      if (j > 0) {
        SA[i] = 0;
        const Int k = j - 1;
        const Symbol c = T[k];
        if (k > 0) SA[bucket_[c]++] = T[k - 1] < c ? ~k : k;
      } else if (j < 0) {
        SA[i] = ~j;
      }
    });
    // Only the S suffixes with an L suffix before them (LMS) are kept, as negative entries.
    set_buckets(true);
    backward([this](Int i) {
      const Int j = SA[i];
      if (j > 0) {
        SA[i] = 0;
        const Int k = j - 1;
        const Symbol c = T[k];
        if (k > 0) SA[--bucket_[c]] = T[k - 1] > c ? ~k : k;
      }
    });
    SA[0] = ~(n_ - 1);
    Int kept = 0;
    for (Int i = 0; i < n_; ++i)
      if (SA[i] < 0) SA[kept++] = ~SA[i];
    poll_(static_cast<u64>(n_) / 1024);
    if (kept != m) throw std::logic_error("induced sorting lost a suffix");
    return m;
  }

  // Gives each LMS substring its rank; equal substrings share one. Names lie in SA[m + p / 2].
  Int name_lms_substrings(Int m) {
    Int* name_of = SA + m;
    std::fill(name_of, SA + n_, Int{0});
    Int next = n_ - 1;
    each_lms([&](Int p) {
      name_of[p / 2] = next - p + 1;  // its length, up to and with the next LMS position
      next = p;
    });
    Int names = 0, previous = -1, previous_length = 0;
    for (Int i = 0; i < m; ++i) {
      if (i + 2 * kAhead < m) prefetch_write(name_of + SA[i + 2 * kAhead] / 2);
      if (i + kAhead < m) prefetch(T + SA[i + kAhead]);
      const Int p = SA[i], length = name_of[p / 2];
      bool same = length == previous_length;
      if (same && previous >= 0) {
        Int d = 0;
        while (d < length && T[p + d] == T[previous + d]) ++d;
        same = d == length;
      }
      if (!same) ++names;
      previous = p;
      previous_length = length;
      name_of[p / 2] = names;
      if ((i & 0xFFFF) == 0) poll_(512);
    }
    return names;
  }

  void sort_reduced(Int m, Int names) {
    // The names in text order make the reduced text, at the far end of SA.
    Int* reduced = SA + (n_ - m);
    Int to = n_;
    for (Int i = n_ - 1; i >= m; --i)
      if (SA[i] > 0) SA[--to] = SA[i] - 1;
    if (to != n_ - m) throw std::logic_error("induced sorting lost a name");
    InducedSort<Int, Int>(reduced, SA, m, names, SA + m, n_ - 2 * m, poll_).sort();
    Int at = m;
    each_lms([&](Int p) { reduced[--at] = p; });
    for (Int i = 0; i < m; ++i) {
      if (i + kAhead < m) prefetch(reduced + SA[i + kAhead]);
      SA[i] = reduced[SA[i]];
    }
    poll_(static_cast<u64>(m) / 128);
  }

  void induce_from_sorted_lms(Int m) {
    std::fill(SA + m, SA + n_, Int{0});
    set_buckets(true);
    for (Int i = m - 1; i >= 0; --i) {
      if (i >= kAhead) prefetch(T + SA[i - kAhead]);
      const Int p = SA[i];
      SA[i] = 0;
      SA[--bucket_[T[p]]] = p;
    }
    set_buckets(false);
    forward([this](Int i) {
      const Int j = SA[i];
      SA[i] = ~j;
      if (j > 0) {
        const Int k = j - 1;
        const Symbol c = T[k];
        SA[bucket_[c]++] = k > 0 && T[k - 1] < c ? ~k : k;
      }
    });
    set_buckets(true);
    backward([this](Int i) {
      const Int j = SA[i];
      if (j > 0) {
        const Int k = j - 1;
        const Symbol c = T[k];
        SA[--bucket_[c]] = k == 0 || T[k - 1] > c ? ~k : k;
      } else {
        SA[i] = ~j;
      }
    });
  }
};

// Suffix array of text[0, n), text[n - 1] == 0 the only 0, symbols < alphabet.
template <class Symbol, class Int>
void suffix_array(const Symbol* text, Int* sa, Int n, Int alphabet, Poll& poll) {
  std::vector<Int> counters(2 * static_cast<std::size_t>(alphabet));
  InducedSort<Symbol, Int>(text, sa, n, alphabet, counters.data(), 2 * alphabet, poll).sort();
}

}  // namespace unspool
