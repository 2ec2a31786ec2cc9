#include "index.hpp"

#include <algorithm>
#include <map>
#include <numeric>

#include "fm_shard.hpp"
#include "matches.hpp"
#include "sa_shard.hpp"
#include "threads.hpp"

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
    Poll poll;
    for (const auto& s : shards_) s->file().warm(poll);
    check();
  }

  std::vector<std::string> verify(u64 shard) const override {
    const Container* c = container(at(shard));
    return c ? c->verify() : std::vector<std::string>{};
  }

  void ranges(const Questions& asked, u64* out) const override {
    in_batches(asked, Takes::kOneSearch, [&](const Questions& some, u64 first, Poll& poll) {
      u64* answer = out + 2 * first * k();
      for (const Rows& rows : find(encoded(some), poll)) {
        *answer++ = rows.lo;
        *answer++ = rows.hi;
      }
    });
  }

  void count(const Questions& asked, i64* out) const override {
    in_batches(asked, Takes::kOneSearch, [&](const Questions& some, u64 first, Poll& poll) {
      const std::vector<Rows> rows = find(encoded(some), poll);
      for (u64 q = 0; q < some.n; ++q) out[first + q] = static_cast<i64>(total(&rows[q * k()], k()));
    });
  }

  void prob(const Questions& asked, i64* out) const override {
    in_batches(asked, Takes::kOneSearch, [&](const Questions& some, u64 first, Poll& poll) {
      const DenseTexts texts = encoded(some);
      const std::vector<Rows> rows = find(texts, poll);
      std::vector<u64> depths(some.n);
      for (u64 q = 0; q < some.n; ++q) depths[q] = texts.length(q);
      const std::vector<u64> both = followed(rows, depths, some.symbols, poll);
      for (u64 q = 0; q < some.n; ++q) {
        out[2 * (first + q)] = static_cast<i64>(total(&rows[q * k()], k()));
        out[2 * (first + q) + 1] = static_cast<i64>(both[q]);
      }
    });
  }

  void longest_suffix(const Questions& asked, i64* out) const override {
    in_batches(asked, Takes::kLongestSuffix, [&](const Questions& some, u64 first, Poll& poll) {
      const Suffixes found = suffixes(some, poll);
      for (u64 q = 0; q < some.n; ++q) {
        out[2 * (first + q)] = static_cast<i64>(found.lengths[q]);
        out[2 * (first + q) + 1] = static_cast<i64>(total(&found.rows[q * k()], k()));
      }
    });
  }

  void infgram_prob(const Questions& asked, i64* out) const override {
    in_batches(asked, Takes::kLongestSuffix, [&](const Questions& some, u64 first, Poll& poll) {
      const Suffixes found = suffixes(some, poll);
      const std::vector<u64> both = followed(found.rows, found.lengths, some.symbols, poll);
      for (u64 q = 0; q < some.n; ++q) {
        i64* answer = out + 3 * (first + q);
        answer[0] = static_cast<i64>(found.lengths[q]);
        answer[1] = static_cast<i64>(total(&found.rows[q * k()], k()));
        answer[2] = static_cast<i64>(both[q]);
      }
    });
  }

  std::vector<NextSymbols> next(const Questions& asked) const override {
    std::vector<NextSymbols> out(asked.n);
    in_batches(asked, Takes::kOneSearch, [&](const Questions& some, u64 first, Poll& poll) {
      const DenseTexts texts = encoded(some);
      const std::vector<Rows> rows = find(texts, poll);
      for (u64 q = 0; q < some.n; ++q)
        out[first + q] = next_of(&rows[q * k()], texts.length(q), poll);
    });
    return out;
  }

  std::vector<NextSymbols> infgram(const Questions& asked) const override {
    std::vector<NextSymbols> out(asked.n);
    in_batches(asked, Takes::kLongestSuffix, [&](const Questions& some, u64 first, Poll& poll) {
      const Suffixes found = suffixes(some, poll);
      for (u64 q = 0; q < some.n; ++q) {
        out[first + q] = next_of(&found.rows[q * k()], found.lengths[q], poll);
        out[first + q].suffix_length = found.lengths[q];
      }
    });
    return out;
  }

  void longest_matches(const QueryView& text, i64* lengths, i64* counts) const override {
    Poll poll;
    const DenseTexts dense = encoded({&text, 1});
    LongestMatches<Shard>(shards_, dense, lengths, counts, poll).run();
    check();
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

 private:
  // Searches that are worth a thread; searches whose queries are held at a time.
  static constexpr u64 kMany = 128, kMost = 2048;

  u64 k() const { return shards_.size(); }
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

  DenseTexts encoded(const Questions& asked) const {
    return DenseTexts(
        asked.n, k(), [&](u64 q) { return asked.queries[q].length; },
        [&](u64 q, u64 s, u32* out) { encode(*shards_[s], asked.queries[q], out); });
  }

  // A question that takes so many searches each.
  enum class Takes : u64 { kOneSearch = 1, kLongestSuffix = 7 };

  // Calls f(questions, number of the first one, poll) for some of the questions at a time, on several
  // threads where there are many.
  template <class F>
  void in_batches(const Questions& asked, Takes takes, F f) const {
    const u64 searches = static_cast<u64>(takes);
    if (asked.n * searches >= kMany) {
      // A few are not made to wait for what may not be needed.
      Poll poll;
      for (const auto& s : shards_) s->expect(asked.n * searches, poll);
    }
    in_pieces(asked.n, kMany / searches, kMost / searches, [&](u64 first, u64 end, Poll& poll) {
      const i64* symbols = asked.symbols ? asked.symbols + first : nullptr;
      f(Questions{asked.queries + first, end - first, symbols}, first, poll);
    });
    check();
  }

  // [query][shard]
  std::vector<Rows> find(const DenseTexts& texts, Poll& poll) const {
    std::vector<Find<Shard>> finds;
    finds.reserve(texts.size() * k());
    for (u64 q = 0; q < texts.size(); ++q)
      for (u64 s = 0; s < k(); ++s)
        finds.push_back({shards_[s].get(), texts.text(q, s), texts.length(q)});
    Shard::find_many(finds.data(), finds.size(), poll);
    std::vector<Rows> rows;
    rows.reserve(finds.size());
    for (const auto& f : finds) rows.push_back({f.lo, f.hi});
    return rows;
  }

  struct Suffixes {
    std::vector<u64> lengths;
    std::vector<Rows> rows;  // [query][shard]
  };
  Suffixes suffixes(const Questions& asked, Poll& poll) const {
    Suffixes out{std::vector<u64>(asked.n), std::vector<Rows>(asked.n * k())};
    longest_suffixes(shards_, encoded(asked), out.lengths.data(), out.rows.data(), poll);
    return out;
  }

  NextSymbols next_of(const Rows* rows, u64 depth, Poll& poll) const {
    NextSymbols out;
    out.count = total(rows, k());
    std::map<i64, u64> sum;
    std::vector<SymbolCount> counts;
    const auto push = [&](i64 symbol, u64 count) {
      out.symbols.push_back(symbol);
      out.counts.push_back(static_cast<i64>(count));
    };
    // One shard of ours has them in order already.
    const bool one = k() == 1 && !std::is_same_v<Shard, SaV4>;
    for (u64 s = 0; s < k(); ++s) {
      if (rows[s].lo >= rows[s].hi) continue;
      counts.clear();
      shards_[s]->next_counts(rows[s].lo, rows[s].hi, depth, counts, poll);
      for (const SymbolCount& c : counts) {
        const i64 symbol = c.symbol == kSeparator
                               ? kEndOfDocument
                               : static_cast<i64>(shards_[s]->alphabet().external(c.symbol));
        if (one)
          push(symbol, c.count);
        else
          sum[symbol] += c.count;
      }
    }
    for (const auto& [symbol, count] : sum) push(symbol, count);
    return out;
  }

  // How often each context, rows[q][shard] of depth depths[q], is followed by symbols[q].
  std::vector<u64> followed(const std::vector<Rows>& rows, const std::vector<u64>& depths,
                            const i64* symbols, Poll& poll) const {
    std::vector<u64> out(depths.size());
    std::vector<Extend<Shard>> steps;
    steps.reserve(rows.size());
    for (u64 q = 0; q < depths.size(); ++q) {
      const i64 symbol = symbols[q];
      if (symbol < kEndOfDocument || symbol > 0xFFFFFFFFll)
        throw BadQuery("A next symbol is a byte, a token id, or -1 for the end of a document, got " +
                       std::to_string(symbol) + ".");
      for (u64 s = 0; s < k(); ++s) {
        const Rows& r = rows[q * k() + s];
        u32 c = kSeparator;
        if (symbol != kEndOfDocument)
          c = shards_[s]->alphabet().dense(static_cast<u32>(symbol));
        else if (std::is_same_v<Shard, SaV4>) {
          // The end of the last document has no separator, so no one symbol stands for it.
          out[q] += ends(*shards_[s], r, depths[q], poll);
          c = kAbsent;
        }
        steps.push_back({shards_[s].get(), c, depths[q], r.lo, r.hi});
      }
    }
    Shard::extend_many(steps.data(), steps.size());
    for (u64 j = 0; j < steps.size(); ++j) out[j / k()] += steps[j].hi - steps[j].lo;
    return out;
  }
  static u64 ends(const Shard& shard, const Rows& rows, u64 depth, Poll& poll) {
    std::vector<SymbolCount> counts;
    shard.next_counts(rows.lo, rows.hi, depth, counts, poll);
    u64 sum = 0;
    for (const SymbolCount& c : counts)
      if (c.symbol == kSeparator) sum += c.count;
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
