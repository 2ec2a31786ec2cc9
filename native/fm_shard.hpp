// One shard of the FM tier: search, locate and extract over the reversed documents.
//
// Source: Ferragina and Manzini (2000), "Opportunistic data structures with applications". The text
// is R = SEP rev(d0) SEP rev(d1) ... SEP rev(dk-1) $, so that backward search reads a query forward
// and the symbols before a match in R are those after it in the document. The sentinel is kept out
// of the rank structure: its row is known, and rows after it move up by one.
// Sections: ROWS (first row of each dense symbol, u64), ALPHABET (external value of dense ids 2 and
// up, u32), DOCS, SAMPLES and INVERSE (packed), PAIRS (5 bytes each), PREFIXES, and those of the rank structure.
// Cost: a step is one rank pair; locate walks at most sa_sample - 1 steps.
#pragma once
#include <array>
#include <memory>

#include "block_tree.hpp"
#include "container.hpp"
#include "doc_table.hpp"
#include "poll.hpp"
#include "prefix_table.hpp"
#include "query.hpp"
#include "token_matrix.hpp"

namespace unspool {

struct BlockTreeJobs {
  using Tree = BlockTree;
  static constexpr const char* kTree = "TREE";
  using Step = StepJob;
  using Walk = WalkJob;
};
struct TokenMatrixJobs {
  using Tree = TokenMatrix;
  static constexpr const char* kTree = "MATRIX";
  using Step = TokenMatrix::StepJob;
  using Walk = TokenMatrix::WalkJob;
};

// Dense ids of external symbols, and back; the same for both tiers.
class Alphabet {
 public:
  void open(const Container& container);
  u32 dense(u32 external) const {
    return width_ == 1 ? (external < 256 ? table_[external] : kAbsent) : search(external);
  }
  u32 external(u32 dense) const {
    return load<u32>(file_->at(values_ + 4 * u64(dense - 2), 4));
  }
  u32 width() const { return width_; }
  u32 sigma() const { return sigma_; }

 private:
  u32 search(u32 external) const;
  const MappedFile* file_ = nullptr;
  u64 values_ = 0;
  u32 width_ = 1, sigma_ = 0;
  std::array<u16, 256> table_{};
};

template <class Jobs>
class FmShard {
 public:
  using Tree = typename Jobs::Tree;

  explicit FmShard(std::unique_ptr<Container> container);

  // So many searches are to come.
  void expect(u64 searches, Poll& poll) const {
    constexpr u64 kReads = 30;  // units that a search of some 25 symbols touches
    const Section tree = container_->need(Jobs::kTree);
    file().expect(tree.offset, tree.offset + tree.length, searches * kReads, poll);
  }
  static void find_many(Find<FmShard>* finds, std::size_t n, Poll& poll);
  static void extend_many(Extend<FmShard>* steps, std::size_t n);
  // The symbols after a match of rows [lo, hi), ascending.
  void next_counts(u64 lo, u64 hi, u64 depth, std::vector<SymbolCount>& out, Poll& poll) const;
  void locate(const u64* rows, std::size_t n, u64 length, Hit* out, Poll& poll) const;
  // Dense symbols [begin, end) of a document.
  void extract(u64 document, u64 begin, u64 end, u32* out, Poll& poll) const;

  u64 document_length(u64 document) const;
  std::vector<u64> document_lengths() const;
  u64 num_rows() const { return rows_; }
  u64 num_symbols() const { return rows_ - documents_ - 1; }
  u64 num_documents() const { return documents_; }
  // Rows of the empty query: every suffix but the sentinel's own.
  u64 all_rows_begin() const { return 1; }
  const Alphabet& alphabet() const { return alphabet_; }
  const Container& container() const { return *container_; }
  const MappedFile& file() const { return container_->file(); }

 private:
  // Looks up the first symbols of a query, all of which occur; how many of them, at least one.
  u64 begin_search(const u32* query, u64 length, u64* lo, u64* hi) const;
  u64 first_row(u32 c) const { return load<u64>(file().at(first_rows_ + 8 * u64{c}, 8)); }
  u64 skip_sentinel(u64 row) const { return row - (row > sentinel_row_); }

  std::unique_ptr<Container> container_;
  Tree tree_;
  Alphabet alphabet_;
  DocTable docs_;
  PrefixTable prefixes_;
  u64 rows_, documents_, sentinel_row_, sa_sample_, isa_sample_;
  u64 first_rows_ = 0, samples_ = 0, inverse_ = 0, pairs_ = 0;
  u64 num_samples_ = 0, num_inverse_ = 0;
  u32 sample_bits_ = 0, inverse_bits_ = 0;
  bool has_pairs_ = false;
};

using FmBytes = FmShard<BlockTreeJobs>;
using FmTokens = FmShard<TokenMatrixJobs>;

}  // namespace unspool
