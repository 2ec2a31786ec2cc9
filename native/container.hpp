// The file of one shard: a header page, named sections, and a CRC-32C for every unit of 512 bytes.
//
//   page 0      header: magic, version, sizes, parameters, section table, own checksum
//   page 1…     sections, each at a multiple of 64 bytes, zero padding between them
//   next page   one u32 a unit before it (those of page 0 are 0), zero padding to a whole unit
//   then        one u32 a unit of that table
// Everything is little-endian. The second table's checksum is in the header, the header's in its last
// word, so that every byte of the file is covered.
#pragma once
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base.hpp"
#include "mapped_file.hpp"

namespace unspool {

inline constexpr u32 kVersion = 3;
inline constexpr u8 kMagic[8] = {0x89, 'U', 'N', 'S', 'P', 'O', 'O', 'L'};

enum class Layout : u32 { kFmBytes = 1, kFmTokens = 2, kSuffixArray = 3 };

struct Params {
  u64 layout = 0;         // Layout
  u64 width = 0;          // bytes of one external symbol: 1, 2 or 4
  u64 rows = 0;           // suffixes, with those of separators and (fm) of the sentinel
  u64 documents = 0;
  u64 sigma = 0;          // dense symbols: sentinel, separator, and the values that occur
  u64 sa_sample = 0;      // fm: text distance of suffix-array samples
  u64 isa_sample = 0;     // fm: text distance of inverse samples
  u64 sentinel_row = 0;   // fm: the row whose last column is the sentinel
  u64 block_log = 0;      // fm, bytes: log2 of the symbols in a block
  u64 pointer_width = 0;  // sa: bytes of one array entry, 4 or 5
  u64 stored_width = 0;   // sa: bytes of one dense symbol of the text, 1, 2 or 4
  u64 sample_bits = 0, isample_bits = 0;  // fm: bits of one packed sample
  u64 pairs = 0;          // 1 where the table of symbol pairs is there
  u64 prefix_slots = 0;   // slots of the table of frequent beginnings; 0: none
  u64 reserved[9] = {};
};
inline constexpr u64 kNumParams = sizeof(Params) / 8;

struct Section {
  u64 offset = 0, length = 0;
};

class Container {
 public:
  Container(const std::string& path, bool ram);
  const MappedFile& file() const { return *file_; }
  const Params& params() const { return params_; }
  const std::map<std::string, Section>& sections() const { return sections_; }
  // Throws Corrupt where the section is missing or is not `length` bytes long.
  Section need(const std::string& name, u64 length = ~u64{0}) const;
  std::vector<std::string> verify() const;

 private:
  std::unique_ptr<MappedFile> file_;
  Params params_;
  std::map<std::string, Section> sections_;
  u32 second_crc() const;
  u64 table_offset_ = 0, second_offset_ = 0;
};

// Writes PATH atomically: a temporary file beside it, fsync, rename.
class ContainerWriter {
 public:
  explicit ContainerWriter(const std::string& path);
  ~ContainerWriter();
  void begin(const std::string& name);
  void write(const void* data, u64 size);
  template <class T>
  void write_all(const std::vector<T>& v) {
    write(v.data(), v.size() * sizeof(T));
  }
  void end();
  u64 section_size() const { return offset_ - open_.offset; }
  u64 position() const { return offset_; }
  // Returns the size of the finished file.
  u64 finish(const Params& params);

 private:
  void put(const u8* data, u64 size);
  void raw_write(const void* data, u64 size, u64 at);
  std::string path_, temporary_, name_;
  int fd_ = -1;
  u64 offset_ = 0;
  Section open_;
  std::vector<std::pair<std::string, Section>> sections_;
  std::vector<u32> crcs_;
  std::vector<u8> buffer_;
  u64 buffer_offset_ = 0;
};

// Fixed-width integers packed without gaps, low bits first; 8 bytes of slack at the end.
class PackedWriter {
 public:
  explicit PackedWriter(u32 bits) : bits_(bits) {}
  void push(u64 value) {
    const u64 at = count_++ * bits_;
    const u64 word = at / 64;
    if (words_.size() < word + 2) words_.resize(word + 2 + word / 8);
    words_[word] |= value << (at % 64);
    if (at % 64 + bits_ > 64) words_[word + 1] |= value >> (64 - at % 64);
  }
  void write(ContainerWriter& out) {
    words_.resize(ceil_div(count_ * bits_, 64) + 1);
    out.write_all(words_);
  }
  static u64 bytes(u64 count, u32 bits) { return (ceil_div(count * bits, 64) + 1) * 8; }

 private:
  u32 bits_;
  u64 count_ = 0;
  std::vector<u64> words_;
};

inline u64 packed_get(const MappedFile& f, u64 offset, u32 bits, u64 index) {
  const u64 at = index * bits;  // bits <= 40, so nine bytes are enough and eight always do
  const u64 word = load<u64>(f.at(offset + at / 8, 8));
  return (word >> (at % 8)) & ((u64{1} << bits) - 1);
}

}  // namespace unspool
