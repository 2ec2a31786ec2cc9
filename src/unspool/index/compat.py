"""The engine class of the `infini-gram` package, answered by an index of this project.

What: the constructor keywords, method names and result keys of `InfiniGramEngine` (infini-gram
2.6.0), over v4 directories or indexes built here, so that scripts written for it run.
Source: the public interface of liujch1998/infini-gram; behaviour checked against the package.
Departures, all of them repairs: distributions are exact, so `approx` is always False and
`max_support` changes nothing; the end of a document counts as `eos_token_id` in `prob` as well as
in `ntd`; documents are drawn without replacement, from a seed; CNF clauses are never subsampled, so
`max_clause_freq` changes nothing (`Index.cnf` counts in a way that does not depend on the shards).
`version=5` (reversed documents) is refused, as are ranks without a needle on the fm tier, whose
rows stand for the ends of matches.
Cost: that of the calls beneath; offsets of documents (8 bytes each) once a shard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from unspool.errors import QueryError, Unsupported
from unspool.index import trace as _trace
from unspool.index.alphabet import END
from unspool.index.compat_checks import Check, open_for_scripts, read_ids
from unspool.index.compat_cnf import Windows, released_windows
from unspool.index.core import Core
from unspool.index.engine import Index
from unspool.index.find import Place, places
from unspool.index.v4 import V4Table

Ids: TypeAlias = Sequence[int]
Cnf: TypeAlias = Sequence[Sequence[Ids]]
Result: TypeAlias = dict[str, Any]

_WIDTHS = {"u8": 1, "u16": 2, "u32": 4}


class InfiniGramEngine:
    """Ask an index with the names that infini-gram's scripts use."""

    def __init__(
        self,
        index_dir: str | Sequence[str] | Index,
        eos_token_id: int,
        vocab_size: int = 65535,
        version: int = 4,
        token_dtype: str = "u16",
        load_to_ram: bool = False,
        ds_prefetch_depth: int = 1,
        sa_prefetch_depth: int = 3,
        od_prefetch_depth: int = 3,
        bow_ids_path: str | None = None,
        attribution_block_size: int = 512,
        precompute_unigram_logprobs: bool = False,
        prev_shards_by_index_dir: Mapping[str, Any] | None = None,
        max_support: int = 1000,
        max_clause_freq: int = 50000,
        max_diff_tokens: int = 100,
        maxnum: int = 1,
        max_disp_len: int = 1000,
    ) -> None:
        """Open an index. Prefetch depths and block sizes are accepted and have no effect."""
        if version != 4:
            raise Unsupported(
                f"infini-gram version {version} is not supported: version 5 stores every document "
                "reversed. Use version 4, or an index built by unspool."
            )
        if token_dtype not in _WIDTHS:
            raise QueryError(f"token_dtype must be u8, u16 or u32, got {token_dtype!r}.")
        self._index = open_for_scripts(index_dir, _WIDTHS[token_dtype], load_to_ram)
        self._core: Core = self._index._core
        self._native = self._core.native
        self._eos = eos_token_id
        self._width = _WIDTHS[token_dtype]
        self.token_id_max = (1 << 8 * self._width) - 1
        self._bow = read_ids(bow_ids_path)
        self.max_support, self.max_clause_freq = max_support, max_clause_freq
        self.max_diff_tokens, self.maxnum, self.max_disp_len = max_diff_tokens, maxnum, max_disp_len
        self._starts = cache(self._document_starts)
        self._check = Check(self._native, self._width, self._starts)

    # --- counts

    def find(self, input_ids: Ids) -> Result:
        if error := self._check.ids(input_ids):
            return error
        ranges = self._native.ranges(self._ids(input_ids))
        return {"cnt": sum(high - low for low, high in ranges), "segment_by_shard": ranges}

    def count(self, input_ids: Ids) -> Result:
        if error := self._check.ids(input_ids):
            return error
        return {"count": self._native.count(self._ids(input_ids)), "approx": False}

    def find_cnf(
        self, cnf: Cnf, max_clause_freq: int | None = None, max_diff_tokens: int | None = None
    ) -> Result:
        if error := self._check.cnf(cnf):
            return error
        found = [w.first * self._width for w in self._windows(cnf, max_diff_tokens)]
        if not all(self._native.count_batch(clause).sum() for clause in self._terms(cnf)):
            found = []  # as the released engine answers where a clause is met nowhere
        count = sum(map(len, found))
        return {"cnt": count, "approx": False, "ptrs_by_shard": [f.tolist() for f in found]}

    def count_cnf(
        self, cnf: Cnf, max_clause_freq: int | None = None, max_diff_tokens: int | None = None
    ) -> Result:
        if error := self._check.cnf(cnf):
            return error
        count = sum(len(w.first) for w in self._windows(cnf, max_diff_tokens))
        return {"count": count, "approx": False}

    def compute_unigram_counts(self, s: int) -> dict[int, int]:
        """Occurrences of each token in one shard; the separator is the largest id."""
        counts: dict[int, int] = {}
        for document in range(self._native.info(s)["documents"]):
            length = self._native.document_length(s, document)
            symbols = self._core.holdings.symbols(s, document, 0, length)
            for symbol, many in zip(*np.unique(symbols, return_counts=True), strict=True):
                counts[int(symbol)] = counts.get(int(symbol), 0) + int(many)
            counts[self.token_id_max] = counts.get(self.token_id_max, 0) + 1
        return dict(sorted(counts.items()))

    # --- probabilities

    def prob(self, prompt_ids: Ids, cont_id: int) -> Result:
        if error := self._check.ids([*prompt_ids, cont_id]):
            return error
        before, both = self._both(self._ids(prompt_ids), cont_id)
        return _ratio(before, both)

    def infgram_prob(self, prompt_ids: Ids, cont_id: int) -> Result:
        if error := self._check.ids([*prompt_ids, cont_id]):
            return error
        prompt = self._ids(prompt_ids)
        length, _ = self._native.longest_suffix(prompt)
        before, both = self._both(prompt[len(prompt) - length :], cont_id)
        return {**_ratio(before, both), "suffix_len": length}

    def ntd(self, prompt_ids: Ids, max_support: int | None = None) -> Result:
        if error := self._check.ids(prompt_ids):
            return error
        count, symbols, counts = self._native.next(self._ids(prompt_ids))
        return self._distribution(count, symbols, counts)

    def infgram_ntd(self, prompt_ids: Ids, max_support: int | None = None) -> Result:
        if error := self._check.ids(prompt_ids):
            return error
        length, count, symbols, counts = self._native.infgram(self._ids(prompt_ids))
        return {**self._distribution(count, symbols, counts), "suffix_len": length}

    def _both(self, prompt: NDArray[np.uint32], cont_id: int) -> tuple[int, int]:
        before, both = self._native.prob(prompt, cont_id)
        if cont_id == self._eos:
            both += self._native.prob(prompt, END)[1]
        return before, both

    def _distribution(
        self, count: int, symbols: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> Result:
        by_token: dict[int, int] = {}
        for symbol, many in zip(symbols.tolist(), counts.tolist(), strict=True):
            token = self._eos if symbol == END else symbol
            by_token[token] = by_token.get(token, 0) + many
        return {
            "prompt_cnt": count,
            "result_by_token_id": {
                token: {"cont_cnt": many, "prob": many / count}
                for token, many in sorted(by_token.items())
            },
            "approx": False,
        }

    # --- documents

    def search_docs(
        self,
        input_ids: Ids,
        maxnum: int | None = None,
        max_disp_len: int | None = None,
        seed: int = 0,
    ) -> Result:
        if error := self._check.ids(input_ids):
            return error
        ids, most = self._ids(input_ids), maxnum or self.maxnum
        count = self._native.count(ids)
        if not len(ids):
            return {"error": "search_docs needs at least one token"}
        drawn = places(self._native, ids, len(ids), limit=most, order="random", seed=seed)
        found = [place for place, _ in zip(drawn, range(most), strict=False)]
        return {
            "cnt": count,
            "approx": False,
            "idxs": list(range(len(found))),
            "documents": [self._shown(place, max_disp_len) for place in found],
        }

    def search_docs_cnf(
        self,
        cnf: Cnf,
        maxnum: int | None = None,
        max_disp_len: int | None = None,
        max_clause_freq: int | None = None,
        max_diff_tokens: int | None = None,
        seed: int = 0,
    ) -> Result:
        if error := self._check.cnf(cnf):
            return error
        windows = self._windows(cnf, max_diff_tokens)
        found = [(s, int(p) * self._width) for s, w in enumerate(windows) for p in w.first]
        order = np.random.RandomState(seed).permutation(len(found))
        chosen = order[: maxnum or self.maxnum].tolist()
        documents = [self._shown(self._at_pointer(*found[i]), max_disp_len) for i in chosen]
        return {"cnt": len(found), "approx": False, "idxs": chosen, "documents": documents}

    def get_doc_by_rank(self, s: int, rank: int, max_disp_len: int | None = None) -> Result:
        if error := self._check.rank(s, rank):
            return error
        if self._core.info.tier == "fm":
            raise Unsupported(
                "Rows of the fm tier stand for the ends of matches: use get_doc_by_rank_2 with the "
                "length of the needle, or build with tier='sa'."
            )
        return self._shown(self._at_rank(s, rank, 0), max_disp_len)

    def get_docs_by_ranks(
        self, list_of_s_and_rank: Sequence[tuple[int, int]], max_disp_len: int | None = None
    ) -> list[Result]:
        return [self.get_doc_by_rank(s, rank, max_disp_len) for s, rank in list_of_s_and_rank]

    def get_doc_by_ptr(self, s: int, ptr: int, max_disp_len: int | None = None) -> Result:
        if error := self._check.pointer(s, ptr):
            return error
        return self._shown(self._at_pointer(s, ptr), max_disp_len)

    def get_docs_by_ptrs(
        self, list_of_s_and_ptr: Sequence[tuple[int, int]], max_disp_len: int | None = None
    ) -> list[Result]:
        return [self.get_doc_by_ptr(s, ptr, max_disp_len) for s, ptr in list_of_s_and_ptr]

    def get_doc_by_ix(self, doc_ix: int, max_disp_len: int | None = None) -> Result:
        if error := self._check.document(doc_ix):
            return error
        return self._document(doc_ix, 0, 0, max_disp_len or self.max_disp_len)

    def get_docs_by_ixs(
        self, list_of_doc_ix: Sequence[int], max_disp_len: int | None = None
    ) -> list[Result]:
        return [self.get_doc_by_ix(doc_ix, max_disp_len) for doc_ix in list_of_doc_ix]

    def get_doc_by_rank_2(self, s: int, rank: int, needle_len: int, max_ctx_len: int) -> Result:
        if error := self._check.rank(s, rank):
            return error
        return self._around(self._at_rank(s, rank, needle_len), needle_len, max_ctx_len)

    def get_docs_by_ranks_2(self, requests: Sequence[tuple[int, int, int, int]]) -> list[Result]:
        return [self.get_doc_by_rank_2(*request) for request in requests]

    def get_doc_by_ptr_2(self, s: int, ptr: int, needle_len: int, max_ctx_len: int) -> Result:
        if error := self._check.pointer(s, ptr):
            return error
        return self._around(self._at_pointer(s, ptr), needle_len, max_ctx_len)

    def get_docs_by_ptrs_2(self, requests: Sequence[tuple[int, int, int, int]]) -> list[Result]:
        return [self.get_doc_by_ptr_2(*request) for request in requests]

    def get_doc_by_ix_2(self, doc_ix: int, max_ctx_len: int) -> Result:
        if error := self._check.document(doc_ix):
            return error
        return self._document(doc_ix, 0, 0, max_ctx_len)

    def get_docs_by_ixs_2(self, requests: Sequence[tuple[int, int]]) -> list[Result]:
        return [self.get_doc_by_ix_2(*request) for request in requests]

    def get_total_doc_cnt(self) -> int:
        return len(self._index)

    # --- matches of a text

    def creativity(self, input_ids: Ids) -> Result:
        if error := self._check.ids(input_ids):
            return error
        lengths, _ = self._native.longest_matches(self._ids(input_ids))
        return {"rs": (np.arange(len(lengths)) + lengths).tolist()}

    def attribute(
        self, input_ids: Ids, delim_ids: Ids, min_len: int, max_cnt: int, enforce_bow: bool
    ) -> Result:
        if error := self._check.ids(input_ids) or self._check.ids(delim_ids):
            return error
        ids = self._ids(input_ids)
        lengths, known = self._native.longest_matches(ids)
        ends = np.arange(len(ids), dtype=np.int64) + lengths
        cut = np.zeros(len(ids), dtype=bool)
        starts = np.isin(ids, list(self._bow)) if enforce_bow else np.ones(len(ids), dtype=bool)
        if delim_ids:
            ends, cut = _trace.cut_at_delimiters(self._core, ids, ends, list(delim_ids))
        if enforce_bow:
            ends, shrunk = _trace.shrink_to_words(ends, starts)
            cut |= shrunk
        found = _trace.maximal(starts, ends, max(1, min_len))
        counts = _trace.span_counts(self._core, ids, found, known, cut)
        logs = _trace.unigram_logs(self._core, ids)
        return {
            "spans": [
                {
                    "l": left,
                    "r": right,
                    "length": right - left,
                    "count": count,
                    "unigram_logprob_sum": float(logs[left:right].sum()),
                    "docs": self._sources(ids[left:right]),
                }
                for (left, right), count in zip(found, counts, strict=True)
                if count <= max_cnt
            ]
        }

    def _sources(self, ids: NDArray[np.uint32]) -> list[dict[str, int]]:
        found = places(self._native, ids, len(ids), limit=None, order="index", seed=0)
        return [{"s": place.shard, "ptr": self._pointer(place)} for place in found]

    # --- what the rest is made of

    def _ids(self, ids: Ids) -> NDArray[np.uint32]:
        return np.array(ids, dtype=np.uint32)

    def _terms(self, cnf: Cnf) -> list[list[NDArray[np.uint32]]]:
        return [[self._ids(term) for term in clause] for clause in cnf]

    def _windows(self, cnf: Cnf, max_diff_tokens: int | None) -> list[Windows]:
        most = max_diff_tokens or self.max_diff_tokens
        return released_windows(self._core, self._terms(cnf), most, self._starts)

    def _document_starts(self, shard: int) -> NDArray[np.int64]:
        """Where each document's first token stands, if every document is behind a separator."""
        lengths = self._native.document_lengths(shard).astype(np.int64)
        starts = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths + 1, out=starts[1:])
        return starts + 1

    def _pointer(self, place: Place) -> int:
        return int(self._starts(place.shard)[place.document] + place.start) * self._width

    def _at_pointer(self, shard: int, pointer: int) -> Place:
        starts, position = self._starts(shard), pointer // self._width
        # A separator belongs to the document behind it and is shown as its first token.
        document = max(0, int(np.searchsorted(starts, position + 1, side="right")) - 1)
        return Place(shard, document, max(0, position - int(starts[document])))

    def _at_rank(self, shard: int, rank: int, needle: int) -> Place:
        rows = np.array([rank], dtype=np.uint64)
        # On the sa tier a row is a start whatever the length, which may reach past the document.
        length = needle if self._core.info.tier == "fm" else 0
        documents, starts = self._native.locate(shard, rows, length)
        return Place(shard, int(documents[0]), max(0, int(starts[0])))

    def _shown(self, place: Place, max_disp_len: int | None) -> Result:
        size = max_disp_len or self.max_disp_len
        number = self._core.holdings.number(place.shard, place.document)
        return self._document(number, place.start, size // 2, (size + 1) // 2)

    def _around(self, place: Place, needle: int, context: int) -> Result:
        number = self._core.holdings.number(place.shard, place.document)
        return self._document(number, place.start, context, needle + context)

    def _document(self, number: int, at: int, before: int, after: int) -> Result:
        shard, document = self._core.holdings.place(number)
        length = self._native.document_length(shard, document)
        low, high = max(0, at - before), min(length, at + after)
        table = self._core.holdings.table(shard)
        identifier, meta = table.describe(document)
        raw = (
            table.raw(document).decode() if isinstance(table, V4Table) else _line(identifier, meta)
        )
        return {
            "doc_ix": number,
            "doc_len": length,
            "disp_len": high - low,
            "needle_offset": at - low,
            "metadata": raw,
            "token_ids": self._core.holdings.symbols(shard, document, low, high).tolist(),
            "blocked": False,
        }


def _ratio(before: int, both: int) -> Result:
    return {"prompt_cnt": before, "cont_cnt": both, "prob": both / before if before else -1.0}


def _line(identifier: str, meta: Mapping[str, Any]) -> str:
    value = {"path": identifier, "linenum": 0, "metadata": dict(meta)}
    return orjson.dumps(value).decode() + "\n"
