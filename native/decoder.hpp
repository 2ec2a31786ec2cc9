// One written token through the layers of a Llama-like decoder, without its attention: what is
// before it (norm, queries, keys and values, rotation) and what is after it (output, norm, gated
// product), over weights of 8, 16 or 32 bits. Sums are in float32.
#pragma once
#include <optional>
#include <vector>

#include "decoder_kernels.hpp"

namespace unspool::decoder {

// What this processor can run, the best first; empty where nothing was compiled.
std::vector<const Kernels*> usable_kernels();
// The first of them, or what was chosen; null where there is none.
const Kernels* best_kernels();
// Take these from here on; null: the best. For tests.
void use_kernels(const Kernels*);

struct Norm {
  const float* weight = nullptr;  // none: there is no such norm
  float eps = 0;
};

// One or several matrices that read the same input; their outputs lie one behind the other.
using Matrices = std::vector<Matrix>;

struct Layer {
  Norm before, query, key, after_attention, middle, after_mlp;
  Matrices qkv, out, gate, up, down;
  Activation activation = Activation::silu;
  std::uint32_t num_heads = 0, num_kv_heads = 0, head_dim = 0;
};

// cos and sin of the new position, one a rotated pair.
struct Angles {
  const float* cos = nullptr;
  const float* sin = nullptr;
  std::uint32_t pairs = 0;
  bool interleaved = false;
};

// What a call reads and writes; rows are sequences.
struct Rows {
  std::uint32_t batch = 0;
  float* x = nullptr;    // [batch, hidden]: the residual stream
  float* qkv = nullptr;  // [batch, (num_heads + 2 num_kv_heads) head_dim]
  const float* attended = nullptr;  // [batch, num_heads * head_dim]
  float* logits = nullptr;          // [batch, vocabulary]
};

class Decoder {
 public:
  Decoder(std::uint32_t hidden, std::uint32_t threads);

  void add(Layer layer) { layers_.push_back(std::move(layer)); }
  void set_head(Norm norm, Matrix head) { final_ = norm, head_ = head; }
  std::size_t num_layers() const { return layers_.size(); }
  const Layer& layer(std::size_t number) const { return layers_[number]; }
  std::uint32_t hidden() const { return hidden_; }
  std::uint32_t vocabulary() const { return head_.rows; }

  void before(std::size_t number, const Angles&, const Rows&);
  void after(std::size_t number, const Rows&);
  void logits(const Rows&);

 private:
  void normalise(const Norm&, const float* x, std::size_t rows, std::uint32_t size, float* y) const;
  void multiply(const Matrices&, const float* x, std::uint32_t batch, float* y,
                std::uint32_t y_stride) const;
  void add_to(const Rows&, const Norm&);
  float* room(std::vector<float>&, std::size_t size) const;

  const Kernels* kernels_;
  std::uint32_t hidden_, threads_;
  std::vector<Layer> layers_;
  Norm final_;
  Matrix head_;
  std::vector<float> normed_, gate_, up_, change_;
};

// Keys and values of one part of what a token attends to; strides are in numbers.
struct Part {
  const float* q;  // [batch, num_heads, dim]
  const void* k;
  const void* v;
  std::int64_t k_batch, k_head, k_token, v_batch, v_head, v_token;
  Number number;
  std::uint32_t keys;
};

struct Heads {
  std::uint32_t batch, num_heads, num_kv_heads, dim, value_dim;
};

// One softmax over the keys of all parts: out [batch, num_heads, value_dim]. The result does not
// depend on the number of threads.
void attend(const std::vector<Part>&, const Heads&, float scale, std::uint32_t threads, float* out);

}  // namespace unspool::decoder
