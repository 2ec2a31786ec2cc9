"""Open one index or several as one: checks first, maps second, rebuilds nothing.

A directory opens only if its manifest is there, of this format, sound, and every file is of the
size and header that were written. What lies deeper is checked piece by piece when it is first used.
Cost: a few reads a shard; nothing grows with the index.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from unspool import _native
from unspool.errors import ConfigError, IndexCorrupt, IndexFileError
from unspool.index._run import read_run
from unspool.index.alphabet import Tokens
from unspool.index.core import Core
from unspool.index.docstore import DocumentTable, TextStore, TokenOffsets
from unspool.index.engine import Index
from unspool.index.holdings import Holdings, ShardHoldings
from unspool.index.manifest import (
    MANIFEST,
    PLAN,
    Manifest,
    check_files,
    read_format,
    read_manifest,
    read_tokenizer,
)
from unspool.index.results import IndexInfo

AnyPath = str | os.PathLike[str]


def open_index(
    directory: AnyPath | Sequence[AnyPath],
    *,
    load: Literal["mmap", "ram"] = "mmap",
    tier: Literal["fm", "sa"] | None = None,
    engine: Literal["local", "ray"] = "local",
    replicas: int | None = None,
    partial: bool = False,
) -> Index:
    """Open an index, or several as one (their counts add).

    Args:
        directory: What `build_index` wrote, or an infini-gram v4 directory; one or several.
        load: `mmap` reads what is needed when it is needed; `ram` reads everything now.
        tier: `fm` or `sa`; default: sa where it was built, else fm.
        engine: `local` opens it in this process; `ray` spreads its shards over the nodes of a Ray
            cluster (`RAY_ADDRESS`, else this machine alone), which all see the directories under
            the same path.
        replicas: With ray: nodes that hold each shard; default two where there are two.
        partial: With ray: answer without the shards that no node answers for, and name them in
            `Index.take_missing`; otherwise such a question fails with ShardsMissing.

    Raises:
        PathNotFound: There is no such directory.
        IndexIncomplete: It was never finished; the message says what to do.
        IndexVersion: A newer program wrote it.
        IndexCorrupt: A file is missing, cut short or changed.
    """
    if load not in ("mmap", "ram"):
        raise ConfigError(f"load must be mmap or ram, got {load!r}.")
    if tier not in (None, "fm", "sa"):
        raise ConfigError(f"There is no tier {tier!r}: choose fm or sa.")
    if engine not in ("local", "ray"):
        raise ConfigError(f"There is no engine {engine!r} to search with: choose local or ray.")
    if engine == "local" and (replicas is not None or partial):
        raise ConfigError("replicas and partial are for an index that is opened with engine='ray'.")
    given = [directory] if isinstance(directory, str | os.PathLike) else list(directory)
    if not given:
        raise ConfigError("No index was given: name at least one directory.")
    folders = [Path(path) for path in given]
    if any(not (f / MANIFEST).exists() and (f / "tokenized.0").is_file() for f in folders):
        from unspool.index.v4 import open_v4

        if len(folders) > 1:
            raise ConfigError("An infini-gram directory is opened alone, not with others.")
        if engine == "ray":
            raise ConfigError("An infini-gram directory is opened with engine='local' only.")
        return open_v4(folders[0])
    manifests = [read_manifest(folder) for folder in folders]
    chosen = _choose_tier(manifests, tier)
    if engine == "ray":
        return _open_remote(folders, manifests, load, chosen, replicas, partial)
    return open_manifests(folders, manifests, load, chosen)


def _choose_tier(manifests: Sequence[Manifest], tier: str | None) -> str:
    common = [t for t in ("sa", "fm") if all(t in m.tiers for m in manifests)]
    if tier is None and common:
        return common[0]
    if tier in common:
        return str(tier)
    built = " and ".join(sorted({"+".join(m.tiers) for m in manifests}))
    if tier is None:
        raise ConfigError(f"These indexes share no tier ({built}): open them one by one.")
    raise ConfigError(f"Tier {tier} was not built: there is {built}. Build with --tier {tier}.")


def open_manifests(
    folders: Sequence[Path], manifests: Sequence[Manifest], load: str, tier: str
) -> Index:
    """Open the shards that manifests name, which may be some of those in the directories."""
    tokens, normalisers = _agreed(folders, manifests, tier)
    native = _native.Index(_paths(folders, manifests, tier), load == "ram")
    others: list[_native.Index] = []
    beside = [manifest.tiers[0] for manifest in manifests]
    keeper = native
    if any(t != tier for t in beside):
        # With both tiers, ids and metadata are kept once, in the files of the first.
        keeper = _native.Index(_paths(folders, manifests, beside))
        others.append(keeper)
    shards = _shards(native, keeper, manifests, tokens is not None)
    holdings = Holdings(native, shards, tokens, manifests[0].width)
    return Index(
        Core(native, holdings, _info(folders, manifests, tier), normalisers),
        lambda: [error for folder in folders for error in verify_index(folder)],
        others,
    )


def _open_remote(
    folders: Sequence[Path],
    manifests: Sequence[Manifest],
    load: str,
    tier: str,
    replicas: int | None,
    partial: bool,
) -> Index:
    """The same index, its shards opened by the nodes of a cluster."""
    from unspool.index.ray_groups import RayGroups
    from unspool.index.remote import RemoteNative
    from unspool.index.remote_holdings import RemoteHoldings

    tokens, normalisers = _agreed(folders, manifests, tier)
    groups = RayGroups.start(folders, manifests, tier, load, replicas)
    try:
        native = RemoteNative(groups, partial=partial)
    except BaseException:
        groups.close()
        raise
    entries = [shard for manifest in manifests for shard in manifest.shards]
    documents = [entry.documents for entry in entries]
    holdings = RemoteHoldings(native, documents, tokens, manifests[0].width)
    return Index(
        Core(native, holdings, _info(folders, manifests, tier), normalisers),
        lambda: [error for folder in folders for error in verify_index(folder)],
    )


def _agreed(
    folders: Sequence[Path], manifests: Sequence[Manifest], tier: str
) -> tuple[Tokens | None, tuple[str, ...]]:
    """The alphabet and the normalisation of indexes that have the same; checks their files."""
    raw = _one([read_tokenizer(f, m) for f, m in zip(folders, manifests, strict=True)], "alphabets")
    normalise = _one([m.normalise for m in manifests], "normalisations")
    _one([m.alphabet for m in manifests], "alphabets")
    for folder, manifest in zip(folders, manifests, strict=True):
        needed = {tier, manifest.tiers[0]}
        wrong = [w for t in sorted(needed) for w in check_files(folder, manifest, t)]
        if wrong:
            raise IndexCorrupt(
                f"The index in {folder} is damaged: {'; '.join(wrong)}. Restore the files, or "
                "build it again in an empty directory."
            )
    tokens = None if raw is None else Tokens.from_bytes(raw)
    return tokens, tuple(normalise.split("|")) if normalise else ()


def _one(values: Sequence[bytes | str | None], what: str) -> Any:
    if len(set(values)) > 1:
        raise ConfigError(f"These indexes have different {what} and cannot be opened as one.")
    return values[0]


def _paths(
    folders: Sequence[Path], manifests: Sequence[Manifest], tier: str | Sequence[str]
) -> list[str]:
    tiers = [tier] * len(folders) if isinstance(tier, str) else tier
    return [
        str(folder / shard.files[t]["name"])
        for folder, manifest, t in zip(folders, manifests, tiers, strict=True)
        for shard in manifest.shards
    ]


def _shards(
    native: _native.Index,
    keeper: _native.Index,
    manifests: Sequence[Manifest],
    tokenised: bool,
) -> list[ShardHoldings]:
    shards = []
    entries = [(m, shard) for m in manifests for shard in m.shards]
    for number, (manifest, entry) in enumerate(entries):
        held = native.info(number)
        if (held["documents"], held["symbols"]) != (entry.documents, entry.symbols):
            raise IndexCorrupt(
                f"Shard {number} holds {held['documents']:,} documents of {held['symbols']:,} "
                f"symbols, and the manifest says {entry.documents:,} of {entry.symbols:,}."
            )
        table = DocumentTable(keeper, number)
        if table.documents != entry.documents:
            raise IndexCorrupt(f"Shard {number} has ids for {table.documents:,} documents.")
        shards.append(
            ShardHoldings(
                entry.documents,
                table,
                TokenOffsets(keeper, number) if tokenised else None,
                TextStore(keeper, number) if manifest.store_text else None,
            )
        )
    return shards


def _info(folders: Sequence[Path], manifests: Sequence[Manifest], tier: str) -> IndexInfo:
    first = manifests[0]
    return IndexInfo(
        documents=sum(m.documents for m in manifests),
        symbols=sum(m.symbols for m in manifests),
        bytes_text=sum(m.bytes_text for m in manifests),
        bytes_index=sum(m.bytes_index for m in manifests),
        alphabet=first.alphabet,
        tier=tier,
        tiers=first.tiers,
        shards=sum(len(m.shards) for m in manifests),
        settings={
            "sa_sample": first.sa_sample,
            "isa_sample": first.isa_sample,
            "store_text": first.store_text,
            "normalise": first.normalise,
        },
        notes=tuple(note for m in manifests for note in m.notes),
        seconds=_total(folders, "seconds", sum),
        peak_bytes=_total(folders, "peak_bytes", max),
    )


def _total(folders: Sequence[Path], name: str, combine: Callable[[list[Any]], Any]) -> Any:
    """A figure of the builds, from what the last run of each wrote down; None if one is lost."""
    runs = [read_run(folder).runs for folder in folders]
    values = [run[-1].get(name) if run else None for run in runs]
    return None if None in values else combine(values)


def verify_index(directory: AnyPath) -> list[str]:
    """Everything that is wrong with an index, its manifest, plan and tokenizer included; none if
    every byte is sound. What cannot be opened at all is reported, not raised, except a directory
    that is missing or was never finished."""
    folder = Path(directory)
    try:
        manifest = read_manifest(folder)
    except IndexCorrupt as error:
        return [str(error)]
    errors: list[str] = []
    for check in (
        lambda: read_tokenizer(folder, manifest),
        lambda: read_format(folder / PLAN) if (folder / PLAN).exists() else None,
    ):
        try:
            check()
        except IndexFileError as error:
            errors.append(str(error))
    for tier in manifest.tiers:
        errors += check_files(folder, manifest, tier)
        for shard in manifest.shards:
            name = str(shard.files[tier]["name"])
            if not (folder / name).is_file():
                continue
            try:
                native = _native.Index([str(folder / name)])
            except IndexFileError as error:
                errors.append(f"{name}: {error}")
                continue
            errors += [f"{name}: {error}" for error in native.verify(0)]
            native.close()
    return errors
