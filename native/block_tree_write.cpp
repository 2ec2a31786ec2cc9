// Writes the blocks of a byte index: one 4-ary code, its levels and its marks for each.
#include <algorithm>

#include "block_tree.hpp"
#include "poll.hpp"

namespace unspool {

namespace {
constexpr u32 kBlock = 1u << kBlockLog;
}  // namespace

template <class Symbol>
void write_block_tree(ContainerWriter& out, const Symbol* last_column, const u64* marks, u64 length,
                      u32 sigma, const std::vector<u64>& first_rows, Poll& poll) {
  struct Stored {
    u64 offset, marks;
    u32 unit, digits, mark_unit, levels;
  };
  std::vector<Stored> blocks;
  std::vector<u64> before(sigma, 0);  // occurrences of each symbol before the block
  std::vector<u64> frequency(sigma);
  std::vector<Symbol> here(kBlock), parts[4];
  for (auto& part : parts) part.resize(kBlock);
  std::vector<u32> aligned(sigma);
  std::vector<u8> digits, bytes;
  u64 num_marks = 0;
  out.begin("TREE");
  for (u64 at = 0; at < length; at += kBlock) {
    const u32 size = static_cast<u32>(std::min<u64>(kBlock, length - at));
    std::fill(frequency.begin(), frequency.end(), 0);
    for (u32 i = 0; i < size; ++i) ++frequency[last_column[at + i]];
    const CodeBook book = make_codes(huffman_lengths(frequency, kCodeLimit, 2), 2);
    for (u32 c = 0; c < sigma; ++c)
      aligned[c] = book.length[c] ? book.code[c] << (32 - 2 * book.length[c]) : 0;

    // Levels: a stable partition by the level's digit; who ends here stands last and is dropped.
    std::copy(last_column + at, last_column + at + size, here.begin());
    u32 level_size = size;
    u32 before_level[4] = {};  // of each digit in the unit
    std::vector<u32> levels;
    std::vector<std::vector<u32>> leaf_starts(book.levels + 1);
    digits.clear();
    for (u32 l = 0; l < book.levels; ++l) {
      const u32 first = static_cast<u32>(digits.size());
      digits.resize(first + level_size);
      u32 count[4] = {};
      for (u32 i = 0; i < level_size; ++i) {
        const Symbol c = here[i];
        const u32 digit = (aligned[c] >> (30 - 2 * l)) & 3;
        digits[first + i] = static_cast<u8>(digit);
        parts[digit][count[digit]++] = c;
      }
      levels.push_back(first);
      u32 to = 0;
      for (u32 d = 0; d < 4; ++d) {
        levels.push_back(to - before_level[d]);
        std::copy(parts[d].begin(), parts[d].begin() + count[d], here.begin() + to);
        to += count[d];
        before_level[d] += count[d];
      }
      // Leaves of this depth, in order of position.
      u32 ending = 0;
      for (u32 leaf = book.first_leaf[l + 1]; leaf < book.first_leaf[l + 2]; ++leaf)
        ending += static_cast<u32>(frequency[book.leaf_symbol[leaf]]);
      u32 position = level_size - ending;
      for (u32 leaf = book.first_leaf[l + 1]; leaf < book.first_leaf[l + 2]; ++leaf) {
        leaf_starts[l + 1].push_back(position);
        position += static_cast<u32>(frequency[book.leaf_symbol[leaf]]);
      }
      level_size -= ending;
    }
    levels.insert(levels.end(), {static_cast<u32>(digits.size()), 0, 0, 0, 0});

    bytes.clear();
    bytes.resize(8 * u64{sigma});
    std::vector<u32> leaf_start(sigma, 0);
    std::vector<u32> first_leaf, leaves;
    if (book.levels == 0) {
      // One symbol only: a single leaf at depth 0.
      const u32 only = static_cast<u32>(last_column[at]);
      first_leaf = {0, 1};
      leaves = {only};
    } else {
      first_leaf = book.first_leaf;
      for (u32 depth = 1; depth <= book.levels; ++depth)
        for (u32 leaf = book.first_leaf[depth]; leaf < book.first_leaf[depth + 1]; ++leaf) {
          const u32 start = leaf_starts[depth][leaf - book.first_leaf[depth]];
          leaf_start[book.leaf_symbol[leaf]] = start;
          leaves.push_back(start << 15 | book.leaf_symbol[leaf]);
        }
    }
    for (u32 c = 0; c < sigma; ++c) {
      const u64 base = (first_rows[c] + before[c] - leaf_start[c]) & kMask40;
      const bool whole = book.levels == 0 && frequency[c];
      const u64 bits = whole ? BlockTree::kWholeBlock : book.length[c];
      store(bytes.data() + 8 * c, base | u64{book.code[c]} << 40 | bits << 59);
      before[c] += frequency[c];
    }
    const auto append = [&](const std::vector<u32>& v) {
      const u8* p = reinterpret_cast<const u8*>(v.data());
      bytes.insert(bytes.end(), p, p + 4 * v.size());
    };
    append(levels);
    append(first_leaf);
    append(leaves);
    const u32 num_digits = static_cast<u32>(digits.size());
    const u32 unit = static_cast<u32>(append_quads(bytes, digits.data(), num_digits));
    const u32 mark_unit = static_cast<u32>(bytes.size());
    append_unit(bytes, marks + at / 64, size);
    bytes.resize(round_up(bytes.size(), 64));
    blocks.push_back({out.section_size(), num_marks, unit, num_digits, mark_unit, book.levels});
    for (u32 i = 0; i < size; i += 64) {
      const u64 word = marks[(at + i) / 64];
      const u64 mask = size - i < 64 ? (u64{1} << (size - i)) - 1 : ~u64{0};
      num_marks += static_cast<u64>(__builtin_popcountll(word & mask));
    }
    out.write(bytes.data(), bytes.size());
    poll(1024);
  }
  const u64 end = out.section_size();
  const u64 origin = out.position() - end;
  out.end();
  blocks.push_back({end, num_marks, 0, 0, 0, 0});
  for (Stored& b : blocks) b.offset += origin;
  out.begin("BLOCKS");
  out.write_all(blocks);
  out.end();
}

template void write_block_tree<u8>(ContainerWriter&, const u8*, const u64*, u64, u32,
                                   const std::vector<u64>&, Poll&);
template void write_block_tree<u16>(ContainerWriter&, const u16*, const u64*, u64, u32,
                                    const std::vector<u64>&, Poll&);

}  // namespace unspool
