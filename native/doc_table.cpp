#include "doc_table.hpp"

namespace unspool {

void DocTable::open(const Container& container, u64 documents) {
  file_ = &container.file();
  const Section s = container.need("DOCS");
  if (s.length < 16) throw Corrupt(file_->path() + ": the document table is too short.");
  documents_ = documents;
  entries_ = load<u64>(file_->at(s.offset, 8));
  const u64 bits = load<u64>(file_->at(s.offset + 8, 8));
  if (entries_ != documents + 1 || bits > 40 || entries_ > s.length * 64)
    throw Corrupt(file_->path() + ": the document table contradicts the header.");
  bits_ = static_cast<u32>(bits);
  groups_ = s.offset + 16;
  low_ = groups_ + 8 * ceil_div(entries_, 64);
  high_ = low_ + (bits_ ? PackedWriter::bytes(entries_, bits_) : 0);
  if (high_ > s.offset + s.length) throw Corrupt(file_->path() + ": the document table is cut.");
  high_words_ = (s.offset + s.length - high_) / 8;
}

u64 DocTable::start(u64 i) const {
  if (i >= entries_) throw Corrupt(file_->path() + ": a document number is out of range.");
  u64 at = high_of_group(i / 64);
  u64 skip = i % 64;
  u64 word_index = at / 64;
  u64 word = 0;
  if (word_index < high_words_)
    word = load<u64>(file_->at(high_ + 8 * word_index, 8)) & (~u64{0} << (at % 64));
  for (;;) {
    const u64 ones = static_cast<u64>(__builtin_popcountll(word));
    if (skip < ones) break;
    skip -= ones;
    if (++word_index >= high_words_) damaged();
    word = load<u64>(file_->at(high_ + 8 * word_index, 8));
  }
  while (skip--) word &= word - 1;
  at = word_index * 64 + static_cast<u64>(__builtin_ctzll(word));
  return ((at - i) << bits_) | low(i);
}

u64 DocTable::find(u64 position) const {
  u64 lo = 0, hi = ceil_div(entries_, 64);
  while (hi - lo > 1) {
    const u64 mid = (lo + hi) / 2;
    (group_start(mid) <= position ? lo : hi) = mid;
  }
  // Inside the group: bisect on single entries.
  u64 a = 64 * lo, b = std::min(a + 64, entries_);
  while (b - a > 1) {
    const u64 mid = (a + b) / 2;
    (start(mid) <= position ? a : b) = mid;
  }
  return a;
}

void DocTable::damaged() const {
  throw Corrupt(file_->path() + ": the document table is damaged.");
}

std::vector<u64> DocTable::lengths(u64 size) const {
  std::vector<u64> out;
  out.reserve(documents_);
  u64 i = 0, previous = 0;
  for (u64 w = 0; w < high_words_ && i < entries_; ++w)
    for (u64 word = load<u64>(file_->at(high_ + 8 * w, 8)); word && i < entries_; word &= word - 1) {
      const u64 at = w * 64 + static_cast<u64>(__builtin_ctzll(word));
      const u64 start = ((at - i) << bits_) | low(i);
      if (start > size || (i && start <= previous)) damaged();
      if (i) out.push_back(start - previous - 1);
      previous = start;
      ++i;
    }
  if (i != entries_) damaged();
  return out;
}

void write_doc_table(ContainerWriter& out, const std::vector<u64>& starts) {
  const u64 n = starts.size();
  const u64 universe = starts.back() + 1;
  const u32 bits = universe / n > 1 ? bit_width(universe / n) - 1 : 0;
  std::vector<u64> groups, high((n + (universe >> bits)) / 64 + 2, 0);
  PackedWriter low(bits);
  for (u64 i = 0; i < n; ++i) {
    const u64 at = (starts[i] >> bits) + i;
    if (i % 64 == 0) groups.push_back(at);
    high[at / 64] |= u64{1} << (at % 64);
    if (bits) low.push(starts[i] & ((u64{1} << bits) - 1));
  }
  const u64 head[2] = {n, bits};
  out.begin("DOCS");
  out.write(head, 16);
  out.write_all(groups);
  if (bits) low.write(out);
  out.write_all(high);
  out.end();
}

}  // namespace unspool
