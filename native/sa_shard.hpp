// One shard of the SA tier: the text, its suffix array, and bisection.
//
// Source: Manber and Myers (1993), "Suffix arrays"; queries as in Liu et al. (2024), "Infini-gram",
// section 3. Departures: the next-symbol distribution is exact (gallops over the distinct symbols),
// and many bisections run side by side so that their cache misses overlap.
// `Source` gives the text: NativeText for our own files, V4Text for infini-gram directories.
// Ordered symbols: 0 past the end of the text, then as the array sorts them.
#pragma once
#include <algorithm>
#include <memory>
#include <string>

#include "container.hpp"
#include "doc_table.hpp"
#include "fm_shard.hpp"
#include "poll.hpp"
#include "prefix_table.hpp"
#include "query.hpp"

namespace unspool {

// Sections TEXT (dense symbols), ARRAY (u32 or u40 positions), DOCS, ALPHABET, PAIRS, PREFIXES.
class NativeText {
 public:
  explicit NativeText(std::unique_ptr<Container> container);
  u64 rows() const { return rows_; }
  u64 documents() const { return docs_.documents(); }
  u64 size() const { return rows_; }
  u64 position(u64 row) const {
    const u64 p = load<u64>(file().at(array_ + row * pointer_, 8)) & pointer_mask_;
    if (UNSPOOL_UNLIKELY(p >= rows_)) outside();
    return p;
  }
  u32 symbol(u64 p) const {
    if (UNSPOOL_UNLIKELY(p >= rows_)) return 0;
    const u8* at = file().at(text_ + p * width_, width_);
    return width_ == 1 ? *at : width_ == 2 ? load<u16>(at) : load<u32>(at);
  }
  UNSPOOL_ALWAYS_INLINE void prefetch_row(u64 row) const { file().fetch_new(array_ + row * pointer_); }
  UNSPOOL_ALWAYS_INLINE void prefetch_symbol(u64 p) const { file().fetch_new(text_ + p * width_); }
  u32 dense(u32 external) const { return alphabet_.dense(external); }
  u32 external(u32 dense) const { return alphabet_.external(dense); }
  static bool is_end(u32 symbol) { return symbol <= kSeparator; }
  u32 width() const { return alphabet_.width(); }
  // Rows of suffixes that begin with the first symbols of a query, and how many symbols these are;
  // 0 where no table knows. All its symbols occur.
  u64 begin_search(const u32* query, u64 length, u64* lo, u64* hi) const;
  void fetch_search(const u32* query, u64 length) const { fetch_prefix(prefixes_, query, length); }
  // How many symbols of a query stand at p, `known` of which do, and the one that differs.
  u64 same(u64 p, const u32* query, u64 known, u64 length, u32* here) const;
  u64 document_start(u64 d) const { return docs_.start(d); }
  u64 document_length(u64 d) const { return docs_.length(d, rows_); }
  u64 find_document(u64 p) const { return docs_.find(p); }
  std::vector<u64> document_lengths() const;
  void expect(u64 searches, Poll& poll) const {
    constexpr u64 kReads = 12;  // units that a search touches
    const u64 end = std::max(array_ + rows_ * pointer_, text_ + rows_ * width_);
    file().expect(std::min(array_, text_), end, searches * kReads, poll);
  }
  const MappedFile& file() const { return container_->file(); }
  const Container* container() const { return container_.get(); }
  void throw_if_poisoned() const { file().throw_if_poisoned(); }

 private:
  [[noreturn]] void outside() const;
  std::unique_ptr<Container> container_;
  Alphabet alphabet_;
  DocTable docs_;
  PrefixTable prefixes_;
  u64 rows_ = 0, array_ = 0, text_ = 0, pairs_ = 0, pointer_ = 4, pointer_mask_ = 0;
  u32 width_ = 1;
  bool has_pairs_ = false;
};

// An infini-gram v4 shard: tokenized, table and offset files, nothing in them trusted.
// Order: tokens compare by their little-endian bytes; a separator (all ones) stands before each
// document; table entries are byte offsets of as many bytes as the files' sizes give.
class V4Text {
 public:
  V4Text(const std::string& tokenized, const std::string& table, const std::string& offset,
         u32 width);
  u64 rows() const { return rows_; }
  u64 documents() const { return documents_; }
  u64 size() const { return rows_; }
  u64 position(u64 row) const;
  u32 symbol(u64 p) const {
    if (p >= rows_) return 0;
    return ordered(load_token(p));
  }
  UNSPOOL_ALWAYS_INLINE void prefetch_row(u64 row) const { table_->fetch(row * pointer_); }
  UNSPOOL_ALWAYS_INLINE void prefetch_symbol(u64 p) const {
    if (p < rows_) text_->fetch(p * width_);
  }
  u32 dense(u32 external) const {
    if (external >= separator_) return kAbsent;
    const u32 symbol = ordered(external);
    return symbol < kLast ? symbol : kAbsent;
  }
  u32 external(u32 dense) const { return swapped(dense - 2); }
  bool is_end(u32 symbol) const { return symbol == 0 || symbol == ordered(separator_); }
  u32 width() const { return width_; }
  u64 begin_search(const u32*, u64, u64*, u64*) const { return 0; }
  void fetch_search(const u32*, u64) const {}
  void expect(u64, Poll&) const {}
  u64 same(u64 p, const u32* query, u64 known, u64 length, u32* here) const {
    while (known < length && (*here = symbol(p + known)) == query[known]) ++known;
    return known;
  }
  u64 document_start(u64 d) const;
  u64 document_length(u64 d) const;
  u64 find_document(u64 p) const;
  std::vector<u64> document_lengths() const;
  const MappedFile& file() const { return *text_; }
  const Container* container() const { return nullptr; }
  void throw_if_poisoned() const {
    text_->throw_if_poisoned();
    table_->throw_if_poisoned();
    offset_->throw_if_poisoned();
  }

 private:
  u32 load_token(u64 p) const {
    const u8* at = text_->at(p * width_, width_);
    return width_ == 1 ? *at : width_ == 2 ? load<u16>(at) : load<u32>(at);
  }
  // 4-byte tokens whose bytes end in three ff are no token of any vocabulary: they share the place
  // of the separator, so that the ordered symbol fits 32 bits.
  static constexpr u32 kLast = 0xFFFFFFFF;
  u32 ordered(u32 token) const { return std::min(swapped(token), kLast - 2) + 2; }
  // The number whose order is that of the token's little-endian bytes; its own inverse.
  u32 swapped(u32 token) const {
    return width_ == 1 ? token : width_ == 2 ? __builtin_bswap16(static_cast<u16>(token))
                                             : __builtin_bswap32(token);
  }
  std::unique_ptr<MappedFile> text_, table_, offset_;
  u64 rows_ = 0, documents_ = 0, pointer_ = 0;
  u32 width_, separator_;
};

template <class Source>
class SaShard {
 public:
  explicit SaShard(Source source) : text_(std::move(source)) {}

  // So many searches are to come.
  void expect(u64 searches, Poll& poll) const { text_.expect(searches, poll); }
  static void find_many(Find<SaShard>* finds, std::size_t n, Poll& poll);
  static void extend_many(Extend<SaShard>* steps, std::size_t n);
  void next_counts(u64 lo, u64 hi, u64 depth, std::vector<SymbolCount>& out, Poll& poll) const;
  void locate(const u64* rows, std::size_t n, u64 length, Hit* out, Poll& poll) const;
  void extract(u64 document, u64 begin, u64 end, u32* out, Poll& poll) const;

  u64 document_length(u64 document) const { return text_.document_length(document); }
  std::vector<u64> document_lengths() const { return text_.document_lengths(); }
  u64 num_rows() const { return text_.rows(); }
  u64 num_symbols() const { return text_.rows() - text_.documents(); }
  u64 num_documents() const { return text_.documents(); }
  u64 all_rows_begin() const { return 0; }
  const Source& alphabet() const { return text_; }
  const Container* container() const { return text_.container(); }
  const MappedFile& file() const { return text_.file(); }
  const Source& text() const { return text_; }

 private:
  u32 symbol_at(u64 row, u64 depth) const { return text_.symbol(text_.position(row) + depth); }
  Source text_;
};

using SaNative = SaShard<NativeText>;
using SaV4 = SaShard<V4Text>;

}  // namespace unspool
