// The two products that everything is made of; rows of the left side are where they are in memory.
// With Pairs both sides hold pairs of bfloat16 where float32 would be, and depths count pairs.
// Included inside the namespace of an instruction set.

template <bool Pairs>
UNSPOOL_INLINE Float multiply(Float a, Float b, Float c) {
  return Pairs ? fma_pairs(a, b, c) : fma(a, b, c);
}

// c[i] = (c[i] if Add) + scale * a[i] b for `High` rows of length `depth`; b is [depth, ld].
template <int Wide, int High, bool Add, bool Pairs>
UNSPOOL_INLINE void by_rows_block(const float* const* a, i64 depth, const float* b, i64 ld,
                                  float* const* c, i64 column, Float scale) {
  Float sums[High][Wide];
  const float* row[High];
#pragma GCC unroll 8
  for (int i = 0; i < High; ++i) {
    row[i] = a[i];
#pragma GCC unroll 4
    for (int j = 0; j < Wide; ++j) sums[i][j] = Float{};
  }
  for (i64 k = 0; k < depth; ++k) {
    Float right[Wide];
#pragma GCC unroll 4
    for (int j = 0; j < Wide; ++j) right[j] = load(b + k * ld + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < High; ++i) {
      const Float left = all(row[i][k]);
#pragma GCC unroll 4
      for (int j = 0; j < Wide; ++j)
        sums[i][j] = multiply<Pairs>(left, right[j], sums[i][j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < High; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Wide; ++j) {
      float* to = c[i] + column + j * kLanes;
      put(to, Add ? fma(sums[i][j], scale, load(to)) : sums[i][j] * scale);
    }
  }
}

// c[m] = c[m] * keep + sum over k of rows[k][offset + m] * b[k], for `High` values of m.
template <int Wide, int High, bool Pairs>
UNSPOOL_INLINE void by_columns_block(const float* const* rows, i64 depth, i64 offset,
                                     const float* b, i64 ld, float* c, const float* keep) {
  Float sums[High][Wide];
#pragma GCC unroll 8
  for (int i = 0; i < High; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Wide; ++j)
      sums[i][j] = load(c + i * ld + j * kLanes) * load(keep + j * kLanes);
  }
  for (i64 k = 0; k < depth; ++k) {
    const float* left_row = rows[k] + offset;
    Float right[Wide];
#pragma GCC unroll 4
    for (int j = 0; j < Wide; ++j) right[j] = load(b + k * ld + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < High; ++i) {
      const Float left = all(left_row[i]);
#pragma GCC unroll 4
      for (int j = 0; j < Wide; ++j)
        sums[i][j] = multiply<Pairs>(left, right[j], sums[i][j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < High; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Wide; ++j) put(c + i * ld + j * kLanes, sums[i][j]);
  }
}

// `ahead`: rows to bring near meanwhile, one pair for each row of a.
struct Ahead {
  const char* const* k = nullptr;
  const char* const* v = nullptr;
  i64 n = 0, k_bytes = 0, v_bytes = 0;
};
UNSPOOL_INLINE void bring(const Ahead& ahead, i64 from, i64 to) {
  for (i64 i = from; i < to && i < ahead.n; ++i) {
    for (i64 at = 0; at < ahead.k_bytes; at += 64) __builtin_prefetch(ahead.k[i] + at, 0, 2);
    for (i64 at = 0; at < ahead.v_bytes; at += 64) __builtin_prefetch(ahead.v[i] + at, 0, 2);
  }
}

// Rows of c past the last are written too, up to whole blocks of kHigh: `a` and `c` must have them.
template <int Wide, bool Add, bool Pairs>
static void by_rows_wide(const float* const* a, i64 n, i64 depth, const float* b, i64 ld,
                         float* const* c, i64 column, float scale, const Ahead& ahead) {
  for (i64 i = 0; i < n; i += kHigh) {
    bring(ahead, i, i + kHigh);
    by_rows_block<Wide, kHigh, Add, Pairs>(a + i, depth, b + column, ld, c + i, column, all(scale));
  }
}

template <bool Add, bool Pairs = false>
static void by_rows(const float* const* a, i64 n, i64 depth, const float* b, i64 ld, i64 vectors,
                    float* const* c, float scale, const Ahead& ahead = {}) {
  const Ahead none;
  for (i64 j = 0; j < vectors; j += kWide) {
    const i64 column = j * kLanes;
    const Ahead& now = j == 0 ? ahead : none;
    switch (vectors - j) {
      case 1: by_rows_wide<1, Add, Pairs>(a, n, depth, b, ld, c, column, scale, now); break;
#if UNSPOOL_WIDE == 4
      case 2: by_rows_wide<2, Add, Pairs>(a, n, depth, b, ld, c, column, scale, now); break;
      case 3: by_rows_wide<3, Add, Pairs>(a, n, depth, b, ld, c, column, scale, now); break;
#endif
      default: by_rows_wide<kWide, Add, Pairs>(a, n, depth, b, ld, c, column, scale, now);
    }
  }
}

template <int Wide, bool Pairs>
static void by_columns_wide(const float* const* rows, i64 depth, i64 width, const float* b, i64 ld,
                            float* c, const float* keep) {
  i64 m = 0;
  for (; m + kHigh <= width; m += kHigh)
    by_columns_block<Wide, kHigh, Pairs>(rows, depth, m, b, ld, c + m * ld, keep);
  for (; m + 2 <= width; m += 2)
    by_columns_block<Wide, 2, Pairs>(rows, depth, m, b, ld, c + m * ld, keep);
  if (m < width) by_columns_block<Wide, 1, Pairs>(rows, depth, m, b, ld, c + m * ld, keep);
}

// c [width, ld] = c * keep + rows^T b, for rows [depth, width] by pointer and b [depth, ld].
template <bool Pairs = false>
static void by_columns(const float* const* rows, i64 depth, i64 width, const float* b, i64 ld,
                       i64 vectors, float* c, const float* keep) {
  for (i64 j = 0; j < vectors; j += kWide) {
    const i64 at = j * kLanes;
    switch (vectors - j) {
      case 1: by_columns_wide<1, Pairs>(rows, depth, width, b + at, ld, c + at, keep + at); break;
#if UNSPOOL_WIDE == 4
      case 2: by_columns_wide<2, Pairs>(rows, depth, width, b + at, ld, c + at, keep + at); break;
      case 3: by_columns_wide<3, Pairs>(rows, depth, width, b + at, ld, c + at, keep + at); break;
#endif
      default: by_columns_wide<kWide, Pairs>(rows, depth, width, b + at, ld, c + at, keep + at);
    }
  }
}
