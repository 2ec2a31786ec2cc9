// Prefix codes laid out as a wavelet matrix: at every level the symbols that end there come last.
// Codes are of bits, or of two-bit digits (`digit_bits` 2: a 4-ary Huffman code).
//
// Source: Claude, Navarro and Ordóñez (2015), "The wavelet matrix", section on Huffman shape: if the
// leaves of a depth are its last nodes in wavelet-matrix order (children by digit 0 of all nodes above
// before those by digit 1, and so on), a level holds only the symbols that go on and needs no table of nodes.
#pragma once
#include <algorithm>
#include <queue>
#include <vector>

#include "base.hpp"

namespace unspool {

struct CodeBook {
  std::vector<u32> code;    // by symbol; the first level's digit is the highest
  std::vector<u8> length;   // in digits; 0: the symbol does not occur, or is the only one
  u32 levels = 0;
  // Leaves by depth, each depth in the order of its positions: symbol, and the depth's first leaf.
  std::vector<u32> leaf_symbol;
  std::vector<u32> first_leaf;  // levels + 2 entries: [depth], from depth 1 at index 1
};

inline std::vector<u8> huffman_lengths(std::vector<u64> frequency, u32 limit, u32 digit_bits = 1) {
  const std::size_t n = frequency.size(), arity = std::size_t{1} << digit_bits;
  for (;;) {
    // Two queues: the sorted leaves, and the inner nodes, which are made in ascending order.
    std::vector<u32> leaves;
    for (u32 c = 0; c < n; ++c)
      if (frequency[c]) leaves.push_back(c);
    std::vector<u8> length(n, 0);
    if (leaves.size() < 2) return length;
    std::stable_sort(leaves.begin(), leaves.end(),
                     [&](u32 a, u32 b) { return frequency[a] < frequency[b]; });
    // Leaves of no weight fill the first node up, so that every node has `arity` children.
    const std::size_t filler = (arity - 1 - (leaves.size() - 1) % (arity - 1)) % (arity - 1);
    const std::size_t m = leaves.size() + filler, inner_nodes = (m - 1) / (arity - 1);
    std::vector<u64> weight(m + inner_nodes);
    std::vector<u32> parent(m + inner_nodes, 0);
    for (std::size_t i = filler; i < m; ++i) weight[i] = frequency[leaves[i - filler]];
    std::size_t leaf = 0, inner = m;
    for (std::size_t node = m; node < m + inner_nodes; ++node) {
      for (std::size_t side = 0; side < arity; ++side) {
        const bool take_leaf = leaf < m && (inner >= node || weight[leaf] <= weight[inner]);
        const std::size_t child = take_leaf ? leaf++ : inner++;
        weight[node] += weight[child];
        parent[child] = static_cast<u32>(node);
      }
    }
    std::vector<u32> depth(m + inner_nodes, 0);
    u32 deepest = 0;
    for (std::size_t node = m + inner_nodes - 1; node-- > 0;) {
      depth[node] = depth[parent[node]] + 1;
      if (node < m) deepest = std::max(deepest, depth[node]);
    }
    if (deepest <= limit) {
      for (std::size_t i = filler; i < m; ++i)
        length[leaves[i - filler]] = static_cast<u8>(depth[i]);
      return length;
    }
    for (u64& f : frequency)  // flatter frequencies make a flatter tree
      if (f) f = f / 4 + 1;
  }
}

inline CodeBook make_codes(const std::vector<u8>& length, u32 digit_bits = 1) {
  CodeBook book;
  book.length = length;
  book.code.assign(length.size(), 0);
  std::vector<std::vector<u32>> by_length;
  for (u32 c = 0; c < length.size(); ++c) {
    if (!length[c]) continue;
    if (by_length.size() <= length[c]) by_length.resize(length[c] + 1u);
    by_length[length[c]].push_back(c);
    book.levels = std::max<u32>(book.levels, length[c]);
  }
  book.first_leaf.assign(book.levels + 2, 0);
  std::vector<u32> nodes{0};  // code prefixes of the inner nodes, in order of position
  for (u32 depth = 1; depth <= book.levels; ++depth) {
    std::vector<u32> children;
    children.reserve(nodes.size() << digit_bits);
    for (u32 digit = 0; digit < u32{1} << digit_bits; ++digit)
      for (u32 prefix : nodes) children.push_back(prefix << digit_bits | digit);
    const auto& symbols = by_length[depth];
    // At the last depth fillers stand among the inner nodes: no symbol comes there.
    const std::size_t inner = children.size() - symbols.size();
    book.first_leaf[depth] = static_cast<u32>(book.leaf_symbol.size());
    for (std::size_t i = 0; i < symbols.size(); ++i) {
      book.code[symbols[i]] = children[inner + i];
      book.leaf_symbol.push_back(symbols[i]);
    }
    children.resize(inner);
    nodes.swap(children);
  }
  book.first_leaf[book.levels + 1] = static_cast<u32>(book.leaf_symbol.size());
  return book;
}

}  // namespace unspool
