// A tile of many query rows against the keys of its list. Included inside the namespace of an
// instruction set. Matrices of a tile lie with the query rows across: [keys or dimensions, rows].

constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

class Arena {
 public:
  explicit Arena(char* at) : at_(at) {}
  template <class T>
  T* take(i64 n) {
    T* out = reinterpret_cast<T*>(at_);
    at_ += (n * static_cast<i64>(sizeof(T)) + 63) / 64 * 64;
    return out;
  }

 private:
  char* at_;
};

// Row `row` of a tile in a tensor.
UNSPOOL_INLINE i64 at(const Tile& tile, const Strides& s, i64 row) {
  return tile.batch * s.batch + (tile.head + row / tile.count) * s.head +
         (tile.query + row % tile.count) * s.row;
}
UNSPOOL_INLINE i64 line(const Problem& p, const Tile& tile, i64 row) {
  return (tile.batch * p.heads + tile.head + row / tile.count) * p.queries + tile.query +
         row % tile.count;
}

// Rows of a tensor [rows, width] turned: [width, ld], zero past the last row.
static void turn(const Problem& p, const Tile& tile, const void* x, const Strides& s, i64 width,
                 float* to, i64 ld) {
  for (i64 row = 0; row < ld; ++row) {
    if (row >= tile.rows()) {
      for (i64 d = 0; d < width; ++d) to[d * ld + row] = 0;
    } else if (p.half) {
      const u16* from = static_cast<const u16*>(x) + at(tile, s, row);
      for (i64 d = 0; d < width; ++d) to[d * ld + row] = widen(from[d]);
    } else {
      const float* from = static_cast<const float*>(x) + at(tile, s, row);
      for (i64 d = 0; d < width; ++d) to[d * ld + row] = from[d];
    }
  }
}

// Keys that are met together, and where their rows are. Rows past the last repeat it, so that
// products may go on to a whole block.
struct Met {
  KeyTile keys;
  const char *k[kKeys + kHigh], *v[kKeys + kHigh];

  void find(const Problem& p, const Tile& tile, Keys& from) {
    from.fill(keys);
    const i64 size = p.half ? 2 : 4;
    const char* k_head = static_cast<const char*>(p.k) +
                         (tile.batch * p.k_strides.batch + tile.kv_head * p.k_strides.head) * size;
    const char* v_head = static_cast<const char*>(p.v) +
                         (tile.batch * p.v_strides.batch + tile.kv_head * p.v_strides.head) * size;
    if (!keys.n) return;
    for (i64 i = 0; i < keys.n + kHigh; ++i) {
      const i64 key = keys.at[i < keys.n ? i : keys.n - 1];
      k[i] = k_head + key * p.k_strides.row * size;
      v[i] = v_head + key * p.v_strides.row * size;
    }
  }
  Ahead ahead(const Problem& p) const {
    const i64 size = p.half ? 2 : 4;
    return {k, v, keys.n, p.head_dim * size, p.value_dim * size};
  }
};

// The rows as float32, in place or widened into `room` [kKeys, width].
static void floats(const Problem& p, const char* const* rows, i64 n, i64 width, float* room,
                   const float** out) {
  for (i64 i = 0; i < n + kHigh; ++i) {
    if (!p.half) {
      out[i] = reinterpret_cast<const float*>(rows[i]);
    } else if (i < n) {
      out[i] = room + i * width;
      widen_row(reinterpret_cast<const u16*>(rows[i]), room + i * width, width);
    } else {
      out[i] = out[n - 1];
    }
  }
}

// Which of the pairs may be seen: distances are query - key position.
UNSPOOL_INLINE Int seen(const Problem& p, Int distance, Int excused, Int same_document, Int valid) {
  Int ok = valid & same_document;
  if (!p.any_distance) ok &= distance >= all(near_zero(p.min_distance));
  if (p.near)
    ok &= excused | ((distance >= all(near_zero(p.near_min))) &
                     (distance <= all(near_zero(p.near_max))));
  return ok;
}

// Soft cap and the rules, on scores [keys, rows]; hidden pairs become kNothing.
static void rule(const Problem& p, const Rows& rows, const KeyTile& keys, float* s, i64 ld) {
  if (p.softcap > 0)
    for (i64 i = 0; i < keys.n * ld; i += kLanes)
      put(s + i, tanh(load(s + i) * (1 / p.softcap)) * (p.softcap * kLog2E));
  if (!keys.some_hidden) return;
  for (i64 key = 0; key < keys.n; ++key) {
    if (!keys.hidden[key]) continue;
    for (i64 j = 0; j < ld; j += kLanes) {
      const Int ok = seen(p, load(rows.position + j) - all(keys.position[key]),
                          load(rows.excused + j) | all(keys.excused[key]),
                          load(rows.document + j) == all(keys.document[key]), load(rows.valid + j));
      put(s + key * ld + j, pick(ok, load(s + key * ld + j), all(kNothing)));
    }
  }
}

// Scores become weights; the rows' maxima and sums go on; `keep`: what earlier sums shrink by.
template <int Wide>
static void soften_wide(float* s, i64 n, i64 ld, float* top, float* total, float* keep) {
  Float most[Wide], anchor[Wide], added[Wide];
#pragma GCC unroll 4
  for (int j = 0; j < Wide; ++j) most[j] = load(top + j * kLanes);
  for (i64 key = 0; key < n; ++key) {
#pragma GCC unroll 4
    for (int j = 0; j < Wide; ++j) most[j] = max(most[j], load(s + key * ld + j * kLanes));
  }
#pragma GCC unroll 4
  for (int j = 0; j < Wide; ++j) {
    anchor[j] = pick(most[j] <= all(kNothing / 2), Float{}, most[j]);
    put(keep + j * kLanes, exp2(load(top + j * kLanes) - anchor[j]));
    put(top + j * kLanes, most[j]);
    added[j] = Float{};
  }
  for (i64 key = 0; key < n; ++key) {
#pragma GCC unroll 4
    for (int j = 0; j < Wide; ++j) {
      float* at = s + key * ld + j * kLanes;
      const Float weight = exp2(load(at) - anchor[j]);
      added[j] += weight;
      put(at, weight);
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < Wide; ++j)
    put(total + j * kLanes, fma(load(total + j * kLanes), load(keep + j * kLanes), added[j]));
}

static void soften(float* s, i64 n, i64 ld, float* top, float* total, float* keep) {
  i64 j = 0;
  for (; j + 4 * kLanes <= ld; j += 4 * kLanes)
    soften_wide<4>(s + j, n, ld, top + j, total + j, keep + j);
  for (; j < ld; j += kLanes) soften_wide<1>(s + j, n, ld, top + j, total + j, keep + j);
}

UNSPOOL_INLINE void finish(const Problem& p, const Tile& tile, i64 row, const float* values,
                           i64 stride, float top, float total) {
  if (tile.partial) {
    float* to = tile.partial + row * partial_size(p);
    for (i64 d = 0; d < p.value_dim; ++d) to[d] = values[d * stride];
    to[p.value_dim] = top;
    to[p.value_dim + 1] = total;
    return;
  }
  const bool blind = top <= kNothing / 2;
  const float factor = blind ? 0.0f : 1.0f / total;
  if (p.half) {
    u16* to = static_cast<u16*>(p.out) + at(tile, p.out_strides, row);
    for (i64 d = 0; d < p.value_dim; ++d)
      to[d] = narrow(blind ? 0.0f : values[d * stride] * factor);
  } else {
    float* to = static_cast<float*>(p.out) + at(tile, p.out_strides, row);
    for (i64 d = 0; d < p.value_dim; ++d) to[d] = blind ? 0.0f : values[d * stride] * factor;
  }
  p.lse[line(p, tile, row)] =
      blind ? -__builtin_inff() : top * kLn2 + __builtin_logf(total);
}

#ifdef UNSPOOL_PAIRS

// Query rows turned, two dimensions to a lane: [width / 2, ld].
static void turn_pairs(const Problem& p, const Tile& tile, i64 ld, float* to) {
  for (i64 row = 0; row < ld; ++row) {
    const u16* from = static_cast<const u16*>(p.q) +
                      at(tile, p.q_strides, row < tile.rows() ? row : tile.rows() - 1);
    for (i64 d = 0; d < p.head_dim; d += 2) __builtin_memcpy(to + d / 2 * ld + row, from + d, 4);
  }
}

// Weights [keys, ld] as [pairs of keys, ld], in place.
static void pair_weights(float* s, i64 n, i64 ld) {
  if (n % 2)
    for (i64 j = 0; j < ld; j += kLanes) put(s + n * ld + j, Float{});
  for (i64 i = 0; i < n; i += 2)
    for (i64 j = 0; j < ld; j += kLanes)
      put(s + i / 2 * ld + j, pair(load(s + i * ld + j), load(s + (i + 1) * ld + j)));
}

// Rows of values [keys, width] as [pairs of keys, width].
static void pair_values(const char* const* v, i64 n, i64 width, float* room, const float** out) {
  for (i64 i = 0; i < n; i += 2) {
    const u16* low = reinterpret_cast<const u16*>(v[i]);
    const u16* high = reinterpret_cast<const u16*>(v[i + 1]);  // of weight 0 past the last
    float* to = room + i / 2 * width;
    out[i / 2] = to;
    i64 d = 0;
    for (; d + kLanes <= width; d += kLanes) put(to + d, pair(low + d, high + d));
    for (; d < width; ++d) {
      const u32 both = low[d] | static_cast<u32>(high[d]) << 16;
      __builtin_memcpy(to + d, &both, 4);
    }
  }
}

// Whether pairs of dimensions can be read where they are.
static bool whole_pairs(const Problem& p) {
  const auto even = [](i64 x) { return x % 2 == 0; };
  return p.half && even(p.head_dim) && even(p.k_strides.batch) && even(p.k_strides.head) &&
         even(p.k_strides.row) && reinterpret_cast<std::uintptr_t>(p.k) % 4 == 0;
}

#endif

static void tile_forward(const Problem& p, const Tile& tile, char* scratch) {
  Arena arena(scratch);
  const i64 vectors = (tile.rows() + kLanes - 1) / kLanes, ld = vectors * kLanes;
  Rows rows(p, tile);
  Keys keys(p, tile, rows);
  float* q = arena.take<float>(p.head_dim * ld);
  float* o = arena.take<float>(p.value_dim * ld);
  float* s = arena.take<float>((kKeys + kHigh) * ld);
  float* k_room = arena.take<float>(p.half ? kKeys * p.head_dim : 0);
  float* v_room = arena.take<float>(p.half ? kKeys * p.value_dim : 0);
  Met* met = arena.take<Met>(2);
  alignas(64) float top[kRows], total[kRows], keep[kRows];
  const float *k[kKeys + kHigh], *v[kKeys + kHigh];
  float* scores[kKeys + kHigh];

#ifdef UNSPOOL_PAIRS
  const bool pairs = whole_pairs(p);
  if (pairs) turn_pairs(p, tile, ld, q);
#else
  constexpr bool pairs = false;
#endif
  if (!pairs) turn(p, tile, p.q, p.q_strides, p.head_dim, q, ld);
  for (i64 i = 0; i < p.value_dim * ld; ++i) o[i] = 0;
  for (i64 i = 0; i < kRows; ++i) top[i] = kNothing, total[i] = 0;
  for (i64 i = 0; i < kKeys + kHigh; ++i) scores[i] = s + i * ld;
  const float scale = p.softcap > 0 ? p.scale : p.scale * kLog2E;

  Met *now = met, *next = met + 1;
  for (now->find(p, tile, keys); now->keys.n;) {
    next->find(p, tile, keys);
    const i64 n = now->keys.n;
#ifdef UNSPOOL_PAIRS
    if (pairs) {
      for (i64 i = 0; i < n + kHigh; ++i) k[i] = reinterpret_cast<const float*>(now->k[i]);
      by_rows<false, true>(k, n, p.head_dim / 2, q, ld, vectors, scores, scale, next->ahead(p));
      rule(p, rows, now->keys, s, ld);
      soften(s, n, ld, top, total, keep);
      pair_weights(s, n, ld);
      pair_values(now->v, n, p.value_dim, v_room, v);
      by_columns<true>(v, (n + 1) / 2, p.value_dim, s, ld, vectors, o, keep);
    }
#endif
    if (!pairs) {
      floats(p, now->k, n, p.head_dim, k_room, k);
      floats(p, now->v, n, p.value_dim, v_room, v);
      by_rows<false>(k, n, p.head_dim, q, ld, vectors, scores, scale, next->ahead(p));
      rule(p, rows, now->keys, s, ld);
      soften(s, n, ld, top, total, keep);
      by_columns(v, n, p.value_dim, s, ld, vectors, o, keep);
    }
    Met* const done = now;
    now = next;
    next = done;
  }
  for (i64 row = 0; row < tile.rows(); ++row)
    finish(p, tile, row, o + row, ld, top[row], total[row]);
}
