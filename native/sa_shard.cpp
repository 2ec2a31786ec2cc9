#include "sa_shard.hpp"

#include <algorithm>

namespace unspool {

NativeText::NativeText(std::unique_ptr<Container> container) : container_(std::move(container)) {
  const Params& p = container_->params();
  alphabet_.open(*container_);
  docs_.open(*container_, p.documents);
  rows_ = p.rows;
  pointer_ = p.pointer_width;
  width_ = static_cast<u32>(p.stored_width);
  if (rows_ > kMask40 || (pointer_ != 4 && pointer_ != 5) ||
      (width_ != 1 && width_ != 2 && width_ != 4) || p.documents > rows_)
    throw Corrupt(file().path() + ": the header contradicts itself. The file is damaged.");
  pointer_mask_ = pointer_ == 4 ? 0xFFFFFFFFu : kMask40;
  text_ = container_->need("TEXT", rows_ * width_).offset;
  array_ = container_->need("ARRAY", rows_ * pointer_ + 8).offset;
  prefixes_.open(*container_, width_ == 1 ? p.prefix_slots : 0);
  has_pairs_ = p.pairs != 0;
  if (has_pairs_) pairs_ = container_->need("PAIRS", 5 * (p.sigma * p.sigma + 1) + 3).offset;
}

void NativeText::outside() const {
  throw Corrupt(file().path() + ": a suffix lies outside the text. The file is damaged.");
}

u64 NativeText::begin_search(const u32* query, u64 length, u64* lo, u64* hi) const {
  if (const u32 found = find_prefix(prefixes_, query, length, lo, hi)) return found;
  if (!has_pairs_ || length < 1) return 0;
  // One symbol: every pair that begins with it.
  const u64 pair = u64{query[0]} * alphabet_.sigma();
  const auto row = [&](u64 at) { return load<u64>(file().at(pairs_ + 5 * at, 8)) & kMask40; };
  if (length >= 2) {
    *lo = row(pair + query[1]);
    *hi = row(pair + query[1] + 1);
    return *lo < *hi ? 2 : 1;
  }
  *lo = row(pair);
  *hi = row(pair + alphabet_.sigma());
  return 1;
}

u64 NativeText::same(u64 p, const u32* query, u64 known, u64 length, u32* here) const {
  u64 same = known;
  if (width_ == 1)
    while (same < length && p + same < rows_) {
      // As much as one check covers.
      const u64 at = text_ + p + same;
      const u64 end = same + std::min({length - same, rows_ - p - same, kUnit - at % kUnit});
      for (const u8* symbol = file().at(at, end - same); same < end; ++same, ++symbol)
        if ((*here = *symbol) != query[same]) return same;
    }
  while (same < length && (*here = symbol(p + same)) == query[same]) ++same;
  return same;
}

std::vector<u64> NativeText::document_lengths() const {
  return docs_.lengths(rows_);
}

V4Text::V4Text(const std::string& tokenized, const std::string& table, const std::string& offset,
               u32 width)
    : text_(std::make_unique<MappedFile>(tokenized, false)),
      table_(std::make_unique<MappedFile>(table, false)),
      offset_(std::make_unique<MappedFile>(offset, false)),
      width_(width),
      separator_(width == 1 ? 0xFFu : width == 2 ? 0xFFFFu : 0xFFFFFFFFu) {
  if (text_->size() % width_)
    throw Corrupt(tokenized + " has " + std::to_string(text_->size()) +
                  " bytes, which is no multiple of the token width " + std::to_string(width_) + ".");
  rows_ = text_->size() / width_;
  pointer_ = rows_ ? table_->size() / rows_ : 0;
  if (rows_ && (table_->size() % rows_ || pointer_ < 1 || pointer_ > 8))
    throw Corrupt(table + " has " + std::to_string(table_->size()) + " bytes, which does not fit " +
                  std::to_string(rows_) + " tokens. The index is unfinished or damaged.");
  if (offset_->size() % 8) throw Corrupt(offset + " is not a list of 8-byte offsets.");
  documents_ = offset_->size() / 8;
  text_->advise_random();
  table_->advise_random();
}

u64 V4Text::position(u64 row) const {
  u64 value = 0;
  std::memcpy(&value, table_->at(row * pointer_, pointer_), pointer_);
  if (value % width_ || value / width_ >= rows_)
    throw Corrupt(table_->path() + ": entry " + std::to_string(row) + " points to byte " +
                  std::to_string(value) + ", outside the text.");
  return value / width_;
}

u64 V4Text::document_start(u64 d) const {
  if (d >= documents_) throw Corrupt(offset_->path() + ": a document number is out of range.");
  const u64 at = load<u64>(offset_->at(8 * d, 8));
  if (at % width_ || at / width_ >= rows_)
    throw Corrupt(offset_->path() + ": document " + std::to_string(d) + " lies outside the text.");
  return at / width_ + 1;  // after its separator
}

u64 V4Text::document_length(u64 d) const {
  const u64 begin = document_start(d);
  const u64 end = d + 1 < documents_ ? document_start(d + 1) - 1 : rows_;
  if (end < begin) throw Corrupt(offset_->path() + ": the documents are not in order.");
  return end - begin;
}

u64 V4Text::find_document(u64 p) const {
  u64 lo = 0, hi = documents_;
  while (hi - lo > 1) {
    const u64 mid = (lo + hi) / 2;
    (document_start(mid) <= p + 1 ? lo : hi) = mid;
  }
  return lo;
}

std::vector<u64> V4Text::document_lengths() const {
  std::vector<u64> out(documents_);
  for (u64 d = 0; d < documents_; ++d) out[d] = document_length(d);
  return out;
}

template <class Source>
void SaShard<Source>::find_many(Find<SaShard>* finds, std::size_t n, Poll& poll) {
  // One bisection a find until a row matches, then one for each end of the range. Symbols that are
  // known to match, because those at both ends of what is left do, are not read again.
  enum class Seek : u32 { kAny, kFirst, kEnd };
  struct Bisect {
    u32 find;
    Seek seek;
    u64 lo, hi, length, position, lcp_lo, lcp_hi;
  };
  constexpr std::size_t kGroup = 64;  // at most this many matches are sought, each in two bisections
  Bisect active[2 * kGroup], split[kGroup];
  std::size_t num_active = 0, next = 0, ahead = 0;
  u64 work = 0;
  for (;;) {
    for (; ahead < std::min(n, next + kGroup); ++ahead)
      finds[ahead].shard->text_.fetch_search(finds[ahead].query, finds[ahead].length);
    // A finished find gives its place to the next one, so that the misses keep overlapping.
    while (num_active < kGroup && next < ahead) {
      Find<SaShard>& f = finds[next];
      const Source& t = f.shard->text_;
      const u32 id = static_cast<u32>(next++);
      f.lo = f.hi = f.matched = 0;
      // Symbols up to the first that does not occur at all.
      const u64 length = static_cast<u64>(std::find(f.query, f.query + f.length, kAbsent) - f.query);
      if (length < f.length && (!f.partly || length == 0)) continue;
      Bisect b{id, Seek::kAny, 0, t.rows(), length, 0, 0, 0};
      f.matched = b.lcp_lo = b.lcp_hi = t.begin_search(f.query, length, &b.lo, &b.hi);
      if (b.hi > t.rows())
        throw Corrupt(f.shard->file().path() + ": a table of beginnings is damaged.");
      if (f.matched == f.length) {
        if (b.lo < b.hi) {
          f.lo = b.lo;
          f.hi = b.hi;
        }
      } else if (b.lo < b.hi) {
        active[num_active++] = b;
      }
    }
    if (!num_active) {
      if (next == n) break;
      continue;
    }
    for (std::size_t a = 0; a < num_active; ++a)
      finds[active[a].find].shard->text_.prefetch_row((active[a].lo + active[a].hi) / 2);
    for (std::size_t a = 0; a < num_active; ++a) {
      Bisect& b = active[a];
      const Source& t = finds[b.find].shard->text_;
      b.position = t.position((b.lo + b.hi) / 2);
      t.prefetch_symbol(b.position + std::min(b.lcp_lo, b.lcp_hi));
    }
    std::size_t kept = 0, num_split = 0;
    for (std::size_t a = 0; a < num_active; ++a) {
      Bisect b = active[a];
      Find<SaShard>& f = finds[b.find];
      const Source& t = f.shard->text_;
      u32 here = 0;
      const u64 same = t.same(b.position, f.query, std::min(b.lcp_lo, b.lcp_hi), b.length, &here);
      const u64 mid = (b.lo + b.hi) / 2;
      f.matched = std::max(f.matched, same);
      if (same == b.length && b.seek == Seek::kAny) {
        if (same < f.length) continue;  // all that can match: the next symbol does not occur
        b.seek = Seek::kFirst;
        split[num_split] = {b.find, Seek::kEnd, mid + 1, b.hi, b.length, 0, same, b.lcp_hi};
        if (mid + 1 < b.hi)
          ++num_split;
        else
          f.hi = mid + 1;
      }
      const bool right = same == b.length ? b.seek == Seek::kEnd : here < f.query[same];
      if (right) {
        b.lo = mid + 1;
        b.lcp_lo = same;
      } else {
        b.hi = mid;
        b.lcp_hi = same;
      }
      if (b.lo < b.hi) {
        active[kept++] = b;
      } else if (b.seek == Seek::kFirst) {
        f.lo = b.lo;
      } else if (b.seek == Seek::kEnd) {
        f.hi = b.lo;
      }
    }
    work += num_active;
    for (std::size_t a = 0; a < num_split; ++a) active[kept++] = split[a];
    num_active = kept;
    if (work >= 1024) {
      poll(work);
      work = 0;
    }
  }
}

template <class Source>
void SaShard<Source>::extend_many(Extend<SaShard>* steps, std::size_t n) {
  struct Bisect {
    u32 step;
    bool above;
    u64 lo, hi, position;
  };
  constexpr std::size_t kGroup = 64;
  Bisect active[kGroup];
  std::size_t num_active = 0, next = 0;
  for (;;) {
    while (num_active + 2 <= kGroup && next < n) {
      Extend<SaShard>& e = steps[next];
      const u32 id = static_cast<u32>(next++);
      if (e.symbol == kAbsent || e.lo >= e.hi) {
        e.lo = e.hi = 0;
        continue;
      }
      active[num_active++] = {id, false, e.lo, e.hi, 0};
      active[num_active++] = {id, true, e.lo, e.hi, 0};
    }
    if (!num_active) return;
    for (std::size_t a = 0; a < num_active; ++a)
      steps[active[a].step].shard->text_.prefetch_row((active[a].lo + active[a].hi) / 2);
    for (std::size_t a = 0; a < num_active; ++a) {
      const Source& t = steps[active[a].step].shard->text_;
      active[a].position = t.position((active[a].lo + active[a].hi) / 2) + steps[active[a].step].depth;
      t.prefetch_symbol(active[a].position);
    }
    std::size_t kept = 0;
    for (std::size_t a = 0; a < num_active; ++a) {
      Bisect b = active[a];
      Extend<SaShard>& e = steps[b.step];
      const u32 here = e.shard->text_.symbol(b.position);
      const u64 mid = (b.lo + b.hi) / 2;
      if (here < e.symbol || (b.above && here == e.symbol))
        b.lo = mid + 1;
      else
        b.hi = mid;
      if (b.lo < b.hi)
        active[kept++] = b;
      else
        (b.above ? e.hi : e.lo) = b.lo;
    }
    num_active = kept;
  }
}

template <class Source>
void SaShard<Source>::next_counts(u64 lo, u64 hi, u64 depth, std::vector<SymbolCount>& out,
                                  Poll& poll) const {
  u64 end_count = 0;
  const std::size_t first = out.size();
  while (lo < hi) {
    const u32 c = symbol_at(lo, depth);
    u64 step = 1, a = lo, b = hi;  // the group's end lies in (a, b]
    while (a + step < hi) {
      if (symbol_at(a + step, depth) != c) {
        b = a + step;
        break;
      }
      a += step;
      step *= 2;
    }
    while (b - a > 1) {
      const u64 mid = (a + b) / 2;
      (symbol_at(mid, depth) == c ? a : b) = mid;
    }
    if (text_.is_end(c))
      end_count += b - lo;
    else
      out.push_back({c, b - lo});
    lo = b;
    poll(8);
  }
  if (end_count)
    out.insert(out.begin() + static_cast<std::ptrdiff_t>(first), {kSeparator, end_count});
}

template <class Source>
void SaShard<Source>::locate(const u64* rows, std::size_t n, u64 length, Hit* out, Poll& poll) const {
  for (std::size_t j = 0; j < n; ++j) {
    if (rows[j] >= text_.rows())
      throw BadQuery("Row " + std::to_string(rows[j]) + " is not in this shard of " +
                     std::to_string(text_.rows()) + " rows.");
    if (j + 16 < n && rows[j + 16] < text_.rows()) text_.prefetch_row(rows[j + 16]);
    const u64 position = text_.position(rows[j]);
    const u64 document = text_.find_document(position);
    const u64 start = text_.document_start(document);
    // The separator's own row: the end of the document it follows, or the start of the one it
    // precedes.
    const u64 inside = position >= start ? position - start : 0;
    const u64 size = text_.document_length(document);
    if (inside > size || length > size - inside)
      throw Corrupt(file().path() + ": a match lies outside its document. The index is damaged.");
    out[j] = {document, inside};
    poll(1);
  }
}

template <class Source>
void SaShard<Source>::extract(u64 document, u64 begin, u64 end, u32* out, Poll& poll) const {
  const u64 start = text_.document_start(document);
  for (u64 i = begin; i < end; ++i) {
    const u32 c = text_.symbol(start + i);
    if (text_.is_end(c))
      throw Corrupt(file().path() + ": a document holds a separator. The index is damaged.");
    out[i - begin] = c;
    if (i % 4096 == 0) poll(64);
  }
}

template class SaShard<NativeText>;
template class SaShard<V4Text>;

}  // namespace unspool
