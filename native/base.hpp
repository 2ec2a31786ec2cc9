// Shared basics of the native engine: integer names, errors, unaligned loads, prefetch.
#pragma once
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

namespace unspool {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i64 = std::int64_t;

// A file does not hold what was written into it (IndexCorrupt in Python).
struct Corrupt : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// A file is of a newer format (IndexVersion).
struct WrongVersion : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// A query that cannot be asked of this index (QueryError).
struct BadQuery : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// The deadline of a call has passed (DeadlineExceeded).
struct Deadline : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// The operating system refused (OSError with errno).
struct SystemError : std::runtime_error {
  int code;
  SystemError(int error, const std::string& what) : std::runtime_error(what), code(error) {}
};

// The format is little-endian; so is every machine that the wheels are built for.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "big-endian machines are not supported");

template <class T>
inline T load(const void* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}
template <class T>
inline void store(void* p, T value) {
  std::memcpy(p, &value, sizeof(T));
}

// GCC takes a function that only prefetches for one without effect and drops the calls that it has
// not inlined by then.
#define UNSPOOL_ALWAYS_INLINE [[gnu::always_inline]] inline
UNSPOOL_ALWAYS_INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0, 3); }
UNSPOOL_ALWAYS_INLINE void prefetch_write(const void* p) { __builtin_prefetch(p, 1, 3); }

#define UNSPOOL_LIKELY(x) __builtin_expect(!!(x), 1)
#define UNSPOOL_UNLIKELY(x) __builtin_expect(!!(x), 0)

inline u32 bit_width(u64 x) { return x ? 64 - static_cast<u32>(__builtin_clzll(x)) : 0; }
inline u64 ceil_div(u64 a, u64 b) { return (a + b - 1) / b; }
inline u64 round_up(u64 a, u64 b) { return ceil_div(a, b) * b; }

}  // namespace unspool
