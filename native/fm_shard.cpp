#include "fm_shard.hpp"

#include <algorithm>

namespace unspool {

void Alphabet::open(const Container& container) {
  file_ = &container.file();
  const Params& p = container.params();
  if (p.sigma < 2 || p.sigma > (u64{1} << 31) || (p.width != 1 && p.width != 2 && p.width != 4))
    throw Corrupt(file_->path() + ": an impossible alphabet.");
  width_ = static_cast<u32>(p.width);
  sigma_ = static_cast<u32>(p.sigma);
  values_ = container.need("ALPHABET", 4 * u64(sigma_ - 2)).offset;
  if (width_ != 1) return;
  for (u32 d = 2; d < sigma_; ++d) {
    const u32 value = external(d);
    if (value > 255) throw Corrupt(file_->path() + ": a byte above 255.");
    table_[value] = static_cast<u16>(d);
  }
}

u32 Alphabet::search(u32 value) const {
  u32 lo = 2, hi = sigma_;
  while (lo < hi) {
    const u32 mid = lo + (hi - lo) / 2;
    const u32 here = external(mid);
    if (here == value) return mid;
    if (here < value)
      lo = mid + 1;
    else
      hi = mid;
  }
  return kAbsent;
}

template <class Jobs>
FmShard<Jobs>::FmShard(std::unique_ptr<Container> container) : container_(std::move(container)) {
  const Params& p = container_->params();
  const std::string& path = file().path();
  alphabet_.open(*container_);
  rows_ = p.rows;
  documents_ = p.documents;
  sentinel_row_ = p.sentinel_row;
  sa_sample_ = p.sa_sample;
  isa_sample_ = p.isa_sample;
  sample_bits_ = static_cast<u32>(p.sample_bits);
  inverse_bits_ = static_cast<u32>(p.isample_bits);
  if (rows_ < 1 || rows_ > kMask40 || documents_ >= rows_ || sentinel_row_ >= rows_ ||
      sa_sample_ == 0 || isa_sample_ == 0 || isa_sample_ % sa_sample_ || p.sample_bits > 40 ||
      p.isample_bits > 40)
    throw Corrupt(path + ": the header contradicts itself. The file is damaged.");
  tree_.open(*container_, rows_ - 1, alphabet_.sigma());
  docs_.open(*container_, documents_);
  prefixes_.open(*container_, alphabet_.sigma() <= 256 ? p.prefix_slots : 0);
  first_rows_ = container_->need("ROWS").offset;
  const Section samples = container_->need("SAMPLES"), inverse = container_->need("INVERSE");
  samples_ = samples.offset;
  inverse_ = inverse.offset;
  num_samples_ = (rows_ - 1) / sa_sample_;
  num_inverse_ = (rows_ - 1) / isa_sample_ + 1;
  if (samples.length != PackedWriter::bytes(num_samples_, sample_bits_) ||
      inverse.length != PackedWriter::bytes(num_inverse_, inverse_bits_))
    throw Corrupt(path + ": the samples have a wrong size.");
  has_pairs_ = p.pairs != 0;
  if (has_pairs_)
    pairs_ = container_->need("PAIRS", 5 * (p.sigma * p.sigma + 1) + 3).offset;
}

template <class Jobs>
u64 FmShard<Jobs>::begin_search(const u32* query, u64 length, u64* lo, u64* hi) const {
  if (const u32 found = find_prefix(prefixes_, query, length, lo, hi)) return found;
  if (length >= 2 && has_pairs_) {
    const u8* p = file().at(pairs_ + 5 * (u64{query[1]} * alphabet_.sigma() + query[0]), 13);
    *lo = load<u64>(p) & kMask40;
    *hi = load<u64>(p + 5) & kMask40;
    return *lo < *hi ? 2 : 1;
  }
  *lo = first_row(query[0]);
  *hi = first_row(query[0] + 1);
  return 1;
}

template <class Jobs>
void FmShard<Jobs>::find_many(Find<FmShard>* finds, std::size_t n, Poll& poll) {
  constexpr std::size_t kGroup = 48;
  typename Jobs::Step steps[kGroup];
  struct Active {
    u32 find;
    u64 at;
  } active[kGroup];
  std::size_t num_active = 0, next = 0, ahead = 0;
  u64 work = 0;
  for (;;) {
    for (; ahead < std::min(n, next + kGroup); ++ahead)
      fetch_prefix(finds[ahead].shard->prefixes_, finds[ahead].query, finds[ahead].length);
    // A finished find gives its place to the next one, so that the misses keep overlapping.
    while (num_active < kGroup && next < ahead) {
      Find<FmShard>& f = finds[next];
      const FmShard& s = *f.shard;
      const u32 id = static_cast<u32>(next++);
      f.lo = f.hi = f.matched = 0;
      if (f.length == 0) {
        f.lo = s.all_rows_begin();
        f.hi = s.rows_;
        continue;
      }
      // The symbols that a table may look up: up to the first that does not occur at all.
      const u64 ahead = std::min<u64>(f.length, kMostPrefix);
      const u64 known = std::find(f.query, f.query + ahead, kAbsent) - f.query;
      if (known < ahead && (!f.partly || known == 0)) continue;
      f.matched = s.begin_search(f.query, known, &f.lo, &f.hi);
      if (f.lo >= f.hi)
        f.lo = f.hi = 0;
      else if (f.matched < f.length)
        active[num_active++] = {id, f.matched};
    }
    if (!num_active) {
      if (next == n) break;
      continue;
    }
    std::size_t kept = 0;
    for (std::size_t a = 0; a < num_active; ++a) {
      Find<FmShard>& f = finds[active[a].find];
      const FmShard& s = *f.shard;
      const u32 c = f.query[active[a].at];
      if (c == kAbsent) {
        f.lo = f.hi = 0;
        continue;
      }
      steps[kept] = {&s.tree_, s.skip_sentinel(f.lo), s.skip_sentinel(f.hi), c};
      active[kept++] = active[a];
    }
    num_active = kept;
    Tree::step_many(steps, num_active);
    work += num_active;
    kept = 0;
    for (std::size_t a = 0; a < num_active; ++a) {
      Find<FmShard>& f = finds[active[a].find];
      f.lo = steps[a].lo;
      f.hi = steps[a].hi;
      if (f.lo >= f.hi) {
        f.lo = f.hi = 0;
        continue;
      }
      if (f.hi > f.shard->rows_)
        throw Corrupt(f.shard->file().path() + ": a search left the index. The file is damaged.");
      f.matched = ++active[a].at;
      if (f.matched == f.length) continue;
      active[kept++] = active[a];
    }
    num_active = kept;
    if (work >= 1024) {
      poll(work);
      work = 0;
    }
  }
}

template <class Jobs>
void FmShard<Jobs>::extend_many(Extend<FmShard>* steps, std::size_t n) {
  constexpr std::size_t kGroup = 32;
  typename Jobs::Step jobs[kGroup];
  for (std::size_t first = 0; first < n; first += kGroup) {
    const std::size_t count = std::min(kGroup, n - first);
    std::size_t used = 0;
    u32 of[kGroup];
    for (std::size_t j = 0; j < count; ++j) {
      Extend<FmShard>& e = steps[first + j];
      const FmShard& s = *e.shard;
      if (e.symbol == kAbsent || e.lo >= e.hi) {
        e.lo = e.hi = 0;
        continue;
      }
      if (e.depth == 0) {
        e.lo = s.first_row(e.symbol);
        e.hi = s.first_row(e.symbol + 1);
        continue;
      }
      of[used] = static_cast<u32>(j);
      jobs[used++] = {&s.tree_, s.skip_sentinel(e.lo), s.skip_sentinel(e.hi), e.symbol};
    }
    Tree::step_many(jobs, used);
    for (std::size_t j = 0; j < used; ++j) {
      Extend<FmShard>& e = steps[first + of[j]];
      e.lo = jobs[j].lo;
      e.hi = std::max(e.lo, jobs[j].hi);
      if (e.hi > e.shard->rows_)
        throw Corrupt(e.shard->file().path() + ": a search left the index. The file is damaged.");
    }
  }
}

template <class Jobs>
void FmShard<Jobs>::next_counts(u64 lo, u64 hi, u64 depth, std::vector<SymbolCount>& out,
                                Poll& poll) const {
  const u32 sigma = alphabet_.sigma();
  if (depth == 0) {
    // After the empty query any symbol may come: each as often as it occurs.
    for (u32 c = 1; c < sigma; ++c)
      if (const u64 count = first_row(c + 1) - first_row(c)) out.push_back({c, count});
    return;
  }
  const u64 i = skip_sentinel(lo), j = skip_sentinel(hi);
  if constexpr (std::is_same_v<Tree, BlockTree>) {
    std::vector<u64> counts(sigma, 0);
    tree_.add_counts(i, j, counts.data());
    for (u32 c = 0; c < sigma; ++c)
      if (counts[c] & kMask40) out.push_back({c, counts[c] & kMask40});
  } else {
    const std::size_t first = out.size();
    tree_.each_count(i, j, [&](u32 c, u64 count) {
      out.push_back({c, count});
      poll(1);
    });
    std::sort(out.begin() + static_cast<std::ptrdiff_t>(first), out.end(),
              [](const SymbolCount& a, const SymbolCount& b) { return a.symbol < b.symbol; });
  }
}

template <class Jobs>
void FmShard<Jobs>::locate(const u64* rows, std::size_t n, u64 length, Hit* out, Poll& poll) const {
  constexpr std::size_t kGroup = 64;
  typename Jobs::Walk jobs[kGroup];
  struct Active {
    u64 row, steps;
    std::size_t slot;
  } active[kGroup];
  const auto finish = [&](std::size_t slot, u64 position) {
    const u64 document = docs_.find(position);
    const u64 start = docs_.start(document);
    const u64 size = docs_.length(document, rows_ - 1);
    if (length == 0 && position == start) {  // nothing before it: where the document begins
      out[slot] = {document, 0};
      return;
    }
    const u64 back = position - start - 1 + length;  // symbols from the match's begin to the end
    if (position <= start || back > size)
      throw Corrupt(file().path() + ": a match lies outside its document. The file is damaged.");
    out[slot] = {document, size - back};
  };
  std::size_t num_active = 0, next = 0;
  for (;;) {
    while (num_active < kGroup && next < n) {
      if (rows[next] >= rows_)
        throw BadQuery("Row " + std::to_string(rows[next]) + " is not in this shard of " +
                       std::to_string(rows_) + " rows.");
      active[num_active++] = {rows[next], 0, next};
      tree_.prefetch_mark(skip_sentinel(rows[next]));
      ++next;
    }
    if (!num_active) return;
    std::size_t kept = 0;
    for (std::size_t a = 0; a < num_active; ++a) {
      const Active here = active[a];
      if (here.row == sentinel_row_) {
        finish(here.slot, here.steps);
        continue;
      }
      if (here.row == 0) {
        finish(here.slot, rows_ - 1 + here.steps);
        continue;
      }
      const u64 i = skip_sentinel(here.row);
      if (tree_.marked(i)) {
        const u64 k = tree_.marks_before(i);
        if (k >= num_samples_) throw Corrupt(file().path() + ": too many sampled rows.");
        finish(here.slot, packed_get(file(), samples_, sample_bits_, k) * sa_sample_ + here.steps);
        continue;
      }
      if (here.steps >= sa_sample_) throw Corrupt(file().path() + ": a sampled row is missing.");
      jobs[kept] = {&tree_, i, 0, 0};
      active[kept++] = here;
    }
    num_active = kept;
    Tree::walk_many(jobs, num_active);
    for (std::size_t a = 0; a < num_active; ++a) {
      active[a].row = jobs[a].out;
      ++active[a].steps;
      if (jobs[a].out >= rows_) throw Corrupt(file().path() + ": a walk left the index.");
      tree_.prefetch_mark(skip_sentinel(jobs[a].out));
    }
    poll(num_active);
  }
}

template <class Jobs>
void FmShard<Jobs>::extract(u64 document, u64 begin, u64 end, u32* out, Poll& poll) const {
  const u64 start = docs_.start(document), size = document_length(document);
  if (begin >= end) return;
  // R holds document symbol f at position start + size - f. Walks start at sampled positions and
  // read R downwards, so each walk yields a piece of the document forwards.
  const u64 high = start + size - begin, low = start + size - (end - 1);
  constexpr std::size_t kGroup = 64;
  struct Active {
    u64 row, position, stop;  // the row's R position; the last position to read
  } active[kGroup];
  typename Jobs::Walk jobs[kGroup];
  std::size_t num_active = 0;
  u64 next = round_up(high + 1, isa_sample_);  // the next walk starts here
  bool more = true;
  while (more || num_active) {
    while (more && num_active < kGroup) {
      u64 row, position = next;
      if (position >= rows_) {
        position = rows_ - 1;  // no sample after it: the row of the sentinel's suffix
        row = 0;
      } else {
        const u64 k = packed_get(file(), inverse_, inverse_bits_, position / isa_sample_);
        const u64 i = tree_.select_mark(k);
        row = i + (i >= sentinel_row_);
      }
      const u64 below = next - isa_sample_;  // the walk after this one starts there
      more = below > low;
      active[num_active++] = {row, position, more ? below : low};
      next = below;
    }
    for (std::size_t a = 0; a < num_active; ++a) {
      if (active[a].row == sentinel_row_ || active[a].row >= rows_)
        throw Corrupt(file().path() + ": a walk left its document. The file is damaged.");
      jobs[a] = {&tree_, skip_sentinel(active[a].row), 0, 0};
    }
    Tree::walk_many(jobs, num_active);
    std::size_t kept = 0;
    for (std::size_t a = 0; a < num_active; ++a) {
      Active here = active[a];
      const u64 position = here.position - 1;
      if (position <= high) out[high - position] = jobs[a].symbol;
      if (position == here.stop) continue;
      here.row = jobs[a].out;
      here.position = position;
      active[kept++] = here;
    }
    num_active = kept;
    poll(kGroup);
  }
}

template <class Jobs>
u64 FmShard<Jobs>::document_length(u64 document) const {
  return docs_.length(document, rows_ - 1);
}

template <class Jobs>
std::vector<u64> FmShard<Jobs>::document_lengths() const {
  return docs_.lengths(rows_ - 1);
}

template class FmShard<BlockTreeJobs>;
template class FmShard<TokenMatrixJobs>;

}  // namespace unspool
