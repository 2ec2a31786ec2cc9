"""What the verbs of `unspool audit knn-lm` share: opening, settings, bars and the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from unspool.cli._models import load_stock
from unspool.cli._output import (
    emit_json,
    emit_table,
    emit_text,
    human_seconds,
    message,
    progress,
)
from unspool.errors import InputError, PathNotFound

if TYPE_CHECKING:
    from unspool.forensics.knn_lm import Mixture
    from unspool.forensics.knn_lm.analyse import Evaluation
    from unspool.forensics.knn_lm.sheets import Verdict
    from unspool.forensics.knn_lm.windows import Reading, Tokens

TUNED = "tuned.json"
"""In a datastore's folder: the setting that tuning found."""


def tokens_of(loaded: Any, texts: tuple[str, ...], text_field: str) -> Tokens:
    """The documents of files and folders as tokens.

    Raises:
        InputError: There are no texts, or none with two tokens.
        PathNotFound: A path does not exist.
    """
    from unspool.corpus.readers import read_documents
    from unspool.forensics.knn_lm import encode

    if not texts:
        raise InputError("Say which texts to read: files, folders, or - for standard input.")
    for path in texts:
        if path != "-" and not Path(path).exists():
            raise PathNotFound(f"There is no file or folder {path!r}. Check the path.")
    documents = read_documents(list(texts), text_field=text_field)
    return encode(loaded.tokenizer, (document.text for document in documents))


def reading_of(loaded: Any, window: int | None, stride: int | None) -> Reading:
    """Windows as they were asked for, or as the model allows."""
    from unspool.forensics.knn_lm import Reading
    from unspool.forensics.knn_lm.windows import prefix_of

    ahead = len(prefix_of(loaded.tokenizer))
    limit = 1024 if loaded.window is None else min(1024, loaded.window - ahead)
    wide = limit if window is None else window
    return Reading(window=wide, stride=max(1, wide // 2) if stride is None else stride)


def opened(store: Path, model: str | None, probes: int) -> tuple[Any, Any]:
    """The model, and what is mixed into it: a datastore, or an index of tokens."""
    from unspool.forensics.knn_lm import Datastore, NgramRetriever
    from unspool.index.manifest import MANIFEST

    if not store.is_dir():
        raise PathNotFound(
            f"There is no datastore {str(store)!r}. 'unspool audit knn-lm build TEXT… --out DIR' "
            f"makes one."
        )
    if (store / MANIFEST).is_file():
        from unspool.index.open import open_index

        loaded = load_stock(model)
        reading = reading_of(loaded, None, None)
        return loaded, NgramRetriever(open_index(store), loaded.tokenizer, reading)
    opened = Datastore.open(store, search=False)
    loaded = load_stock(model)
    opened.check_model(loaded.model, loaded.tokenizer)
    opened.prepare(device=str(loaded.model.device), probes=probes)
    return loaded, opened


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MixOptions:
    """Options of the commands that mix a datastore into a model."""

    model: str | None = None
    """The model of the datastore. Default: SmolLM2-135M-Instruct."""
    k: int | None = None
    """Neighbours. Default of this and the next two: what tune found, else 1,024, 0.25 and 1."""
    lam: float | None = None
    """Weight of the datastore, between 0 and 1."""
    temperature: float | None = None
    """Distances are divided by it."""
    probes: int = 32
    """Cells that an index of faiss looks into."""
    json: bool = False
    """Print JSON."""

    def opened(self, store: Path) -> tuple[Any, Any]:
        """The model, and what is mixed into it."""
        return opened(store, self.model, self.probes)

    def mixture(self, store: Path) -> Mixture:
        """What tune found, with what was typed in its place."""
        import orjson

        from unspool.forensics.knn_lm import Mixture

        base = Mixture()
        path = store / TUNED
        if path.is_file():
            try:
                base = Mixture.from_json(orjson.loads(path.read_bytes()))
            except orjson.JSONDecodeError as error:
                raise InputError(
                    f"{path} is not JSON: {error}. Delete it and tune again."
                ) from error
        stepped = self.lam is None and self.temperature is None and self.k is None
        return Mixture(
            k=base.k if self.k is None else self.k,
            lam=base.lam if self.lam is None else self.lam,
            temperature=base.temperature if self.temperature is None else self.temperature,
            edges=base.edges if stepped else (),
            lams=base.lams if stepped else (),
        )


def show(found: Evaluation, judged: Any, out: Path, json: bool, seconds: float) -> None:
    """Write the report, and print its figures and the verdict."""
    from unspool.forensics.knn_lm.report import page, to_json, verdict
    from unspool.index._files import canonical

    result = to_json(found, judged)
    write(out, {"report.json": canonical(result), "report.html": page(found, judged)})
    if json:
        emit_json(result)
        return
    split = found.split
    emit_table(
        ["perplexity", "model", "mixture", "datastore alone"],
        [
            (
                "all tokens",
                f"{split.ppl_lm:.3f}",
                f"{split.ppl_mix:.3f}",
                "infinite" if split.ppl_knn is None else f"{split.ppl_knn:.3f}",
            ),
            ("hurt", f"{split.ppl_hurt[0]:.3f}", f"{split.ppl_hurt[1]:.3f}", ""),
            ("helped", f"{split.ppl_helped[0]:.3f}", f"{split.ppl_helped[1]:.3f}", ""),
        ],
        right=["model", "mixture", "datastore alone"],
    )
    emit_text()
    for sentence in verdict(found, judged):
        emit_text(sentence)
    message(
        f"{split.tokens:,} tokens, {human_seconds(seconds)} "
        f"({split.tokens / max(seconds, 1e-9):,.0f} tokens/s). The report is {out / 'report.html'}."
    )


def write(out: Path, files: dict[str, bytes]) -> None:
    """Write files of a report, each whole or not at all."""
    from unspool.index._files import storage, write_atomic

    with storage(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_atomic(out / name, [data])


@contextmanager
def stages(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """One bar a stage; the next stage closes the one before."""
    with ExitStack() as stack:
        held: dict[str, Any] = {"stage": None, "bar": None}

        def tell(stage: str, done: int, total: int) -> None:
            if stage != held["stage"]:
                stack.close()
                unit = (
                    "texts"
                    if stage in ("Writing continuations", "Measuring entropies")
                    else ("keys" if stage == "Indexing" else "tokens")
                )
                held["bar"] = stack.enter_context(
                    progress(stage, total=total, unit=unit, quiet=quiet)
                )
                held["stage"] = stage
            held["bar"].update(done, total=total)

        yield tell


def scored(sheets: tuple[Path, ...], key: Path) -> Verdict:
    """What the judges of some filled sheets preferred.

    Raises:
        PathNotFound: A file does not exist.
        InputError: A file cannot be read, or does not belong to the key.
    """
    import orjson

    from unspool.forensics.knn_lm import score_sheets

    for path in (*sheets, key):
        if not path.is_file():
            raise PathNotFound(f"There is no file {str(path)!r}. Check the path.")
    try:
        read = orjson.loads(key.read_bytes())
        return score_sheets([p.read_text(encoding="utf-8-sig") for p in sheets], dict(read))
    except (orjson.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise InputError(f"A sheet or the key cannot be read: {error}.") from error
