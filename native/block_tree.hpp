// Rank over the last column of a byte index: blocks of 131,072 symbols, each with its own code.
//
// Source: fixed block compression boosting (Kärkkäinen and Puglisi 2011, "Fixed block compression
// boosting in FM-indexes"): a block of the Burrows-Wheeler transform has few symbols in few contexts,
// so its own Huffman code is short and its levels lie together. Departures: each block is a wavelet
// matrix shaped by a 4-ary Huffman code (huffman.hpp) over hybrid two-bit digits (quads.hpp), which
// halves the dependent cache misses of a step; the bits that mark sampled rows follow (bits.hpp).
//
// Block layout, at a multiple of 64 bytes: entries (one u64 a dense symbol), levels (5 u32 each, one
// more for the end), first leaf of each depth (u32), leaves (u32: position << 15 | symbol), padding so
// that the next ends at a multiple of 64, guide, digit unit, bit unit of the marks.
//   entry    base in 40 bits, code in 19, code length in 5. The row that symbol c at position i of
//            the block leads to is base + (position of i after the code's levels), modulo 2^40.
//            Length 0: c does not occur here, the row is base. Length 31: the block is all c.
//   level    first digit in the unit; for each digit d what to add to the occurrences of d before a
//            position in the unit to get its position in the next level (modulo 2^32)
//   guide    where the data of each entry of the unit's directory begins, u16, in 16 bytes: small
//            enough to stay in the cache, so that a chunk is on its way while the entry still is
// Cost: about 1.6 levels a step on text, each one directory entry and one chunk, fetched together.
#pragma once
#include "bits.hpp"
#include "container.hpp"
#include "huffman.hpp"
#include "quads.hpp"

namespace unspool {

inline constexpr u32 kBlockLog = 17;
inline constexpr u32 kCodeLimit = 9;  // digits
inline constexpr u64 kMask40 = (u64{1} << 40) - 1;

// Rows [lo, hi) become the rows of the same matches with one symbol more; empty where lo == hi.
struct StepJob {
  const class BlockTree* tree;
  u64 lo, hi;  // in the last column without the sentinel
  u32 c;       // dense symbol
};

// One row walked back by one symbol.
struct WalkJob {
  const class BlockTree* tree;
  u64 i;
  u32 symbol;
  u64 out;
};

class BlockTree {
 public:
  // Code length in the entry of the only symbol of a block.
  static constexpr u32 kWholeBlock = 31;

  // `length`: symbols of the last column without the sentinel.
  void open(const Container& container, u64 length, u32 sigma);

  // Many steps side by side.
  static void step_many(StepJob* jobs, std::size_t n);
  // The symbol of row i, and the row that it leads to.
  static void walk_many(WalkJob* jobs, std::size_t n);

  // Adds the occurrences of each symbol in rows [lo, hi) to counts[0, sigma).
  void add_counts(u64 lo, u64 hi, u64* counts) const;

  bool marked(u64 i) const;
  u64 marks_before(u64 i) const;
  void prefetch_mark(u64 i) const;
  u64 select_mark(u64 k) const;

  u64 length() const { return length_; }
  u32 sigma() const { return sigma_; }

 private:
  struct Block {  // as stored in section BLOCKS
    u64 offset;
    u64 marks;      // sampled rows before this block
    u32 unit;       // of the digit unit, from offset
    u32 digits;     // of the digit unit
    u32 mark_unit;  // of the bit unit, from offset
    u32 levels;
  };
  static_assert(sizeof(Block) == 32);
  static constexpr u32 kLevel = 20;
  friend struct BlockCursor;
  friend struct StepCursor;

  Block block(u64 k) const {
    return load<Block>(file_->at(blocks_ + k * sizeof(Block), sizeof(Block)));
  }
  u64 level(const Block& b, u32 l) const { return b.offset + 8 * u64{sigma_} + kLevel * u64{l}; }
  u32 level_first(const Block& b, u32 l) const { return load<u32>(file_->at(level(b, l), 4)); }
  // Symbols that go on past level l.
  u32 level_size(const Block& b, u32 l) const {
    return l < b.levels ? level_first(b, l + 1) - level_first(b, l) : 0;
  }
  u64 leaf_table(const Block& b) const { return level(b, b.levels + 1); }
  u32 leaf_symbol(const Block& b, u32 depth, u32 position, u32* start) const;
  QuadUnit unit(const Block& b) const { return QuadUnit::at(b.offset + b.unit, b.digits); }
  Guide guide(const Block& b) const {
    return {file_->raw(b.offset + b.unit - Guide::bytes(b.digits), Guide::bytes(b.digits))};
  }
  BitUnit marks(const Block& b, u64 k) const {
    return BitUnit::at(b.offset + b.mark_unit,
                       static_cast<u32>(std::min<u64>(u64{1} << kBlockLog, length_ - (k << kBlockLog))));
  }
  u64 entry(const Block& b, u32 c) const {
    return load<u64>(file_->at(b.offset + 8 * u64{c}, 8));
  }
  void count_range(const Block& b, u32 i, u32 j, u64* counts, i64 sign) const;
  void add_block_bases(u64 k, u64* counts, i64 sign) const;

  const MappedFile* file_ = nullptr;
  u64 blocks_ = 0, num_blocks_ = 0, length_ = 0, total_marks_ = 0;
  u64 first_rows_ = 0;  // C: sigma + 1 u64
  u32 sigma_ = 0;
};

// Writes sections BLOCKS and TREE from the last column and the bitmap of sampled rows.
template <class Symbol>
void write_block_tree(ContainerWriter& out, const Symbol* last_column, const u64* marks, u64 length,
                      u32 sigma, const std::vector<u64>& first_rows, struct Poll& poll);

}  // namespace unspool
