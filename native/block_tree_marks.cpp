// The marks of sampled rows: bits beside the digits of each block.
#include "block_tree.hpp"

namespace unspool {

void BlockTree::prefetch_mark(u64 i) const {
  if (i >= length_) return;
  const Block b = block(i >> kBlockLog);
  file_->fetch(b.offset + b.mark_unit + kDirEntry * (i % (u64{1} << kBlockLog) / kSuperBits));
}

bool BlockTree::marked(u64 i) const {
  const u64 k = i >> kBlockLog;
  return rank_bit(*file_, marks(block(k), k), static_cast<u32>(i % (u64{1} << kBlockLog))).bit;
}

u64 BlockTree::marks_before(u64 i) const {
  const u64 k = i >> kBlockLog;
  const Block b = block(k);
  return b.marks + rank_bit(*file_, marks(b, k), static_cast<u32>(i % (u64{1} << kBlockLog))).rank;
}

u64 BlockTree::select_mark(u64 k) const {
  if (k >= total_marks_) throw Corrupt(file_->path() + ": a sample points past the sampled rows.");
  u64 lo = 0, hi = num_blocks_;
  while (hi - lo > 1) {
    const u64 mid = (lo + hi) / 2;
    (block(mid).marks <= k ? lo : hi) = mid;
  }
  const Block b = block(lo);
  if (k < b.marks) throw Corrupt(file_->path() + ": the marks are out of order.");
  return (lo << kBlockLog) + select_one(*file_, marks(b, lo), static_cast<u32>(k - b.marks));
}

}  // namespace unspool
