#include "block_tree.hpp"

#include <algorithm>

#include "poll.hpp"

namespace unspool {

namespace {
constexpr u32 kBlock = 1u << kBlockLog;
constexpr std::size_t kGroup = 64;  // jobs whose cache misses overlap
constexpr std::size_t kFew = 8;     // jobs that leave room for fetching on a guess
}  // namespace

void BlockTree::open(const Container& container, u64 length, u32 sigma) {
  file_ = &container.file();
  length_ = length;
  sigma_ = sigma;
  num_blocks_ = ceil_div(length, kBlock);
  blocks_ = container.need("BLOCKS", (num_blocks_ + 1) * sizeof(Block)).offset;
  first_rows_ = container.need("ROWS", (u64{sigma} + 1) * 8).offset;
  container.need("TREE");
  total_marks_ = block(num_blocks_).marks;
}

// A row on its way down a block, which tells its symbol.
struct BlockCursor {
  const BlockTree* tree;
  BlockTree::Block b;
  QuadUnit unit;
  const u8* level;
  const u8* entry;
  u32 i, x, depth, slot;
  quads::Place place;

  void begin(u64 k) {
    b = tree->block(k);
    unit = tree->unit(b);
    depth = 0;
    tree->file_->fetch(tree->level(b, 0));
    tree->file_->fetch(unit.dir_entry(i));
  }
  void fetch_entry() {
    if (depth == 0)
      level = tree->file_->at(tree->level(b, 0), BlockTree::kLevel * (u64{b.levels} + 1));
    x = load<u32>(level) + i;
    if (UNSPOOL_UNLIKELY(x >= unit.size))
      throw Corrupt(tree->file_->path() + ": a position lies outside its block. The file is damaged.");
    tree->file_->fetch(unit.dir_entry(x));
  }
  void fetch_chunk() {
    entry = tree->file_->at(unit.dir_entry(x), kQuadEntry);
    place = quads::place(entry, x % kQuadSuper / kQuadChunk, 0);
    tree->file_->fetch(unit.data + place.offset);
  }
  void move() {
    const u32 chunk = x % kQuadSuper / kQuadChunk, inside = x % kQuadChunk;
    u32 digit, rank;
    if (place.kind == 0) {
      digit = quads::whole_digit(entry, chunk);
      rank = quads::place(entry, chunk, digit).rank + inside;
    } else {
      const u8* data = tree->file_->at(unit.data + place.offset, place.kind);
      digit = quads::chunk_digit(data, place.kind, inside);
      rank = quads::place(entry, chunk, digit).rank + quads::chunk_rank(data, place.kind, inside, digit);
    }
    i = load<u32>(level + 4 + 4 * digit) + rank;
    level += BlockTree::kLevel;
    ++depth;
  }
};

// The two ends of a range on their way down one block; or one end alone (hi is null), where the
// range begins and ends in different blocks. Between two calls its next cache lines are on their way.
struct StepCursor {
  const MappedFile* file;
  const u8* entry;        // of the symbol in the block
  const u8* level;        // of the level we are on
  QuadUnit unit;
  Guide guide;
  u64 base;
  u64* lo;
  u64* hi;
  u32 i, j;               // positions in the level
  u32 x, y;               // positions in the unit
  const u8* data_i;       // of the chunk that holds x
  const u8* data_j;
  u32 rank_i, rank_j;     // of the digit before the chunks
  u32 kind_i, kind_j;
  u32 code, left;         // the next digits of the code, highest first; levels to go
  u32 num_levels;

  // Positions are relative to the block; an end may stand just past its last symbol.
  // With few steps side by side memory idles, and what may be needed is fetched as well.
  void begin(const BlockTree& tree, u64 k, u64 position_i, u64 position_j, u64* out_lo, u64* out_hi,
             u32 c, bool few) {
    file = tree.file_;
    const BlockTree::Block b = tree.block(k);
    num_levels = b.levels;
    unit = tree.unit(b);
    guide = few ? tree.guide(b) : Guide{nullptr};
    i = static_cast<u32>(position_i);
    j = static_cast<u32>(position_j);
    lo = out_lo;
    hi = out_hi;
    entry = file->at(b.offset + 8 * u64{c}, 8);
    level = file->at(tree.level(b, 0), BlockTree::kLevel * (u64{num_levels} + 1));
    prefetch(entry);
    prefetch(level);
    fetch(i, j);
  }
  // Brings near what will be read of the unit for two positions.
  UNSPOOL_ALWAYS_INLINE void fetch(u32 first, u32 second) const {
    if (!guide.begins) {
      file->fetch(unit.dir_entry(first));
      if (first / kQuadSuper != second / kQuadSuper) file->fetch(unit.dir_entry(second));
      return;
    }
    file->fetch_new(unit.dir_entry(first));
    if (first < unit.size) guide.fetch_new(*file, unit, first);
    if (first / kQuadChunk == second / kQuadChunk) return;
    if (first / kQuadSuper != second / kQuadSuper) file->fetch_new(unit.dir_entry(second));
    if (second < unit.size) guide.fetch_new(*file, unit, second);
  }
  // Loads the symbol's entry; false where no level is needed.
  bool start() {
    const u64 e = load<u64>(entry);
    base = e & kMask40;
    left = static_cast<u32>(e >> 59);
    if (left == 0 || left == BlockTree::kWholeBlock) {
      *lo = left ? (base + i) & kMask40 : base;
      if (hi) *hi = left ? (base + j) & kMask40 : base;
      return false;
    }
    if (UNSPOOL_UNLIKELY(left > num_levels || left > kCodeLimit))
      throw Corrupt(file->path() + ": a code is longer than its block. The file is damaged.");
    code = static_cast<u32>(e >> 40 & 0x7FFFF) << (32 - 2 * left);
    place();
    return true;
  }
  // Finds both positions in the unit.
  void place() {
    const u32 first = load<u32>(level);
    x = first + i;
    y = first + j;
    // The end of the last level is the end of the unit.
    if (UNSPOOL_UNLIKELY(std::max(x, y) > unit.size))
      throw Corrupt(file->path() + ": a position lies outside its block. The file is damaged.");
    fetch(x, y);
  }
  const u8* find_chunk(u32 position, u32* rank, u32* kind) const {
    const u8* before = file->at(unit.dir_entry(position), kQuadEntry);
    const u32 chunk = position % kQuadSuper / kQuadChunk;
    const quads::Place p = quads::place(before, chunk, code >> 30);
    *rank = p.rank;
    *kind = p.kind;
    if (p.kind == 0) {  // nothing to read: every digit of the chunk counts, or none does
      *kind = quads::whole_digit(before, chunk) == code >> 30 ? kAllMatch : kNoMatch;
      return before;
    }
    const u8* data = file->at(unit.data + p.offset, p.kind);
    prefetch(data);
    prefetch(data + p.kind - 1);
    return data;
  }
  static constexpr u32 kNoMatch = 1000, kAllMatch = 1001;
  static u32 rank_in(const u8* data, u32 kind, u32 position, u32 digit) {
    if (kind >= kNoMatch) return kind == kAllMatch ? position : 0;
    return quads::chunk_rank(data, kind, position, digit);
  }
  // Reads the directory and fetches the chunks.
  void find() {
    data_i = find_chunk(x, &rank_i, &kind_i);
    if (x / kQuadChunk == y / kQuadChunk) {
      data_j = data_i;
      rank_j = rank_i;
      kind_j = kind_i;
    } else {
      data_j = find_chunk(y, &rank_j, &kind_j);
    }
  }
  // Moves down one level; false when the step is over.
  bool advance() {
    const u32 digit = code >> 30;
    const u32 to = load<u32>(level + 4 + 4 * digit);
    i = to + rank_i + rank_in(data_i, kind_i, x % kQuadChunk, digit);
    if (hi) {
      j = to + rank_j + rank_in(data_j, kind_j, y % kQuadChunk, digit);
      if (i == j) {  // none of the symbols between the ends is c
        *lo = *hi = 0;
        return false;
      }
    } else {
      j = i;
    }
    if (--left == 0) {
      *lo = (base + i) & kMask40;
      if (hi) *hi = (base + j) & kMask40;
      return false;
    }
    code <<= 2;
    level += BlockTree::kLevel;
    place();
    return true;
  }
};

void BlockTree::step_many(StepJob* jobs, std::size_t n) {
  StepCursor cursors[kGroup];
  StepCursor* active[kGroup];
  const bool few = n <= kFew;
  for (std::size_t next = 0; next < n;) {
    std::size_t used = 0;
    while (next < n && used + 2 <= kGroup) {
      StepJob& job = jobs[next++];
      const BlockTree& tree = *job.tree;
      if (job.lo >= job.hi || job.hi > tree.length_) {
        if (job.hi > tree.length_)
          throw Corrupt(tree.file_->path() + ": a row lies outside the index.");
        job.lo = job.hi = 0;
        continue;
      }
      const u64 k = job.lo / kBlock, l = (job.hi - 1) / kBlock;
      const u64 lo = job.lo - k * kBlock, hi = job.hi - l * kBlock;
      if (k == l) {
        cursors[used++].begin(tree, k, lo, hi, &job.lo, &job.hi, job.c, few);
      } else {
        cursors[used++].begin(tree, k, lo, lo, &job.lo, nullptr, job.c, few);
        cursors[used++].begin(tree, l, hi, hi, &job.hi, nullptr, job.c, few);
      }
    }
    std::size_t left = 0;
    for (std::size_t a = 0; a < used; ++a)
      if (cursors[a].start()) active[left++] = &cursors[a];
    while (left) {
      std::size_t kept = 0;
      for (std::size_t a = 0; a < left; ++a) active[a]->find();
      for (std::size_t a = 0; a < left; ++a)
        if (active[a]->advance()) active[kept++] = active[a];
      left = kept;
    }
  }
}

u32 BlockTree::leaf_symbol(const Block& b, u32 depth, u32 position, u32* start) const {
  const u64 table = leaf_table(b);
  const u64 leaves = table + 4 * (u64{b.levels} + 2);
  u32 lo = load<u32>(file_->at(table + 4 * u64{depth}, 8)), hi = load<u32>(file_->at(table + 4 * u64{depth} + 4, 4));
  while (hi - lo > 1 && hi > lo) {  // last leaf of this depth that starts at or before the position
    const u32 mid = lo + (hi - lo) / 2;
    (load<u32>(file_->at(leaves + 4 * u64{mid}, 4)) >> 15 <= position ? lo : hi) = mid;
  }
  const u32 leaf = load<u32>(file_->at(leaves + 4 * u64{lo}, 4));
  *start = leaf >> 15;
  const u32 symbol = leaf & 0x7FFF;
  if (UNSPOOL_UNLIKELY(symbol >= sigma_))
    throw Corrupt(file_->path() + ": a block names a symbol outside the alphabet.");
  return symbol;
}

void BlockTree::walk_many(WalkJob* jobs, std::size_t n) {
  BlockCursor cursors[kGroup];
  for (std::size_t first = 0; first < n; first += kGroup) {
    const std::size_t count = std::min(kGroup, n - first);
    std::size_t active = 0;
    for (std::size_t j = 0; j < count; ++j) {
      WalkJob& job = jobs[first + j];
      BlockCursor& cursor = cursors[active];
      cursor.tree = job.tree;
      if (job.i >= job.tree->length_)
        throw Corrupt(job.tree->file_->path() + ": a row lies outside the index.");
      cursor.slot = static_cast<u32>(j);
      cursor.i = static_cast<u32>(job.i % kBlock);
      cursor.begin(job.i / kBlock);
      ++active;
    }
    std::size_t kept = 0;
    for (std::size_t a = 0; a < active; ++a) {
      BlockCursor& cursor = cursors[a];
      if (cursor.b.levels) {
        if (kept != a) cursors[kept] = cursor;
        ++kept;
        continue;
      }
      WalkJob& job = jobs[first + cursor.slot];
      u32 start;
      job.symbol = cursor.tree->leaf_symbol(cursor.b, 0, 0, &start);
      job.out = ((cursor.tree->entry(cursor.b, job.symbol) & kMask40) + cursor.i) & kMask40;
    }
    active = kept;
    while (active) {
      for (std::size_t a = 0; a < active; ++a) cursors[a].fetch_entry();
      for (std::size_t a = 0; a < active; ++a) cursors[a].fetch_chunk();
      kept = 0;
      for (std::size_t a = 0; a < active; ++a) {
        BlockCursor& cursor = cursors[a];
        cursor.move();
        // The next level holds only the symbols that go on: whoever stands past its end is a leaf.
        const BlockTree* tree = cursor.tree;
        const u32 next_size = tree->level_size(cursor.b, cursor.depth);
        if (cursor.i >= next_size) {
          WalkJob& job = jobs[first + cursor.slot];
          u32 start;
          job.symbol = tree->leaf_symbol(cursor.b, cursor.depth, cursor.i, &start);
          job.out = ((tree->entry(cursor.b, job.symbol) & kMask40) + cursor.i) & kMask40;
        } else {
          if (kept != a) cursors[kept] = cursor;
          ++kept;
        }
      }
      active = kept;
    }
  }
}

void BlockTree::count_range(const Block& b, u32 i, u32 j, u64* counts, i64 sign) const {
  if (i >= j) return;
  u32 start;
  if (b.levels == 0) {
    counts[leaf_symbol(b, 0, 0, &start)] += static_cast<u64>(sign * i64{j - i});
    return;
  }
  struct Node {
    u32 i, j, depth;
  };
  Node stack[64];
  u32 top = 0;
  stack[top++] = {i, j, 0};
  const QuadUnit digits = unit(b);
  while (top) {
    const Node node = stack[--top];
    const u8* here = file_->at(level(b, node.depth), kLevel);
    const u32 first = load<u32>(here);
    const u32 next_size = level_size(b, node.depth + 1), depth = node.depth + 1;
    for (u32 digit = 0; digit < 4; ++digit) {
      const u32 to = load<u32>(here + 4 + 4 * digit);
      const u32 child_i = to + quad_rank(*file_, digits, first + node.i, digit);
      const u32 child_j = to + quad_rank(*file_, digits, first + node.j, digit);
      if (child_i >= child_j) continue;
      if (depth >= b.levels || child_i >= next_size) {
        counts[leaf_symbol(b, depth, child_i, &start)] += static_cast<u64>(sign * i64{child_j - child_i});
      } else {
        if (top == 64) throw Corrupt(file_->path() + ": a block has an impossible code.");
        stack[top++] = {child_i, child_j, depth};
      }
    }
  }
}

// Adds sign * (C[c] + occurrences of c before block k) for each symbol.
void BlockTree::add_block_bases(u64 k, u64* counts, i64 sign) const {
  const Block b = block(k);
  const u64 table = leaf_table(b);
  const u8* entries = file_->at(b.offset, 8 * u64{sigma_});
  const u32 num_leaves = load<u32>(file_->at(table + 4 * (u64{b.levels} + 1), 4));
  if (num_leaves > sigma_) throw Corrupt(file_->path() + ": a block has too many symbols.");
  const u8* leaves = file_->at(table + 4 * (u64{b.levels} + 2), 4 * u64{num_leaves});
  std::vector<u32> start(sigma_, 0);
  for (u32 l = 0; l < num_leaves; ++l) {
    const u32 leaf = load<u32>(leaves + 4 * l);
    if ((leaf & 0x7FFF) < sigma_) start[leaf & 0x7FFF] = leaf >> 15;
  }
  for (u32 c = 0; c < sigma_; ++c)
    counts[c] += static_cast<u64>(sign) * ((load<u64>(entries + 8 * c) + start[c]) & kMask40);
}

void BlockTree::add_counts(u64 lo, u64 hi, u64* counts) const {
  if (lo >= hi) return;
  const u64 first = lo / kBlock, last = (hi - 1) / kBlock;
  const u32 i = static_cast<u32>(lo % kBlock), j = static_cast<u32>((hi - 1) % kBlock) + 1;
  if (first == last) {
    count_range(block(first), i, j, counts, 1);
    return;
  }
  // Whole blocks between the ends: bases of the last block minus those of the first.
  count_range(block(first), 0, i, counts, -1);
  add_block_bases(first, counts, -1);
  add_block_bases(last, counts, 1);
  count_range(block(last), 0, j, counts, 1);
}

}  // namespace unspool
