// All shards of one tier, asked together.
//
// Counts add over shards; a longest match is the longest over them. One query steps its shards in
// lock-step, a batch steps many queries, and a long batch is split over the processors.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base.hpp"
#include "poll.hpp"
#include "query.hpp"

namespace unspool {

// External symbols, borrowed: bytes, or u32 ids.
struct QueryView {
  const void* data = nullptr;
  u64 length = 0;
  bool ids = false;
  u32 symbol(u64 i) const {
    return ids ? static_cast<const u32*>(data)[i] : static_cast<const u8*>(data)[i];
  }
};

// Some queries, and, where a question is about what follows, a symbol for each.
struct Questions {
  const QueryView* queries = nullptr;
  u64 n = 0;
  const i64* symbols = nullptr;
};

struct NextSymbols {
  u64 count = 0;          // of the context
  u64 suffix_length = 0;  // of the context used
  std::vector<i64> symbols, counts;  // external, ascending, -1 first
};

struct ShardInfo {
  std::string path, tier;
  u64 width, symbols, documents, alphabet, sa_sample, isa_sample, bytes_file;
  std::vector<std::pair<std::string, u64>> sections;
};

inline constexpr i64 kEndOfDocument = -1;

class IndexBase {
 public:
  virtual ~IndexBase() = default;
  virtual u64 num_shards() const = 0;
  virtual ShardInfo info(u64 shard) const = 0;
  virtual std::string section(u64 shard, const std::string& name, u64 begin, u64 end) const = 0;
  virtual void warm() const = 0;
  virtual std::vector<std::string> verify(u64 shard) const = 0;
  // Questions in batches, whose cache misses overlap; the answers to query q begin at width * q.
  // Width 1: how often it occurs.
  virtual void count(const Questions& asked, i64* out) const = 0;
  // Rows of each shard: [shard][lo, hi].
  virtual void ranges(const Questions& asked, u64* out) const = 0;
  // Width 2: count, and count with the symbol after it.
  virtual void prob(const Questions& asked, i64* out) const = 0;
  // Width 2: symbols of the longest suffix that occurs, and its count.
  virtual void longest_suffix(const Questions& asked, i64* out) const = 0;
  // Width 3: the same, and its count with the symbol after it.
  virtual void infgram_prob(const Questions& asked, i64* out) const = 0;
  virtual std::vector<NextSymbols> next(const Questions& asked) const = 0;
  virtual std::vector<NextSymbols> infgram(const Questions& asked) const = 0;
  virtual void longest_matches(const QueryView& text, i64* lengths, i64* counts) const = 0;
  virtual void locate(u64 shard, const u64* rows, u64 n, u64 length, i64* documents,
                      i64* starts) const = 0;
  virtual std::string extract(u64 shard, u64 document, u64 begin, u64 end) const = 0;
  virtual u64 document_length(u64 shard, u64 document) const = 0;
  virtual std::vector<u64> document_lengths(u64 shard) const = 0;
};

std::unique_ptr<IndexBase> open_index(const std::vector<std::string>& paths, bool ram);

struct V4Files {
  std::string tokenized, table, offset;
};
std::unique_ptr<IndexBase> open_v4(const std::vector<V4Files>& shards, u32 width);

}  // namespace unspool
