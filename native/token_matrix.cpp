#include "token_matrix.hpp"

#include <algorithm>

#include "poll.hpp"

namespace unspool {

namespace {
constexpr u64 kUnitBits = 1u << 16;
constexpr u32 kCodeLimit = 28;
}  // namespace

void TokenMatrix::open(const Container& container, u64 length, u32 sigma) {
  file_ = &container.file();
  length_ = length;
  sigma_ = sigma;
  symbols_ = container.need("SYMBOLS", 16 * u64{sigma}).offset;
  first_rows_ = container.need("ROWS", (u64{sigma} + 1) * 8).offset;
  const Section levels = container.need("LEVELS"), units = container.need("UNITS"),
                leaves = container.need("LEAVES");
  if (levels.length < 24 || levels.length / 24 > 64)
    throw Corrupt(file_->path() + ": an impossible number of levels.");
  levels_ = static_cast<u32>(levels.length / 24) - 1;
  level_table_ = levels.offset;
  units_ = units.offset;
  num_units_ = units.length / 16;
  leaves_ = leaves.offset;
  const u64 head = round_up(4 * (u64{levels_} + 2), 8);
  if (leaves.length < head) throw Corrupt(file_->path() + ": the leaf table is too short.");
  num_leaves_ = (leaves.length - head) / 16;
}

TokenMatrix::RankBit64 TokenMatrix::bit_rank(u32 l, u64 i) const {
  const Level here = level(l);
  if (here.bits == 0) return {0, 0};
  // The end of a level belongs to its last unit.
  const u64 k = std::min(i / kUnitBits, (here.bits - 1) / kUnitBits);
  if (here.first_unit + k >= num_units_) throw Corrupt(file_->path() + ": a level is too long.");
  const Unit unit = load<Unit>(file_->at(units_ + 16 * (here.first_unit + k), 16));
  const u32 size = static_cast<u32>(std::min(kUnitBits, here.bits - k * kUnitBits));
  const u64 inside = i - k * kUnitBits;
  const auto r = rank_bit(*file_, BitUnit::at(unit.offset, size),
                          static_cast<u32>(std::min<u64>(inside, size)));
  return {unit.ones + r.rank, r.bit};
}

void TokenMatrix::prefetch_bit(u32 l, u64 i) const {
  const Level here = level(l);
  const u64 k = here.first_unit + i / kUnitBits;
  if (k >= num_units_) return;
  const Unit unit = load<Unit>(file_->at(units_ + 16 * k, 16));
  file_->fetch(BitUnit::at(unit.offset, 0).dir_entry(static_cast<u32>(i % kUnitBits)));
}

u32 TokenMatrix::leaf_symbol(u32 depth, u64 position) const {
  if (depth > levels_) throw Corrupt(file_->path() + ": a code is too long.");
  u64 lo = load<u32>(file_->at(leaves_ + 4 * u64{depth}, 4));
  u64 hi = load<u32>(file_->at(leaves_ + 4 * u64{depth} + 4, 4));
  const u64 table = leaves_ + round_up(4 * (u64{levels_} + 2), 8);
  if (lo >= hi || hi > num_leaves_) throw Corrupt(file_->path() + ": the leaf table is damaged.");
  while (hi - lo > 1) {
    const u64 mid = (lo + hi) / 2;
    (load<u64>(file_->at(table + 16 * mid, 8)) <= position ? lo : hi) = mid;
  }
  const u64 symbol = load<u64>(file_->at(table + 16 * lo + 8, 8));
  if (symbol >= sigma_) throw Corrupt(file_->path() + ": a leaf is outside the alphabet.");
  return static_cast<u32>(symbol);
}

void TokenMatrix::step_many(StepJob* jobs, std::size_t n) {
  constexpr std::size_t kGroup = 32;
  for (std::size_t start = 0; start < n; start += kGroup) {
    const std::size_t count = std::min(kGroup, n - start);
    Symbol symbols[kGroup];
    u8 active[kGroup];
    std::size_t left = 0;
    for (std::size_t j = 0; j < count; ++j) {
      StepJob& job = jobs[start + j];
      if (job.hi > job.tree->length_)
        throw Corrupt(job.tree->file_->path() + ": a row lies outside the index.");
      symbols[j] = job.tree->symbol(job.c);
      if (symbols[j].length > job.tree->levels_)
        throw Corrupt(job.tree->file_->path() + ": a code is too long.");
      active[left++] = static_cast<u8>(j);
    }
    for (u32 l = 0; left; ++l) {
      std::size_t kept = 0;
      for (std::size_t a = 0; a < left; ++a) {
        StepJob& job = jobs[start + active[a]];
        const Symbol& s = symbols[active[a]];
        if (job.lo >= job.hi) {
          job.lo = job.hi = 0;
          continue;
        }
        if (l == s.length) {
          job.lo += s.base;
          job.hi += s.base;
          continue;
        }
        job.tree->prefetch_bit(l, job.lo);
        if (job.hi - job.lo > kSuperBits) job.tree->prefetch_bit(l, job.hi);
        active[kept++] = active[a];
      }
      left = kept;
      for (std::size_t a = 0; a < left; ++a) {
        StepJob& job = jobs[start + active[a]];
        const Symbol& s = symbols[active[a]];
        const u64 ones_lo = job.tree->bit_rank(l, job.lo).rank;
        const u64 ones_hi = job.tree->bit_rank(l, job.hi).rank;
        if ((s.code >> (s.length - 1 - l)) & 1) {
          const u64 zeros = job.tree->level(l).zeros;
          job.lo = zeros + ones_lo;
          job.hi = zeros + ones_hi;
        } else {
          job.lo -= ones_lo;
          job.hi -= ones_hi;
        }
      }
    }
  }
}

void TokenMatrix::walk_many(WalkJob* jobs, std::size_t n) {
  constexpr std::size_t kGroup = 32;
  for (std::size_t first = 0; first < n; first += kGroup) {
    const std::size_t count = std::min(kGroup, n - first);
    u64 position[kGroup];
    bool done[kGroup] = {};
    std::size_t left = count;
    for (std::size_t j = 0; j < count; ++j) {
      position[j] = jobs[first + j].i;
      if (position[j] >= jobs[first + j].tree->length_)
        throw Corrupt(jobs[first + j].tree->file_->path() + ": a row lies outside the index.");
    }
    for (u32 l = 0; left; ++l) {
      for (std::size_t j = 0; j < count; ++j) {
        if (done[j]) continue;
        const TokenMatrix* t = jobs[first + j].tree;
        if (l < t->levels_ && position[j] < t->level(l).bits) {
          t->prefetch_bit(l, position[j]);
          continue;
        }
        WalkJob& job = jobs[first + j];
        job.symbol = t->leaf_symbol(l, position[j]);
        job.out = t->symbol(job.symbol).base + position[j];
        done[j] = true;
        --left;
      }
      for (std::size_t j = 0; j < count; ++j) {
        if (done[j]) continue;
        const TokenMatrix* t = jobs[first + j].tree;
        const RankBit64 r = t->bit_rank(l, position[j]);
        position[j] = r.bit ? t->level(l).zeros + r.rank : position[j] - r.rank;
      }
    }
  }
}

u64 TokenMatrix::select_mark(u64 k) const {
  const Level marks = level(levels_);
  const u64 count = ceil_div(marks.bits, kUnitBits);
  if (count == 0 || marks.first_unit + count > num_units_)
    throw Corrupt(file_->path() + ": the marks are damaged.");
  u64 lo = 0, hi = count;
  while (hi - lo > 1) {
    const u64 mid = (lo + hi) / 2;
    (load<u64>(file_->at(units_ + 16 * (marks.first_unit + mid) + 8, 8)) <= k ? lo : hi) = mid;
  }
  const Unit unit = load<Unit>(file_->at(units_ + 16 * (marks.first_unit + lo), 16));
  const u32 size = static_cast<u32>(std::min(kUnitBits, marks.bits - lo * kUnitBits));
  return lo * kUnitBits +
         select_one(*file_, BitUnit::at(unit.offset, size), static_cast<u32>(k - unit.ones));
}

namespace {

// Cuts the bits of a level into units as they come.
class LevelWriter {
 public:
  LevelWriter(ContainerWriter& out, std::vector<u64>& units) : out_(out), units_(units) {}
  void push(u32 bit) {
    words_[size_ / 64] |= u64{bit} << (size_ % 64);
    if (++size_ == kUnitBits) flush();
  }
  void flush() {
    if (!size_) return;
    units_.push_back(out_.position());
    units_.push_back(ones_);
    u64 ones = 0;
    for (u64 w : words_) ones += static_cast<u64>(__builtin_popcountll(w));
    ones_ += ones;
    bytes_.clear();
    append_unit(bytes_, words_.data(), size_);
    out_.write(bytes_.data(), bytes_.size());
    std::fill(words_.begin(), words_.end(), 0);
    size_ = 0;
  }

 private:
  ContainerWriter& out_;
  std::vector<u64>& units_;
  std::vector<u64> words_ = std::vector<u64>(kUnitBits / 64);
  std::vector<u8> bytes_;
  u32 size_ = 0;
  u64 ones_ = 0;
};

}  // namespace

template <class Symbol>
void write_token_matrix(ContainerWriter& out, Symbol* column, const u64* marks, u64 length,
                        u32 sigma, const std::vector<u64>& first_rows, Poll& poll) {
  std::vector<u64> frequency(sigma, 0);
  for (u64 i = 0; i < length; ++i) ++frequency[column[i]];
  const CodeBook book = make_codes(huffman_lengths(frequency, kCodeLimit));
  std::vector<u32> aligned(sigma, 0);
  for (u32 c = 0; c < sigma; ++c)
    if (book.length[c]) aligned[c] = book.code[c] << (32 - book.length[c]);

  std::vector<u64> levels, units, leaf_start(sigma, 0);
  std::vector<Symbol> ones;
  u64 size = length;
  out.begin("MATRIX");
  for (u32 l = 0; l < book.levels; ++l) {
    const u64 first_unit = units.size() / 2;
    LevelWriter writer(out, units);
    ones.clear();
    u64 zeros = 0;
    for (u64 i = 0; i < size; ++i) {
      const Symbol c = column[i];
      const u32 bit = (aligned[c] >> (31 - l)) & 1;
      writer.push(bit);
      if (bit)
        ones.push_back(c);
      else
        column[zeros++] = c;
      if ((i & 0xFFFF) == 0) poll(512);
    }
    writer.flush();
    std::copy(ones.begin(), ones.end(), column + zeros);
    levels.insert(levels.end(), {first_unit, zeros, size});
    u64 ending = 0;
    for (u32 leaf = book.first_leaf[l + 1]; leaf < book.first_leaf[l + 2]; ++leaf)
      ending += frequency[book.leaf_symbol[leaf]];
    u64 position = size - ending;
    for (u32 leaf = book.first_leaf[l + 1]; leaf < book.first_leaf[l + 2]; ++leaf) {
      leaf_start[book.leaf_symbol[leaf]] = position;
      position += frequency[book.leaf_symbol[leaf]];
    }
    size -= ending;
  }
  {
    levels.insert(levels.end(), {units.size() / 2, 0, length});
    LevelWriter writer(out, units);
    for (u64 i = 0; i < length; ++i) writer.push((marks[i / 64] >> (i % 64)) & 1);
    writer.flush();
  }
  out.end();
  out.begin("LEVELS");
  out.write_all(levels);
  out.end();
  out.begin("UNITS");
  out.write_all(units);
  out.end();

  std::vector<u32> first_leaf(book.first_leaf);
  std::vector<u64> leaves;
  if (book.levels == 0) {
    first_leaf = {0, 0};
    for (u32 c = 0; c < sigma; ++c)
      if (frequency[c]) {
        leaves = {0, c};
        first_leaf = {0, 1};
      }
  }
  for (u32 symbol : book.leaf_symbol) leaves.insert(leaves.end(), {leaf_start[symbol], symbol});
  if (first_leaf.size() % 2) first_leaf.push_back(0);
  out.begin("LEAVES");
  out.write_all(first_leaf);
  out.write_all(leaves);
  out.end();
  out.begin("SYMBOLS");
  for (u32 c = 0; c < sigma; ++c) {
    const u64 base = first_rows[c] - leaf_start[c];
    const u32 code[2] = {book.code[c], book.length[c]};
    out.write(&base, 8);
    out.write(code, 8);
  }
  out.end();
}

template void write_token_matrix<u16>(ContainerWriter&, u16*, const u64*, u64, u32,
                                      const std::vector<u64>&, Poll&);
template void write_token_matrix<u32>(ContainerWriter&, u32*, const u64*, u64, u32,
                                      const std::vector<u64>&, Poll&);

}  // namespace unspool
