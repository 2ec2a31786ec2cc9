// Gradients of a tile of query rows: the weights are computed again from the log-sum-exp. Included
// inside the namespace of an instruction set.
//
// dV += P^T dO; dS = P * (dO V^T - delta), with delta = rowsum(dO * O) - gradient of the
// log-sum-exp; dQ = scale * dS K; dK += scale * dS^T Q. Tiles of one key-value head must come one
// after another, since they add to the same dK and dV.

// Rows of a tensor [rows, width] as float32, zero up to `ld` columns.
static void straight(const Problem& p, const Tile& tile, const void* x, const Strides& s, i64 width,
                     float* to, i64 ld) {
  for (i64 row = 0; row < tile.rows(); ++row) {
    float* line = to + row * ld;
    const i64 from = at(tile, s, row);
    for (i64 d = 0; d < width; ++d)
      line[d] = p.half ? widen(static_cast<const u16*>(x)[from + d])
                       : static_cast<const float*>(x)[from + d];
    for (i64 d = width; d < ld; ++d) line[d] = 0;
  }
}

// Scores [keys, rows] become P, and `slope` dO V^T becomes dS.
static void differentiate(const Problem& p, i64 n, i64 ld, const float* lse, const float* delta,
                          float* s, float* slope) {
  for (i64 key = 0; key < n; ++key)
    for (i64 j = 0; j < ld; j += kLanes) {
      const i64 i = key * ld + j;
      const Float score = load(s + i), weight = exp2(score - load(lse + j));
      Float d = weight * (load(slope + i) - load(delta + j)) * p.scale;
      if (p.softcap > 0) {  // score = softcap * tanh(…) * log2 e
        const Float t = pick(score <= all(kNothing / 2), Float{},
                             score * (1 / (p.softcap * kLog2E)));
        d *= 1.0f - t * t;
      }
      put(s + i, weight);
      put(slope + i, d);
    }
}

static void tile_gradients(const Problem& p, const Tile& tile, char* scratch) {
  Arena arena(scratch);
  const i64 vectors = (tile.rows() + kLanes - 1) / kLanes, ld = vectors * kLanes;
  const i64 k_vectors = p.k_width / kLanes, v_vectors = p.v_width / kLanes;
  Rows rows(p, tile);
  Keys keys(p, tile, rows);
  float* q = arena.take<float>(p.head_dim * ld);
  float* g = arena.take<float>(p.value_dim * ld);
  float* d_q = arena.take<float>(p.head_dim * ld);
  float* q_rows = arena.take<float>(ld * p.k_width);
  float* g_rows = arena.take<float>(ld * p.v_width);
  float* s = arena.take<float>((kKeys + kHigh) * ld);
  float* slope = arena.take<float>((kKeys + kHigh) * ld);
  float* k_room = arena.take<float>(p.half ? kKeys * p.head_dim : 0);
  float* v_room = arena.take<float>(p.half ? kKeys * p.value_dim : 0);
  float* spare = arena.take<float>(p.k_width + p.v_width);  // rows past the last key go here
  Met* met = arena.take<Met>(1);
  alignas(64) float lse[kRows], delta[kRows], ones[kRows];
  const float *k[kKeys + kHigh], *v[kKeys + kHigh];
  float *scores[kKeys + kHigh], *slopes[kKeys + kHigh], *d_k[kKeys + kHigh], *d_v[kKeys + kHigh];

  turn(p, tile, p.q, p.q_strides, p.head_dim, q, ld);
  turn(p, tile, p.d_out, p.d_out_strides, p.value_dim, g, ld);
  straight(p, tile, p.q, p.q_strides, p.head_dim, q_rows, p.k_width);
  straight(p, tile, p.d_out, p.d_out_strides, p.value_dim, g_rows, p.v_width);
  for (i64 i = 0; i < p.head_dim * ld; ++i) d_q[i] = 0;
  for (i64 i = 0; i < p.k_width + p.v_width; ++i) spare[i] = 0;
  for (i64 row = 0; row < kRows; ++row) {
    ones[row] = 1;
    const i64 from = line(p, tile, row < tile.rows() ? row : 0);
    const float found = p.lse[from];
    // A row that sees nothing has no weights.
    lse[row] = found == -__builtin_inff() ? -kNothing : found * kLog2E;
    delta[row] = p.delta[from];
  }
  for (i64 i = 0; i < kKeys + kHigh; ++i) scores[i] = s + i * ld, slopes[i] = slope + i * ld;
  const float scale = p.softcap > 0 ? p.scale : p.scale * kLog2E;
  const i64 head = tile.batch * p.kv_heads + tile.kv_head;

  for (met->find(p, tile, keys); met->keys.n; met->find(p, tile, keys)) {
    const i64 n = met->keys.n;
    floats(p, met->k, n, p.head_dim, k_room, k);
    floats(p, met->v, n, p.value_dim, v_room, v);
    for (i64 i = 0; i < n + kHigh; ++i) {
      const i64 key = head * p.keys + met->keys.at[i < n ? i : n - 1];
      d_k[i] = i < n ? p.d_k + key * p.k_width : spare;
      d_v[i] = i < n ? p.d_v + key * p.v_width : spare + p.k_width;
    }
    by_rows<false>(k, n, p.head_dim, q, ld, vectors, scores, scale);
    by_rows<false>(v, n, p.value_dim, g, ld, vectors, slopes, 1);
    rule(p, rows, met->keys, s, ld);
    differentiate(p, n, ld, lse, delta, s, slope);
    by_columns(k, n, p.head_dim, slope, ld, vectors, d_q, ones);
    by_rows<true>(scores, n, tile.rows(), g_rows, p.v_width, v_vectors, d_v, 1);
    by_rows<true>(slopes, n, tile.rows(), q_rows, p.k_width, k_vectors, d_k, 1);
  }
  for (i64 row = 0; row < tile.rows(); ++row) {
    float* to = p.d_q + line(p, tile, row) * p.head_dim;
    for (i64 d = 0; d < p.head_dim; ++d) to[d] = d_q[d * ld + row];
  }
}
