#include "build.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "block_tree.hpp"
#include "container.hpp"
#include "doc_table.hpp"
#include "prefix_table.hpp"
#include "query.hpp"
#include "sais.hpp"
#include "spool.hpp"
#include "token_matrix.hpp"

namespace unspool {

namespace {

void write_alphabet(ContainerWriter& out, const std::vector<u32>& values) {
  out.begin("ALPHABET");
  out.write_all(values);
  out.end();
}

void write_packed40(ContainerWriter& out, const std::vector<u64>& values) {
  std::vector<u8> bytes(values.size() * 5 + 3, 0);
  for (std::size_t i = 0; i < values.size(); ++i) std::memcpy(&bytes[5 * i], &values[i], 5);
  out.write_all(bytes);
}

// First row of suffixes that begin with each pair of symbols; true where the table is worth it.
template <class Symbol>
bool write_pairs(ContainerWriter& out, const Symbol* text, u64 n, u64 first_row, u32 sigma) {
  const u64 pairs = u64{sigma} * sigma;
  if (5 * (pairs + 1) > n / 64) return false;
  std::vector<u64> row(pairs + 1, 0);
  for (u64 i = 0; i + 1 < n; ++i) ++row[u64{text[i]} * sigma + text[i + 1]];
  ++row[0];  // the sentinel alone
  u64 sum = 0;
  for (u64& r : row) {
    const u64 here = r;
    r = sum < first_row ? 0 : sum - first_row;
    sum += here;
  }
  out.begin("PAIRS");
  write_packed40(out, row);
  out.end();
  return true;
}

// What every shard ends with: where its documents start, and the sections that the caller gave.
u64 finish(ContainerWriter& out, const BuildRequest& request, const Params& params) {
  std::vector<u64> starts;
  u64 at = 0;
  for (u64 length : request.lengths) {
    starts.push_back(at);
    at += length + 1;
  }
  starts.push_back(at);
  write_doc_table(out, starts);
  for (const auto& [name, bytes] : request.sections) {
    out.begin(name);
    out.write(bytes.data(), bytes.size());
    out.end();
  }
  return out.finish(params);
}

class Stopwatch {
 public:
  Stopwatch(const BuildRequest& request, BuildResult& result, Poll& poll)
      : request_(request), result_(result), poll_(poll) {}
  // `work`: about how many units the stage will report to the poll.
  void stage(const char* name, u64 work) {
    end();
    name_ = name;
    if (!request_.progress) return;
    request_.progress(name, 0.0);
    poll_.expect(work, [this](double fraction) { request_.progress(name_, fraction); });
  }
  void end() {
    const auto now = Clock::now();
    poll_.expect(1, nullptr);
    if (name_) result_.seconds[name_] += std::chrono::duration<double>(now - start_).count();
    start_ = now;
    name_ = nullptr;
  }

 private:
  const BuildRequest& request_;
  BuildResult& result_;
  Poll& poll_;
  const char* name_ = nullptr;
  Clock::time_point start_ = Clock::now();
};

// The last column overwrites the array it is made from: entry i is read before it is reached.
template <class Symbol, class Int>
void transform(const Symbol* text, Int* sa, u64 n, const BuildRequest& request, Params& params,
               std::vector<u64>& marks, PackedWriter& samples, std::vector<u64>& inverse,
               PrefixCounter& prefixes, Poll& poll) {
  u8* column = reinterpret_cast<u8*>(sa);
  const u64 a = request.sa_sample, b = request.isa_sample;
  const bool power = (a & (a - 1)) == 0;
  u64 to = 0, num_samples = 0;
  constexpr u64 kAhead = 32;
  for (u64 i = 0; i < n; ++i) {
    if (i + kAhead < n) {
      const Int q = sa[i + kAhead];
      prefetch(text + (q > 0 ? q - 1 : 0));
    }
    const u64 p = static_cast<u64>(sa[i]);
    if constexpr (sizeof(Symbol) == 1) prefixes.add(i, __builtin_bswap64(load<u64>(text + p)));
    if (p == 0) {
      params.sentinel_row = i;
      continue;
    }
    const Symbol c = text[p - 1];
    std::memcpy(column + to * sizeof(Symbol), &c, sizeof(Symbol));
    if ((power ? p & (a - 1) : p % a) == 0) {
      marks[to / 64] |= u64{1} << (to % 64);
      samples.push(p / a);
      if (p % b == 0) inverse[p / b] = num_samples;
      ++num_samples;
    }
    ++to;
    if ((i & 0xFFFF) == 0) poll(512);
  }
}

template <class Symbol, class Int>
void build_fm(const BuildRequest& request, const std::vector<u32>& values, u64 rows,
              BuildResult& result, Poll& poll) {
  Stopwatch watch(request, result, poll);
  const u64 n = rows + 1;
  const u32 sigma = static_cast<u32>(values.size() + 2);
  watch.stage("read", n / 1024);
  Buffer text_buffer(n * sizeof(Symbol) + 64), array(n * sizeof(Int) + 64);
  Symbol* text = text_buffer.as<Symbol>();
  fill_text(request, values, text, rows, poll);

  watch.stage("sort", n / 16);
  suffix_array<Symbol, Int>(text, array.as<Int>(), static_cast<Int>(n), static_cast<Int>(sigma), poll);

  watch.stage("transform", n / 128);
  Params params;
  params.layout = static_cast<u64>(request.width == 1 ? Layout::kFmBytes : Layout::kFmTokens);
  params.width = request.width;
  params.rows = n;
  params.documents = request.lengths.size();
  params.sigma = sigma;
  params.sa_sample = request.sa_sample;
  params.isa_sample = request.isa_sample;
  params.block_log = kBlockLog;
  params.sample_bits = std::max(1u, bit_width(n / request.sa_sample));
  params.isample_bits = std::max(1u, bit_width(n / request.sa_sample));
  std::vector<u64> marks(rows / 64 + 2, 0), inverse((n - 1) / request.isa_sample + 1, 0);
  PackedWriter samples(static_cast<u32>(params.sample_bits));
  // At most a 96th of the text; an entry takes 24 bytes of a table two thirds full.
  PrefixCounter prefixes(std::max<u64>(64, n >> 19), n / 48 / 24, true);
  transform<Symbol, Int>(text, array.as<Int>(), n, request, params, marks, samples, inverse, prefixes,
                         poll);
  array.shrink(rows * sizeof(Symbol));

  watch.stage("write", request.width == 1 ? n / 128 : n / 8);
  std::vector<u64> first_rows(u64{sigma} + 1, 0);
  for (u64 i = 0; i < n; ++i) ++first_rows[u64{text[i]} + 1];
  for (u32 c = 0; c < sigma; ++c) first_rows[c + 1u] += first_rows[c];
  ContainerWriter out(request.out);
  out.begin("ROWS");
  out.write_all(first_rows);
  out.end();
  write_alphabet(out, values);
  params.pairs = write_pairs(out, text, n, 0, sigma);
  if (sizeof(Symbol) == 1 && request.width == 1) params.prefix_slots = prefixes.write(out, n);
  text_buffer.reset();
  if (request.width == 1) {
    if constexpr (sizeof(Symbol) <= 2)
      write_block_tree<Symbol>(out, array.as<Symbol>(), marks.data(), rows, sigma, first_rows, poll);
  } else {
    if constexpr (sizeof(Symbol) >= 2)
      write_token_matrix<Symbol>(out, array.as<Symbol>(), marks.data(), rows, sigma, first_rows, poll);
  }
  array.reset();
  out.begin("SAMPLES");
  samples.write(out);
  out.end();
  out.begin("INVERSE");
  PackedWriter packed(static_cast<u32>(params.isample_bits));
  for (u64 k : inverse) packed.push(k);
  packed.write(out);
  out.end();
  result.bytes_file = finish(out, request, params);
  watch.end();
}

template <class Symbol, class Int>
void build_sa(const BuildRequest& request, const std::vector<u32>& values, u64 rows,
              BuildResult& result, Poll& poll) {
  Stopwatch watch(request, result, poll);
  const u64 n = rows + 1;
  const u32 sigma = static_cast<u32>(values.size() + 2);
  watch.stage("read", n / 1024);
  Buffer text_buffer(n * sizeof(Symbol) + 64), array(n * sizeof(Int) + 64);
  Symbol* text = text_buffer.as<Symbol>();
  fill_text(request, values, text, rows, poll);

  watch.stage("sort", n / 16);
  Int* sa = array.as<Int>();
  suffix_array<Symbol, Int>(text, sa, static_cast<Int>(n), static_cast<Int>(sigma), poll);

  watch.stage("write", n / 128);
  Params params;
  params.layout = static_cast<u64>(Layout::kSuffixArray);
  params.width = request.width;
  params.rows = rows;
  params.documents = request.lengths.size();
  params.sigma = sigma;
  params.stored_width = sizeof(Symbol);
  params.pointer_width = rows > 0xFFFFFFFFu ? 5 : 4;
  ContainerWriter out(request.out);
  write_alphabet(out, values);
  params.pairs = write_pairs(out, text, n, 1, sigma);  // row 0, the sentinel's, is left out
  if constexpr (sizeof(Symbol) == 1) {
    // At most a 6th of the text, which is a 30th of this tier's file.
    PrefixCounter prefixes(std::max<u64>(32, n >> 22), n / 6 / 24, false);
    constexpr u64 kAhead = 32;
    for (u64 i = 1; i < n; ++i) {
      if (i + kAhead < n) prefetch(text + sa[i + kAhead]);
      prefixes.add(i - 1, __builtin_bswap64(load<u64>(text + sa[i])));
      if ((i & 0xFFFF) == 0) poll(256);
    }
    params.prefix_slots = prefixes.write(out, rows);
  }
  out.begin("TEXT");
  out.write(text, rows * sizeof(Symbol));
  out.end();
  out.begin("ARRAY");
  std::vector<u8> chunk;
  for (u64 i = 1; i < n;) {
    const u64 stop = std::min(n, i + 65536);
    chunk.resize((stop - i) * params.pointer_width);
    u8* p = chunk.data();
    for (; i < stop; ++i, p += params.pointer_width) {
      const u64 value = static_cast<u64>(sa[i]);
      std::memcpy(p, &value, params.pointer_width);
    }
    out.write_all(chunk);
    poll(512);
  }
  const u64 slack = 0;
  out.write(&slack, 8);
  out.end();
  result.bytes_file = finish(out, request, params);
  watch.end();
}

template <class Symbol>
void build(const BuildRequest& request, const std::vector<u32>& values, u64 rows,
           BuildResult& result, Poll& poll) {
  const bool wide = rows + 1 >= (u64{1} << 31);
  if (request.fm)
    wide ? build_fm<Symbol, i64>(request, values, rows, result, poll)
         : build_fm<Symbol, std::int32_t>(request, values, rows, result, poll);
  else
    wide ? build_sa<Symbol, i64>(request, values, rows, result, poll)
         : build_sa<Symbol, std::int32_t>(request, values, rows, result, poll);
}

}  // namespace

BuildResult build_shard(const BuildRequest& request) {
  BuildResult result;
  Poll poll;
  u64 symbols = 0, bytes = 0;
  for (u64 length : request.lengths) symbols += length;
  for (const Piece& piece : request.pieces) bytes += piece.length;
  if (request.width != 1 && request.width != 2 && request.width != 4)
    throw BadQuery("width must be 1, 2 or 4, got " + std::to_string(request.width) + ".");
  if (bytes != symbols * request.width)
    throw BadQuery("The pieces hold " + std::to_string(bytes) + " bytes, the documents " +
                   std::to_string(symbols) + " symbols of " + std::to_string(request.width) + ".");
  if (request.fm && (request.sa_sample == 0 || request.isa_sample == 0 ||
                     request.isa_sample % request.sa_sample))
    throw BadQuery("isa_sample must be a multiple of sa_sample, got sa_sample=" +
                   std::to_string(request.sa_sample) +
                   ", isa_sample=" + std::to_string(request.isa_sample) + ".");
  for (const auto& section : request.sections)
    if (section.first.empty() || section.first.size() > 8)
      throw BadQuery("A section name has 1 to 8 characters, got '" + section.first + "'.");
  const u64 rows = symbols + request.lengths.size();
  if (rows + 1 >= (u64{1} << 39))
    throw BadQuery("A shard holds less than 2^39 symbols, got " + std::to_string(rows) + ".");
  const std::vector<u32> values = find_values(request, symbols, poll);
  const u64 sigma = values.size() + 2;
  result.symbols = symbols;
  result.documents = request.lengths.size();
  result.rows = rows;
  result.alphabet = values.size();
  if (request.width == 1) {
    if (sigma <= 256)
      build<u8>(request, values, rows, result, poll);
    else
      build<u16>(request, values, rows, result, poll);
  } else if (sigma <= 65536) {
    build<u16>(request, values, rows, result, poll);
  } else {
    build<u32>(request, values, rows, result, poll);
  }
  return result;
}

u64 shard_memory(bool fm, u32 width, u64 symbols, u64 documents) {
  const u64 n = symbols + documents + 1;
  const u64 pointer = n >= (u64{1} << 31) ? 8 : 4;
  // The text, the array, and what the recursion and the samples need beside them; a document costs
  // its length and its id.
  const u64 beside = width == 1 ? n / 2 : n;
  return n * (width + pointer) + (fm ? beside : beside / 2) + 64 * documents + (8 << 20);
}

}  // namespace unspool
