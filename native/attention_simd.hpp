// Vectors of one instruction set, by the vector extensions of GCC and Clang. Included once for each
// set, inside its namespace: UNSPOOL_LANES says how wide, the target that is in force how.

// Vectors of a row, and rows, that a product keeps in registers: 32 of them, or 16.
#if UNSPOOL_LANES == 16 || defined(__aarch64__)
#define UNSPOOL_WIDE 4
#else
#define UNSPOOL_WIDE 2
#endif
constexpr int kLanes = UNSPOOL_LANES, kWide = UNSPOOL_WIDE, kHigh = UNSPOOL_LANES == 4 ? 4 : 6;

typedef float Float __attribute__((vector_size(UNSPOOL_LANES * 4)));
typedef i32 Int __attribute__((vector_size(UNSPOOL_LANES * 4)));

#define UNSPOOL_INLINE [[gnu::always_inline]] static inline

UNSPOOL_INLINE Float load(const float* p) {
  Float x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}
UNSPOOL_INLINE Int load(const i32* p) {
  Int x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}
UNSPOOL_INLINE void put(float* p, Float x) { __builtin_memcpy(p, &x, sizeof x); }
UNSPOOL_INLINE Float all(float x) { return x - Float{}; }
UNSPOOL_INLINE Int all(i32 x) { return x - Int{}; }
UNSPOOL_INLINE Int bits(Float x) {
  Int y;
  __builtin_memcpy(&y, &x, sizeof y);
  return y;
}
UNSPOOL_INLINE Float of_bits(Int x) {
  Float y;
  __builtin_memcpy(&y, &x, sizeof y);
  return y;
}
// Where `which` is all ones x, where it is zero y.
UNSPOOL_INLINE Float pick(Int which, Float x, Float y) {
  return of_bits((bits(x) & which) | (bits(y) & ~which));
}

#if UNSPOOL_LANES == 16
UNSPOOL_INLINE Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
UNSPOOL_INLINE Float max(Float a, Float b) { return _mm512_max_ps(a, b); }
#elif UNSPOOL_LANES == 8
UNSPOOL_INLINE Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
UNSPOOL_INLINE Float max(Float a, Float b) { return _mm256_max_ps(a, b); }
#else
UNSPOOL_INLINE Float fma(Float a, Float b, Float c) { return a * b + c; }
UNSPOOL_INLINE Float max(Float a, Float b) { return pick(a > b, a, b); }
#endif

// c + a b, where a and b hold pairs of bfloat16 in each lane: the sum of both products.
#ifdef UNSPOOL_PAIRS
UNSPOOL_INLINE Float fma_pairs(Float a, Float b, Float c) {
  return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
}
// Pairs of bfloat16: `low` in the lower halves, `high` in the upper.
UNSPOOL_INLINE Float pair(__m256i low, __m256i high) {
  return (Float)_mm512_or_si512(_mm512_cvtepu16_epi32(low),
                                _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
}
UNSPOOL_INLINE Float pair(Float low, Float high) {
  return pair((__m256i)_mm512_cvtneps_pbh(low), (__m256i)_mm512_cvtneps_pbh(high));
}
UNSPOOL_INLINE Float pair(const u16* low, const u16* high) {
  return pair(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(low)),
              _mm256_loadu_si256(reinterpret_cast<const __m256i*>(high)));
}
#else
UNSPOOL_INLINE Float fma_pairs(Float, Float, Float c) { return c; }  // never called
#endif

// 2^x, within 2e-7 of it, for x <= 120 and 0 below -126. The polynomial is 2^f on [-1/2, 1/2].
UNSPOOL_INLINE Float power(Float f) {
  Float y = fma(f, all(1.32647498e-3f), all(9.67151251e-3f));
  y = fma(y, f, all(5.55073368e-2f));
  y = fma(y, f, all(2.40222421e-1f));
  y = fma(y, f, all(6.93146978e-1f));
  return fma(y, f, all(1.0f));
}
UNSPOOL_INLINE Float exp2(Float x) {
#if UNSPOOL_LANES == 16
  const Float n = _mm512_roundscale_ps(x, 0);
  return _mm512_scalef_ps(power(x - n), n);
#else
  // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
  const Float low = all(-126.0f), magic = all(12582912.0f);
  const Int small = x < low;
  const Float shifted = pick(small, low, x) + magic;
  const Float y = power(pick(small, low, x) - (shifted - magic));
  return pick(small, Float{}, of_bits(bits(y) + (bits(shifted) << 23)));
#endif
}

UNSPOOL_INLINE Float absolute(Float x) { return of_bits(bits(x) & all(i32{0x7fffffff})); }

// tanh x within 3e-7 of it.
UNSPOOL_INLINE Float tanh(Float x) {
  const Float a = absolute(x), t = exp2(a * all(-2.8853901f)), s = x * x;
  const Float large = (1.0f - t) / (1.0f + t);
  Float small = fma(s, all(2.1869488e-2f), all(-5.3968254e-2f));
  small = fma(small, s, all(1.3333333e-1f));
  small = fma(small, s, all(-3.3333333e-1f));
  small = fma(small * s, a, a);
  const Float y = pick(a < all(0.25f), small, large);
  return of_bits(bits(y) | (bits(x) & all(i32(0x80000000))));
}

UNSPOOL_INLINE float sum(Float x) {
#if UNSPOOL_LANES == 16
  return _mm512_reduce_add_ps(x);
#else
  float total = 0;
  for (int i = 0; i < kLanes; ++i) total += x[i];
  return total;
#endif
}
UNSPOOL_INLINE float largest(Float x) {
#if UNSPOOL_LANES == 16
  return _mm512_reduce_max_ps(x);
#else
  float most = x[0];
  for (int i = 1; i < kLanes; ++i) most = x[i] > most ? x[i] : most;
  return most;
#endif
}

// bfloat16 is the upper half of a float32.
UNSPOOL_INLINE float widen(u16 x) {
  const u32 wide = static_cast<u32>(x) << 16;
  float y;
  __builtin_memcpy(&y, &wide, sizeof y);
  return y;
}
UNSPOOL_INLINE u16 narrow(float x) {
  u32 b;
  __builtin_memcpy(&b, &x, sizeof b);
  if ((b & 0x7fffffff) > 0x7f800000) return static_cast<u16>((b >> 16) | 0x40);  // NaN stays NaN
  return static_cast<u16>((b + 0x7fff + ((b >> 16) & 1)) >> 16);
}
UNSPOOL_INLINE void widen_row(const u16* from, float* to, i64 n) {
  for (i64 i = 0; i < n; ++i) to[i] = widen(from[i]);
}
