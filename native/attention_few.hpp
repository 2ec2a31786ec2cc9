// A few query rows against many keys, as in decoding: here a row lies along the lanes, since there
// are too few of them to fill a vector. Included inside the namespace of an instruction set.

UNSPOOL_INLINE Float load(const u16* p) {
#if UNSPOOL_LANES == 16
  const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
#else
  float wide[kLanes];
  widen_row(p, wide, kLanes);
  return load(wide);
#endif
}
UNSPOOL_INLINE float one(const float* p) { return *p; }
UNSPOOL_INLINE float one(const u16* p) { return widen(*p); }

// Scores of one query row q [width] with every key.
template <class T>
static void score_row(const float* q, const char* const* k, i64 n, i64 width, float scale,
                      float* s) {
  const i64 whole = width / kLanes * kLanes;
  for (i64 i = 0; i < n; ++i) {
    const T* row = reinterpret_cast<const T*>(k[i]);
    Float a{}, b{};
    i64 d = 0;
    for (; d + 2 * kLanes <= whole; d += 2 * kLanes) {
      a = fma(load(q + d), load(row + d), a);
      b = fma(load(q + d + kLanes), load(row + d + kLanes), b);
    }
    if (d < whole) a = fma(load(q + d), load(row + d), a);
    float dot = sum(a + b);
    for (d = whole; d < width; ++d) dot += q[d] * one(row + d);
    s[i] = dot * scale;
  }
}

template <class T, int Wide>
UNSPOOL_INLINE void weigh_block(const float* s, const char* const* v, i64 n, i64 d, float keep,
                                float* o) {
  Float sums[Wide];
#pragma GCC unroll 4
  for (int j = 0; j < Wide; ++j) sums[j] = load(o + d + j * kLanes) * keep;
  for (i64 i = 0; i < n; ++i) {
    const T* row = reinterpret_cast<const T*>(v[i]) + d;
    const Float weight = all(s[i]);
#pragma GCC unroll 4
    for (int j = 0; j < Wide; ++j) sums[j] = fma(weight, load(row + j * kLanes), sums[j]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < Wide; ++j) put(o + d + j * kLanes, sums[j]);
}

// o [width] = o * keep + the values, weighed.
template <class T>
static void weigh_row(const float* s, const char* const* v, i64 n, i64 width, float keep,
                      float* o) {
  i64 d = 0;
  for (; d + 4 * kLanes <= width; d += 4 * kLanes) weigh_block<T, 4>(s, v, n, d, keep, o);
  for (; d + kLanes <= width; d += kLanes) weigh_block<T, 1>(s, v, n, d, keep, o);
  for (; d < width; ++d) {
    float total = o[d] * keep;
    for (i64 i = 0; i < n; ++i) total += s[i] * one(reinterpret_cast<const T*>(v[i]) + d);
    o[d] = total;
  }
}

// Scores of one row become weights; returns what earlier sums shrink by.
static float soften_row(const Problem& p, const Rows& rows, i64 row, const KeyTile& keys, float* s,
                        float& top, float& total) {
  for (i64 i = keys.n; i < kKeys; ++i) s[i] = kNothing;
  Float most = all(top);
  const i64 end = (keys.n + kLanes - 1) / kLanes * kLanes;
  for (i64 i = 0; i < end; i += kLanes) {
    Float x = load(s + i);
    if (p.softcap > 0)
      x = pick(x <= all(kNothing / 2), x,
               tanh(x * (1 / p.softcap)) * (p.softcap * kLog2E));
    if (keys.some_hidden)
      x = pick(seen(p, all(rows.position[row]) - load(keys.position + i),
                    load(keys.excused + i) | all(rows.excused[row]),
                    load(keys.document + i) == all(rows.document[row]), all(rows.valid[row])),
               x, all(kNothing));
    put(s + i, x);
    most = max(most, x);
  }
  const float high = largest(most), anchor = high <= kNothing / 2 ? 0.0f : high;
  const float keep = exp2(all(top - anchor))[0];
  Float added{};
  for (i64 i = 0; i < end; i += kLanes) {
    const Float weight = exp2(load(s + i) - anchor);
    added += weight;
    put(s + i, weight);
  }
  top = high;
  total = total * keep + sum(added);
  return keep;
}

template <class T>
static void few_of(const Problem& p, const Tile& tile, char* scratch) {
  Arena arena(scratch);
  const i64 n_rows = tile.rows();
  Rows rows(p, tile);
  Keys keys(p, tile, rows);
  float* q = arena.take<float>(n_rows * p.head_dim);
  float* o = arena.take<float>(n_rows * p.value_dim);
  float* s = arena.take<float>(n_rows * kKeys);
  Met* met = arena.take<Met>(2);
  float top[kLanes], total[kLanes];
  for (i64 row = 0; row < n_rows; ++row) {
    const T* from = static_cast<const T*>(p.q) + at(tile, p.q_strides, row);
    for (i64 d = 0; d < p.head_dim; ++d) q[row * p.head_dim + d] = one(from + d);
    top[row] = kNothing;
    total[row] = 0;
  }
  for (i64 i = 0; i < n_rows * p.value_dim; ++i) o[i] = 0;
  const float scale = p.softcap > 0 ? p.scale : p.scale * kLog2E;

  Met *now = met, *next = met + 1;
  for (now->find(p, tile, keys); now->keys.n;) {
    next->find(p, tile, keys);
    const Ahead ahead = next->ahead(p);
    const i64 n = now->keys.n, step = (kKeys + n_rows - 1) / n_rows;
    for (i64 row = 0; row < n_rows; ++row) {
      bring(ahead, row * step, (row + 1) * step);
      float* weights = s + row * kKeys;
      score_row<T>(q + row * p.head_dim, now->k, n, p.head_dim, scale, weights);
      const float keep = soften_row(p, rows, row, now->keys, weights, top[row], total[row]);
      weigh_row<T>(weights, now->v, n, p.value_dim, keep, o + row * p.value_dim);
    }
    Met* const done = now;
    now = next;
    next = done;
  }
  for (i64 row = 0; row < n_rows; ++row)
    finish(p, tile, row, o + row * p.value_dim, 1, top[row], total[row]);
}

static void few_forward(const Problem& p, const Tile& tile, char* scratch) {
  if (p.half)
    few_of<u16>(p, tile, scratch);
  else
    few_of<float>(p, tile, scratch);
}
