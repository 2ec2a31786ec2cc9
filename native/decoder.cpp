#include "decoder.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "team.hpp"

namespace unspool::decoder {

namespace {

std::atomic<const Kernels*> g_chosen{nullptr};

constexpr std::uint32_t kPieceKeys = 256;
constexpr std::size_t kLeastNumbers = 1 << 14;  // of weights, for an item of its own

void rotate(float* head, const Angles& angles) {
  const std::uint32_t pairs = angles.pairs;
  for (std::uint32_t j = 0; j < pairs; ++j) {
    float& first = angles.interleaved ? head[2 * j] : head[j];
    float& second = angles.interleaved ? head[2 * j + 1] : head[j + pairs];
    const float x = first, y = second;
    first = x * angles.cos[j] - y * angles.sin[j];
    second = y * angles.cos[j] + x * angles.sin[j];
  }
}

std::uint32_t total_rows(const Matrices& matrices) {
  std::uint32_t rows = 0;
  for (const Matrix& m : matrices) rows += m.rows;
  return rows;
}

}  // namespace

std::vector<const Kernels*> usable_kernels() {
  std::vector<const Kernels*> usable;
#if defined(__x86_64__) && defined(__GNUC__)
  if (avx512_kernels() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    usable.push_back(avx512_kernels());
  if (avx2_kernels() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    usable.push_back(avx2_kernels());
#endif
  if (base_kernels()) usable.push_back(base_kernels());
  return usable;
}

const Kernels* best_kernels() {
  static const std::vector<const Kernels*> usable = usable_kernels();
  if (const Kernels* chosen = g_chosen.load(std::memory_order_relaxed)) return chosen;
  return usable.empty() ? nullptr : usable.front();
}

void use_kernels(const Kernels* chosen) { g_chosen.store(chosen, std::memory_order_relaxed); }

Decoder::Decoder(std::uint32_t hidden, std::uint32_t threads)
    : kernels_(best_kernels()), hidden_(hidden), threads_(threads) {}

float* Decoder::room(std::vector<float>& held, std::size_t size) const {
  if (held.size() < size) held.resize(size);
  return held.data();
}

void Decoder::normalise(const Norm& norm, const float* x, std::size_t rows, std::uint32_t size,
                        float* y) const {
  for (std::size_t r = 0; r < rows; ++r)
    kernels_->normalise(x + r * size, norm.weight, norm.eps, size, y + r * size);
}

void Decoder::multiply(const Matrices& matrices, const float* x, std::uint32_t batch, float* y,
                       std::uint32_t y_stride) const {
  struct Item {
    const Matrix* matrix;
    std::uint32_t begin, end, first;
  };
  std::vector<Item> items;
  std::uint32_t first = 0;
  for (const Matrix& m : matrices) {
    // A few items a thread, so that one who comes late is not waited for.
    const std::uint32_t fair = (m.rows / (4 * threads_) + 3) / 4 * 4;
    const auto least = static_cast<std::uint32_t>((kLeastNumbers / m.cols + 3) / 4 * 4);
    const std::uint32_t step = std::max({4u, fair, least});
    for (std::uint32_t begin = 0; begin < m.rows; begin += step)
      items.push_back({&m, begin, std::min(m.rows, begin + step), first});
    first += m.rows;
  }
  Team::shared().run(threads_, static_cast<std::uint32_t>(items.size()), [&](std::uint32_t i) {
    const Item& item = items[i];
    kernels_->multiply(*item.matrix, item.begin, item.end, x, item.matrix->cols, batch,
                       y + item.first, y_stride);
  });
}

void Decoder::before(std::size_t number, const Angles& angles, const Rows& rows) {
  const Layer& layer = layers_[number];
  float* normed = room(normed_, std::size_t{rows.batch} * hidden_);
  normalise(layer.before, rows.x, rows.batch, hidden_, normed);
  const std::uint32_t width = total_rows(layer.qkv), dim = layer.head_dim;
  multiply(layer.qkv, normed, rows.batch, rows.qkv, width);
  for (std::uint32_t b = 0; b < rows.batch; ++b) {
    float* head = rows.qkv + std::size_t{b} * width;
    for (std::uint32_t h = 0; h < layer.num_heads + layer.num_kv_heads; ++h, head += dim) {
      const Norm& norm = h < layer.num_heads ? layer.query : layer.key;
      if (norm.weight) normalise(norm, head, 1, dim, head);
      if (angles.pairs) rotate(head, angles);
    }
  }
}

void Decoder::after(std::size_t number, const Rows& rows) {
  const Layer& layer = layers_[number];
  const std::uint32_t inner = total_rows(layer.gate);
  float* change = room(change_, std::size_t{rows.batch} * hidden_);
  multiply(layer.out, rows.attended, rows.batch, change, hidden_);
  add_to(rows, layer.after_attention);
  float* normed = room(normed_, std::size_t{rows.batch} * hidden_);
  normalise(layer.middle, rows.x, rows.batch, hidden_, normed);
  float* gate = room(gate_, std::size_t{rows.batch} * inner);
  float* up = room(up_, std::size_t{rows.batch} * inner);
  const Matrix &gates = layer.gate[0], &ups = layer.up[0];
  const std::uint32_t least = static_cast<std::uint32_t>(kLeastNumbers / (2 * hidden_)) / 16 * 16;
  const std::uint32_t step = std::max({16u, least, (inner / (4 * threads_) + 15) / 16 * 16});
  const std::uint32_t items = (inner + step - 1) / step;
  Team::shared().run(threads_, items, [&](std::uint32_t i) {
    const std::uint32_t begin = i * step, end = std::min(inner, begin + step);
    kernels_->multiply(gates, begin, end, normed, hidden_, rows.batch, gate, inner);
    kernels_->multiply(ups, begin, end, normed, hidden_, rows.batch, up, inner);
    for (std::size_t b = 0; b < rows.batch; ++b)
      kernels_->activate(layer.activation, gate + b * inner + begin, up + b * inner + begin,
                         end - begin);
  });
  multiply(layer.down, gate, rows.batch, change, hidden_);
  add_to(rows, layer.after_mlp);
}

void Decoder::add_to(const Rows& rows, const Norm& norm) {
  if (norm.weight) normalise(norm, change_.data(), rows.batch, hidden_, change_.data());
  const std::size_t size = std::size_t{rows.batch} * hidden_;
  for (std::size_t i = 0; i < size; ++i) rows.x[i] += change_[i];
}

void Decoder::logits(const Rows& rows) {
  float* normed = room(normed_, std::size_t{rows.batch} * hidden_);
  normalise(final_, rows.x, rows.batch, hidden_, normed);
  multiply({head_}, normed, rows.batch, rows.logits, head_.rows);
}

void attend(const std::vector<Part>& parts, const Heads& heads, float scale, std::uint32_t threads,
            float* out) {
  const Kernels& kernels = *best_kernels();
  const std::uint32_t groups = heads.num_heads / heads.num_kv_heads;
  struct Run {
    const Part* part;
    std::uint32_t first, keys;
  };
  std::vector<Run> runs;
  for (const Part& part : parts)
    for (std::uint32_t first = 0; first < part.keys; first += kPieceKeys)
      runs.push_back({&part, first, std::min(kPieceKeys, part.keys - first)});
  const std::uint32_t pairs = heads.batch * heads.num_kv_heads;
  const auto pieces = static_cast<std::uint32_t>(runs.size());
  // Of each (sequence, key head, piece): maximum, sum and output of every query head of the group.
  const std::size_t width = heads.value_dim + 2;
  std::vector<float> found(std::size_t{pairs} * pieces * groups * width);
  std::vector<float> scaled;
  for (const Part& part : parts)
    for (std::size_t i = 0; i < std::size_t{heads.batch} * heads.num_heads * heads.dim; ++i)
      scaled.push_back(part.q[i] * scale);
  const std::size_t q_size = std::size_t{heads.batch} * heads.num_heads * heads.dim;
  Team::shared().run(threads, pairs * pieces, [&](std::uint32_t i) {
    const Run& run = runs[i % pieces];
    const Part& part = *run.part;
    const std::uint32_t pair = i / pieces;
    const std::uint32_t b = pair / heads.num_kv_heads, h = pair % heads.num_kv_heads;
    const std::size_t bytes = part.number == Number::f32 ? 4 : 2;
    const auto at = [&](const void* data, std::int64_t batch, std::int64_t head, std::int64_t token) {
      return static_cast<const char*>(data) + (b * batch + h * head + run.first * token) *
                                                  static_cast<std::int64_t>(bytes);
    };
    float* place = found.data() + std::size_t{i} * groups * width;
    float scores[4 * kPieceKeys];
    Piece piece{};
    piece.q = scaled.data() + static_cast<std::size_t>(run.part - parts.data()) * q_size +
              std::size_t{pair} * groups * heads.dim;
    piece.k = at(part.k, part.k_batch, part.k_head, part.k_token);
    piece.v = at(part.v, part.v_batch, part.v_head, part.v_token);
    piece.k_stride = part.k_token;
    piece.v_stride = part.v_token;
    piece.number = part.number;
    piece.keys = run.keys;
    piece.groups = groups;
    piece.dim = heads.dim;
    piece.value_dim = heads.value_dim;
    piece.scores = scores;
    piece.most = place;
    piece.sum = place + groups;
    piece.out = place + 2 * groups;
    kernels.attend(piece);
  });
  for (std::uint32_t pair = 0; pair < pairs; ++pair)
    for (std::uint32_t g = 0; g < groups; ++g) {
      const float* first = found.data() + std::size_t{pair} * pieces * groups * width;
      const std::size_t stride = groups * width;
      float most = -INFINITY, sum = 0;
      for (std::uint32_t p = 0; p < pieces; ++p) most = std::max(most, first[p * stride + g]);
      float* row = out + (std::size_t{pair} * groups + g) * heads.value_dim;
      std::fill_n(row, heads.value_dim, 0.0f);
      for (std::uint32_t p = 0; p < pieces; ++p) {
        const float* place = first + p * stride;
        const float weight = std::exp(place[g] - most);
        sum += weight * place[groups + g];
        const float* values = place + 2 * groups + std::size_t{g} * heads.value_dim;
        for (std::uint32_t d = 0; d < heads.value_dim; ++d) row[d] += weight * values[d];
      }
      for (std::uint32_t d = 0; d < heads.value_dim; ++d) row[d] /= sum;
    }
}

}  // namespace unspool::decoder
