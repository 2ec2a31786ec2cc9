#include "index.hpp"

#include <algorithm>
#include <map>
#include <numeric>

#include "fm_shard.hpp"
#include "matches.hpp"
#include "sa_shard.hpp"

namespace unspool {

namespace {

template <class Shard>
class IndexOf final : public IndexBase {
 public:
  explicit IndexOf(std::vector<std::unique_ptr<Shard>> shards) : shards_(std::move(shards)) {}

  u64 num_shards() const override { return shards_.size(); }

  ShardInfo info(u64 shard) const override {
    const Shard& s = at(shard);
    ShardInfo out{s.file().path(), std::is_same_v<Shard, SaV4> ? "v4" : std::is_same_v<Shard, SaNative> ? "sa" : "fm",
                  s.alphabet().width(), s.num_symbols(), s.num_documents(), 0, 0, 0, s.file().size(), {}};
    if (const Container* c = container(s)) {
      out.alphabet = c->params().sigma - 2;
      out.sa_sample = c->params().sa_sample;
      out.isa_sample = c->params().isa_sample;
      for (const auto& [name, section] : c->sections()) out.sections.emplace_back(name, section.length);
    }
    return out;
  }

  std::string section(u64 shard, const std::string& name, u64 begin, u64 end) const override {
    const Container* c = container(at(shard));
    if (!c) throw BadQuery("An infini-gram v4 index has no sections.");
    const Section s = c->need(name);
    end = std::min(end, s.length);
    if (begin > end)
      throw BadQuery("Section " + name + " has " + std::to_string(s.length) + " bytes, asked for " +
                     std::to_string(begin) + " to " + std::to_string(end) + ".");
    std::string out(reinterpret_cast<const char*>(c->file().at(s.offset + begin, end - begin)), end - begin);
    c->file().throw_if_poisoned();
    return out;
  }

  void warm() const override {
    for (const auto& s : shards_) s->file().warm();
    check();
  }

  std::vector<std::string> verify(u64 shard) const override {
    const Container* c = container(at(shard));
    return c ? c->verify() : std::vector<std::string>{};
  }

  void ranges(const QueryView* queries, u64 n, u64* out) const override {
    Poll poll;
    constexpr u64 kBatch = 2048;  // queries whose dense symbols are held at a time
    std::vector<u32> dense;
    std::vector<Find<Shard>> finds;
    const u64 k = shards_.size();
    for (u64 first = 0; first < n; first += kBatch) {
      const u64 count = std::min(kBatch, n - first);
      finds.clear();
      u64 total = 0;
      for (u64 q = first; q < first + count; ++q) total += queries[q].length * k;
      dense.resize(std::max<u64>(total, 1));
      u64 used = 0;
      for (u64 q = first; q < first + count; ++q)
        for (u64 s = 0; s < k; ++s) {
          encode(*shards_[s], queries[q], dense.data() + used);
          finds.push_back({shards_[s].get(), dense.data() + used, queries[q].length});
          used += queries[q].length;
        }
      Shard::find_many(finds.data(), finds.size(), poll);
      for (u64 f = 0; f < finds.size(); ++f) {
        out[2 * (first * k + f)] = finds[f].lo;
        out[2 * (first * k + f) + 1] = finds[f].hi;
      }
    }
    check();
  }

  void count(const QueryView* queries, u64 n, i64* out) const override {
    const u64 k = shards_.size();
    std::vector<u64> bounds(2 * k * n);
    ranges(queries, n, bounds.data());
    for (u64 q = 0; q < n; ++q) {
      u64 sum = 0;
      for (u64 s = 0; s < k; ++s) sum += bounds[2 * (q * k + s) + 1] - bounds[2 * (q * k + s)];
      out[q] = static_cast<i64>(sum);
    }
  }

  void locate(u64 shard, const u64* rows, u64 n, u64 length, i64* documents,
              i64* starts) const override {
    Poll poll;
    std::vector<Hit> hits(n);
    at(shard).locate(rows, n, length, hits.data(), poll);
    check();
    for (u64 j = 0; j < n; ++j) {
      documents[j] = static_cast<i64>(hits[j].document);
      starts[j] = static_cast<i64>(hits[j].start);
    }
  }

  std::string extract(u64 shard, u64 document, u64 begin, u64 end) const override {
    Poll poll;
    const Shard& s = at(shard);
    const u64 length = document_length(shard, document);
    if (begin > end || end > length)
      throw BadQuery("Document " + std::to_string(document) + " has " + std::to_string(length) +
                     " symbols, asked for " + std::to_string(begin) + " to " + std::to_string(end) + ".");
    const u32 width = s.alphabet().width();
    std::vector<u32> symbols(end - begin, kAbsent);
    s.extract(document, begin, end, symbols.data(), poll);
    std::string out((end - begin) * width, '\0');
    for (u64 i = 0; i < symbols.size(); ++i) {
      if (symbols[i] <= kSeparator)
        throw Corrupt(s.file().path() + ": a document holds a separator. The file is damaged.");
      const u32 value = s.alphabet().external(symbols[i]);
      std::memcpy(out.data() + i * width, &value, width);
    }
    check();
    return out;
  }

  u64 document_length(u64 shard, u64 document) const override {
    const Shard& s = at(shard);
    if (document >= s.num_documents())
      throw BadQuery("Shard " + std::to_string(shard) + " has " + std::to_string(s.num_documents()) +
                     " documents, asked for number " + std::to_string(document) + ".");
    const u64 length = s.document_length(document);
    if (length > s.num_symbols())
      throw Corrupt(s.file().path() + ": a document is longer than the text. The file is damaged.");
    return length;
  }
  std::vector<u64> document_lengths(u64 shard) const override {
    std::vector<u64> out = at(shard).document_lengths();
    check();
    return out;
  }

  NextSymbols next(const QueryView& query) const override {
    Poll poll;
    Context context = find(query, poll);
    NextSymbols out = next_of(context, query.length, poll);
    check();
    return out;
  }

  std::pair<u64, u64> prob(const QueryView& query, i64 symbol) const override {
    Poll poll;
    const Context context = find(query, poll);
    const std::pair<u64, u64> out{context.count(), followed_by(context, query.length, symbol, poll)};
    check();
    return out;
  }

  std::pair<u64, u64> longest_suffix(const QueryView& query) const override {
    Poll poll;
    u64 length = 0;
    const Context context = suffix(query, &length, poll);
    check();
    return {length, context.count()};
  }

  NextSymbols infgram(const QueryView& query) const override {
    Poll poll;
    u64 length = 0;
    const Context context = suffix(query, &length, poll);
    NextSymbols out = next_of(context, length, poll);
    out.suffix_length = length;
    check();
    return out;
  }

  void infgram_prob(const QueryView& query, i64 symbol, i64* out) const override {
    Poll poll;
    u64 length = 0;
    const Context context = suffix(query, &length, poll);
    out[0] = static_cast<i64>(length);
    out[1] = static_cast<i64>(context.count());
    out[2] = static_cast<i64>(followed_by(context, length, symbol, poll));
    check();
  }

  void longest_matches(const QueryView& text, i64* lengths, i64* counts) const override {
    Poll poll;
    std::vector<std::vector<u32>> dense(shards_.size(), std::vector<u32>(text.length));
    for (u64 s = 0; s < shards_.size(); ++s) encode(*shards_[s], text, dense[s].data());
    unspool::longest_matches(shards_, dense, text.length, lengths, counts, poll);
    check();
  }

 private:
  using Context = unspool::Context;

  const Shard& at(u64 shard) const {
    if (shard >= shards_.size())
      throw BadQuery("There are " + std::to_string(shards_.size()) + " shards, asked for number " +
                     std::to_string(shard) + ".");
    return *shards_[shard];
  }
  static const Container* container(const Shard& s) {
    if constexpr (std::is_same_v<Shard, SaNative> || std::is_same_v<Shard, SaV4>)
      return s.container();
    else
      return &s.container();
  }
  // A map that lost its file ends the query, whatever was computed.
  void check() const {
    for (const auto& s : shards_) {
      if constexpr (std::is_same_v<Shard, SaV4>)
        s->text().throw_if_poisoned();
      else
        s->file().throw_if_poisoned();
    }
  }

  static void encode(const Shard& s, const QueryView& query, u32* out) {
    const auto& alphabet = s.alphabet();
    if (query.ids && alphabet.width() == 1) {
      for (u64 i = 0; i < query.length; ++i)
        if (query.symbol(i) > 255)
          throw BadQuery("Symbol " + std::to_string(query.symbol(i)) + " is no byte (0 to 255).");
    } else if (!query.ids && alphabet.width() != 1) {
      throw BadQuery("This is a token index: ask with token ids, not with text or bytes.");
    }
    for (u64 i = 0; i < query.length; ++i) out[i] = alphabet.dense(query.symbol(i));
  }

  Context find(const QueryView& query, Poll& poll) const {
    const u64 k = shards_.size();
    std::vector<u32> dense(query.length * k + 1);
    std::vector<Find<Shard>> finds(k);
    for (u64 s = 0; s < k; ++s) {
      encode(*shards_[s], query, dense.data() + s * query.length);
      finds[s] = {shards_[s].get(), dense.data() + s * query.length, query.length};
    }
    Shard::find_many(finds.data(), k, poll);
    Context out;
    for (const auto& f : finds) out.ranges.emplace_back(f.lo, f.hi);
    return out;
  }

  Context suffix(const QueryView& query, u64* length, Poll& poll) const {
    std::vector<std::vector<u32>> dense(shards_.size(), std::vector<u32>(query.length));
    for (u64 s = 0; s < shards_.size(); ++s) encode(*shards_[s], query, dense[s].data());
    return longest_suffix_rows(shards_, dense, query.length, length, poll);
  }

  NextSymbols next_of(const Context& context, u64 depth, Poll& poll) const {
    NextSymbols out;
    out.count = context.count();
    std::map<i64, u64> sum;
    std::vector<SymbolCount> counts;
    std::vector<std::pair<i64, u64>> single;
    const bool one = shards_.size() == 1;
    for (u64 s = 0; s < shards_.size(); ++s) {
      const auto [lo, hi] = context.ranges[s];
      if (lo >= hi) continue;
      counts.clear();
      shards_[s]->next_counts(lo, hi, depth, counts, poll);
      for (const SymbolCount& c : counts) {
        const i64 symbol = c.symbol == kSeparator ? kEndOfDocument
                                                  : static_cast<i64>(shards_[s]->alphabet().external(c.symbol));
        if (one && !std::is_same_v<Shard, SaV4>)
          single.emplace_back(symbol, c.count);
        else
          sum[symbol] += c.count;
      }
    }
    for (const auto& [symbol, count] : single) {
      out.symbols.push_back(symbol);
      out.counts.push_back(static_cast<i64>(count));
    }
    for (const auto& [symbol, count] : sum) {
      out.symbols.push_back(symbol);
      out.counts.push_back(static_cast<i64>(count));
    }
    return out;
  }

  u64 followed_by(const Context& context, u64 depth, i64 symbol, Poll& poll) const {
    u64 sum = 0;
    if (symbol < kEndOfDocument || symbol > 0xFFFFFFFFll)
      throw BadQuery("A next symbol is a byte, a token id, or -1 for the end of a document, got " +
                     std::to_string(symbol) + ".");
    if (std::is_same_v<Shard, SaV4> && symbol == kEndOfDocument) {
      // The end of the last document has no separator, so no one symbol stands for it.
      std::vector<SymbolCount> counts;
      for (u64 s = 0; s < shards_.size(); ++s) {
        counts.clear();
        shards_[s]->next_counts(context.ranges[s].first, context.ranges[s].second, depth, counts, poll);
        for (const SymbolCount& c : counts)
          if (c.symbol == kSeparator) sum += c.count;
      }
      return sum;
    }
    std::vector<Extend<Shard>> steps;
    for (u64 s = 0; s < shards_.size(); ++s) {
      const u32 c = symbol == kEndOfDocument ? kSeparator
                                             : shards_[s]->alphabet().dense(static_cast<u32>(symbol));
      steps.push_back({shards_[s].get(), c, depth, context.ranges[s].first, context.ranges[s].second});
    }
    Shard::extend_many(steps.data(), steps.size());
    for (const auto& e : steps) sum += e.hi - e.lo;
    return sum;
  }

  std::vector<std::unique_ptr<Shard>> shards_;
};

template <class Shard, class Make>
std::unique_ptr<IndexBase> make(std::vector<std::unique_ptr<Container>>& containers, Make make_one) {
  std::vector<std::unique_ptr<Shard>> shards;
  for (auto& c : containers) shards.push_back(make_one(std::move(c)));
  return std::make_unique<IndexOf<Shard>>(std::move(shards));
}

}  // namespace

std::unique_ptr<IndexBase> open_index(const std::vector<std::string>& paths, bool ram) {
  if (paths.empty()) throw BadQuery("An index needs at least one shard.");
  std::vector<std::unique_ptr<Container>> containers;
  for (const std::string& path : paths) containers.push_back(std::make_unique<Container>(path, ram));
  const u64 layout = containers[0]->params().layout;
  const u64 width = containers[0]->params().width;
  for (const auto& c : containers) {
    if (c->params().layout != layout || c->params().width != width)
      throw Corrupt(c->file().path() + " is of another tier or alphabet than " +
                    containers[0]->file().path() + ".");
    if (!ram) c->file().advise_random();
  }
  switch (static_cast<Layout>(layout)) {
    case Layout::kFmBytes:
      return make<FmBytes>(containers, [](auto c) { return std::make_unique<FmBytes>(std::move(c)); });
    case Layout::kFmTokens:
      return make<FmTokens>(containers, [](auto c) { return std::make_unique<FmTokens>(std::move(c)); });
    case Layout::kSuffixArray:
      return make<SaNative>(containers, [](auto c) {
        return std::make_unique<SaNative>(NativeText(std::move(c)));
      });
  }
  throw Corrupt(containers[0]->file().path() + ": unknown layout " + std::to_string(layout) + ".");
}

std::unique_ptr<IndexBase> open_v4(const std::vector<V4Files>& files, u32 width) {
  if (width != 1 && width != 2 && width != 4)
    throw BadQuery("Token width must be 1, 2 or 4 bytes, got " + std::to_string(width) + ".");
  std::vector<std::unique_ptr<SaV4>> shards;
  for (const V4Files& f : files)
    shards.push_back(std::make_unique<SaV4>(V4Text(f.tokenized, f.table, f.offset, width)));
  if (shards.empty()) throw BadQuery("An index needs at least one shard.");
  return std::make_unique<IndexOf<SaV4>>(std::move(shards));
}

}  // namespace unspool
