// Where documents start, as an Elias-Fano list: about 2 + log2(average length) bits a document.
//
// Source: Elias (1974), Fano (1971). Section DOCS: count u64, low bits u64, then for each group of
// 64 entries the place of its first one in the high bits (u64), the low bits packed, the high bits.
// Entry i (0 <= i <= documents) is the position of document i's first symbol slot; the last entry is
// the end of the text. Entries are strictly increasing.
#pragma once
#include "container.hpp"

namespace unspool {

class DocTable {
 public:
  void open(const Container& container, u64 documents);
  u64 start(u64 i) const;
  // Largest i with start(i) <= position.
  u64 find(u64 position) const;
  u64 documents() const { return documents_; }
  // Symbols of document i; Corrupt where it does not lie in a text of `size`.
  u64 length(u64 i, u64 size) const {
    const u64 begin = start(i), end = start(i + 1);
    if (begin >= end || end > size) damaged();
    return end - begin - 1;
  }
  std::vector<u64> lengths(u64 size) const;

 private:
  u64 high_of_group(u64 g) const { return load<u64>(file_->at(groups_ + 8 * g, 8)); }
  u64 low(u64 i) const { return bits_ ? packed_get(*file_, low_, bits_, i) : 0; }
  u64 group_start(u64 g) const { return ((high_of_group(g) - 64 * g) << bits_) | low(64 * g); }

  [[noreturn]] void damaged() const;
  const MappedFile* file_ = nullptr;
  u64 documents_ = 0, entries_ = 0, groups_ = 0, low_ = 0, high_ = 0, high_words_ = 0;
  u32 bits_ = 0;
};

void write_doc_table(ContainerWriter& out, const std::vector<u64>& starts);

}  // namespace unspool
