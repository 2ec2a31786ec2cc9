// Rank over the last column of a token index: one Huffman-shaped wavelet matrix for the shard.
//
// Source: Claude, Navarro and Ordóñez (2015), "The wavelet matrix". A vocabulary of 2^16 and more
// symbols leaves no room for a table per block, so there is one code for all. Bits are hybrid units
// (bits.hpp) of 65,536 bits; one more level holds the bits that mark sampled rows.
// Sections: SYMBOLS {base u64, code u32, length u32}, LEVELS {first unit, zeros, bits: u64},
// UNITS {offset u64, ones before in the level u64}, LEAVES {first leaf u32 x (levels + 2) padded to
// 8, then {start u64, symbol u64}}, MATRIX (the units).
#pragma once
#include "bits.hpp"
#include "container.hpp"
#include "huffman.hpp"

namespace unspool {

class TokenMatrix {
 public:
  struct StepJob {
    const TokenMatrix* tree;
    u64 lo, hi;
    u32 c;
  };
  struct WalkJob {
    const TokenMatrix* tree;
    u64 i;
    u32 symbol;
    u64 out;
  };

  void open(const Container& container, u64 length, u32 sigma);
  // Rows [lo, hi) become those of the same matches with one symbol more; empty where lo == hi.
  static void step_many(StepJob* jobs, std::size_t n);
  static void walk_many(WalkJob* jobs, std::size_t n);

  // Calls f(symbol, count) for each symbol in rows [lo, hi).
  template <class F>
  void each_count(u64 lo, u64 hi, F f) const {
    visit(0, lo, hi, [&](u32 depth, u64 i, u64 j) { f(leaf_symbol(depth, i), j - i); });
  }

  bool marked(u64 i) const { return bit_rank(levels_, i).bit; }
  u64 marks_before(u64 i) const { return bit_rank(levels_, i).rank; }
  void prefetch_mark(u64) const {}
  u64 select_mark(u64 k) const;
  u64 length() const { return length_; }
  u32 sigma() const { return sigma_; }

 private:
  struct Symbol {
    u64 base;
    u32 code, length;
  };
  struct Level {
    u64 first_unit, zeros, bits;
  };
  struct Unit {
    u64 offset, ones;
  };
  struct RankBit64 {
    u64 rank;
    u32 bit;
  };
  Symbol symbol(u32 c) const { return load<Symbol>(file_->at(symbols_ + 16 * u64{c}, 16)); }
  Level level(u32 l) const { return load<Level>(file_->at(level_table_ + 24 * u64{l}, 24)); }
  RankBit64 bit_rank(u32 l, u64 i) const;
  void prefetch_bit(u32 l, u64 i) const;
  u32 leaf_symbol(u32 depth, u64 position) const;
  template <class F>
  void visit(u32 depth, u64 i, u64 j, const F& f) const {
    if (i >= j) return;
    if (depth >= levels_ || i >= level(depth).bits) return f(depth, i, j);
    const Level here = level(depth);
    const u64 ones_i = bit_rank(depth, i).rank, ones_j = bit_rank(depth, j).rank;
    visit(depth + 1, i - ones_i, j - ones_j, f);
    visit(depth + 1, here.zeros + ones_i, here.zeros + ones_j, f);
  }

  const MappedFile* file_ = nullptr;
  u64 symbols_ = 0, level_table_ = 0, units_ = 0, num_units_ = 0, leaves_ = 0, num_leaves_ = 0;
  u64 first_rows_ = 0, length_ = 0;
  u32 sigma_ = 0, levels_ = 0;
};

// Writes the sections; `last_column` is used up.
template <class Symbol>
void write_token_matrix(ContainerWriter& out, Symbol* last_column, const u64* marks, u64 length,
                        u32 sigma, const std::vector<u64>& first_rows, struct Poll& poll);

}  // namespace unspool
