// The text of a shard on its way from the spool files into memory.
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <string>
#include <unordered_set>
#include <vector>

#include "build.hpp"
#include "poll.hpp"
#include "query.hpp"

namespace unspool {

// Large arrays straight from the system: huge pages where it has them, returned at once.
class Buffer {
 public:
  explicit Buffer(u64 bytes) : bytes_(round_up(std::max<u64>(bytes, 1), 1 << 21)) {
    void* p = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<u8*>(p);
#ifdef MADV_HUGEPAGE
    madvise(data_, bytes_, MADV_HUGEPAGE);
#endif
  }
  ~Buffer() { reset(); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  template <class T>
  T* as() {
    return reinterpret_cast<T*>(data_);
  }
  // Gives back everything after the first `bytes`.
  void shrink(u64 bytes) {
    const u64 keep = round_up(std::max<u64>(bytes, 1), 1 << 21);
    if (keep < bytes_) {
      munmap(data_ + keep, bytes_ - keep);
      bytes_ = keep;
    }
  }
  void reset() {
    if (data_) munmap(data_, bytes_);
    data_ = nullptr;
  }

 private:
  u8* data_ = nullptr;
  u64 bytes_;
};

// Reads the pieces as one stream.
class SpoolReader {
 public:
  explicit SpoolReader(const std::vector<Piece>& pieces) : pieces_(pieces) {}
  ~SpoolReader() {
    if (fd_ >= 0) ::close(fd_);
  }
  void read(u8* out, u64 size) {
    while (size) {
      if (fd_ < 0) open_next();
      const u64 want = std::min(size, left_);
      const ssize_t got = ::pread(fd_, out, want, static_cast<off_t>(at_));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail("reading ");
      if (got == 0) throw Corrupt(pieces_[next_ - 1].path + " is shorter than the plan says.");
      out += got;
      size -= static_cast<u64>(got);
      at_ += static_cast<u64>(got);
      left_ -= static_cast<u64>(got);
      if (!left_) {
        ::close(fd_);
        fd_ = -1;
      }
    }
  }

 private:
  void open_next() {
    while (next_ < pieces_.size() && pieces_[next_].length == 0) ++next_;
    if (next_ == pieces_.size()) throw Corrupt("The spooled text is shorter than its documents.");
    const Piece& piece = pieces_[next_++];
    fd_ = ::open(piece.path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) fail("opening ");
    at_ = piece.offset;
    left_ = piece.length;
  }
  [[noreturn]] void fail(const char* doing) {
    const int error = errno;
    throw SystemError(error, doing + pieces_[next_ - 1].path + ": " + std::strerror(error));
  }
  const std::vector<Piece>& pieces_;
  std::size_t next_ = 0;
  int fd_ = -1;
  u64 at_ = 0, left_ = 0;
};

inline constexpr u64 kReadChunk = 1 << 20;  // symbols

inline u32 load_symbol(const u8* p, u32 width) {
  return width == 1 ? *p : width == 2 ? load<u16>(p) : load<u32>(p);
}

// Up to here a table indexed by value is cheap; larger ids (hashes, say) are searched for.
inline constexpr u32 kTableLimit = 1u << 24;

// Which external values occur, ascending.
inline std::vector<u32> find_values(const BuildRequest& request, u64 symbols, Poll& poll) {
  std::vector<u8> seen(kTableLimit >> (request.width == 4 ? 0 : 8), 0);
  std::unordered_set<u32> large;
  std::vector<u8> chunk(kReadChunk * request.width);
  SpoolReader reader(request.pieces);
  for (u64 done = 0; done < symbols;) {
    const u64 take = std::min(kReadChunk, symbols - done);
    reader.read(chunk.data(), take * request.width);
    for (u64 i = 0; i < take; ++i) {
      const u32 value = load_symbol(chunk.data() + i * request.width, request.width);
      if (UNSPOOL_LIKELY(value < seen.size()))
        seen[value] = 1;
      else
        large.insert(value);
    }
    done += take;
    poll(1024);
  }
  std::vector<u32> values(large.begin(), large.end());
  for (u32 v = 0; v < seen.size(); ++v)
    if (seen[v]) values.push_back(v);
  std::sort(values.begin(), values.end());
  return values;
}

// Dense id of an external value: its place among the values, plus the two reserved ids.
template <class Symbol>
class DenseIds {
 public:
  explicit DenseIds(const std::vector<u32>& values) : values_(values) {
    const u64 size = values.empty() ? 0 : std::min<u64>(u64{values.back()} + 1, kTableLimit);
    table_.assign(size, 0);
    for (std::size_t i = 0; i < values.size() && values[i] < size; ++i)
      table_[values[i]] = static_cast<Symbol>(i + 2);
  }
  Symbol operator()(u32 value) const {
    if (UNSPOOL_LIKELY(value < table_.size())) return table_[value];
    return static_cast<Symbol>(std::lower_bound(values_.begin(), values_.end(), value) -
                               values_.begin() + 2);
  }

 private:
  const std::vector<u32>& values_;
  std::vector<Symbol> table_;
};

// Fills text[0, rows] with dense symbols, the sentinel last. fm: SEP rev(d0) SEP rev(d1) ...;
// sa: d0 SEP d1 SEP ...
template <class Symbol>
void fill_text(const BuildRequest& request, const std::vector<u32>& values, Symbol* text, u64 rows,
               Poll& poll) {
  const u32 width = request.width;
  const DenseIds<Symbol> dense(values);
  std::vector<u8> chunk(kReadChunk * width);
  SpoolReader reader(request.pieces);
  u64 have = 0, used = 0, total_left = 0;
  for (u64 length : request.lengths) total_left += length;
  u64 at = 0;
  for (u64 length : request.lengths) {
    if (request.fm) text[at++] = kSeparator;
    u64 to = request.fm ? at + length : at;
    for (u64 left = length; left;) {
      if (used == have) {
        have = std::min(kReadChunk, total_left);
        reader.read(chunk.data(), have * width);
        total_left -= have;
        used = 0;
        poll(1024);
      }
      const u64 take = std::min(left, have - used);
      const u8* p = chunk.data() + used * width;
      if (request.fm)
        for (u64 i = 0; i < take; ++i) text[--to] = dense(load_symbol(p + i * width, width));
      else
        for (u64 i = 0; i < take; ++i) text[to++] = dense(load_symbol(p + i * width, width));
      used += take;
      left -= take;
    }
    at += length;
    if (!request.fm) text[at++] = kSeparator;
  }
  if (at != rows) throw std::logic_error("the text has another length than its documents");
  text[rows] = 0;
}

}  // namespace unspool
