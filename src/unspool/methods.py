"""Methods: frozen settings that say which slots of a model they fill, and how to write them.

A method is a dataclass; on a command line it is `name:key=value,key=value`, and the parts of one
composition are joined by `+`. `resolve_method` takes either form.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from unspool._registry import names, resolve
from unspool.errors import ConfigError

if TYPE_CHECKING:
    import contextlib

    from torch import nn

    from unspool._facts import ModelFacts
    from unspool.attention.call import Attend
    from unspool.caches.base import Store

Slot = Literal["prompt", "layout", "frequency", "scale", "store", "compress", "attend"]
STACKING: frozenset[Slot] = frozenset({"scale", "compress"})
"""Slots of which a layer takes any number; of the others, one."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """Base of every method. A subclass adds its settings and overrides what its slots need."""

    name: ClassVar[str] = ""
    """As on a command line."""
    family: ClassVar[str] = ""
    """frequency, remap, logits, prompt, compression or attention."""
    slots: ClassVar[tuple[Slot, ...]] = ()
    recalls: ClassVar[str] = ""
    """What of a long text the model can still use, in a few words."""
    costs: ClassVar[str] = ""
    """Memory and time in a few words."""
    trains: ClassVar[bool] = False
    """Whether the method needs training to be worth using."""
    needs_rotated: ClassVar[bool] = False
    """Keys must be stored rotated, so nothing late may share the layer."""
    whole_chunks: ClassVar[bool] = False
    """What a token meets depends on the chunk that it is read in, so chunks must not be cut."""
    system: ClassVar[str] = ""
    """Slug in the catalogue; empty for peers that have no entry."""

    layers: str = "full"
    """all, full (full-attention layers), last:N, first:N, even, odd, or numbers as 0-3,11."""

    def prepare(self, model: Any, tokenizer: Any) -> Method:
        """The same method with what only the model itself can tell, measured on it while it is
        still as it was."""
        return self

    def resolve(self, facts: ModelFacts) -> Method:
        """The same method with every None replaced by a value for this model."""
        return self

    def attend(self, facts: ModelFacts, layer: int) -> Attend:
        """The mechanism of a layer; called if `attend` is among the slots."""
        raise self._unwritten("attend")

    def store(self, facts: ModelFacts, layer: int) -> Store:
        """An empty store for a layer; called if `store` is among the slots."""
        raise self._unwritten("store")

    def frequency(self, facts: ModelFacts, layer_type: str) -> Any:
        """A `Frequency` for the layers of a type; called if `frequency` is among the slots."""
        raise self._unwritten("frequency")

    def scale(self, facts: ModelFacts, layer: int) -> Any:
        """A `Scale` for a layer; called if `scale` is among the slots."""
        raise self._unwritten("scale")

    def compress(self, facts: ModelFacts, layer: int) -> Any:
        """A `Compress` for a layer; called if `compress` is among the slots."""
        raise self._unwritten("compress")

    def learned(self, facts: ModelFacts, layer: int) -> nn.Module | None:
        """What is trained of a layer; asked for once, kept in `Extension.module`, and handed to the
        mechanism with every call. The model's own modules hold nothing of it."""
        return None

    def changes(self, model: Any, undo: contextlib.ExitStack) -> None:
        """Whatever else is changed of the model at install; `undo` takes what puts it back."""

    def prompt(self) -> str:
        """Registry name of the `Reduce`; called if `prompt` is among the slots."""
        raise self._unwritten("prompt")

    def _unwritten(self, slot: Slot) -> NotImplementedError:
        # Not abstract: each slot is for the methods that list it, and none lists them all.
        return NotImplementedError(
            f"{type(self).__name__} lists {slot!r} among its slots, but has no {slot}()."
        )

    def capacity(self, facts: ModelFacts) -> int | None:
        """Most tokens of text and answer that make sense together; None: any number."""
        return facts.window

    def admit(self, facts: ModelFacts, *, tokens: int, rows: int) -> None:
        """Refuse what this machine cannot hold; called before `tokens` more are read in each of
        `rows` sequences, and may raise BudgetError."""

    def kept_tokens(self, facts: ModelFacts) -> int | None:
        """Tokens that a layer keeps however long the text is; None: all of them."""
        return None

    def exact_within(self, facts: ModelFacts) -> int | None:
        """Tokens, written ones included, up to which nothing is left out or changed: the stock
        model. None: the method is not a matter of length, or always differs."""
        return None

    def prefill_chunk(self, facts: ModelFacts) -> int:
        """Tokens that one forward pass reads while the text is fed."""
        return 1024

    def export(self, facts: ModelFacts) -> dict[str, Any]:
        """What other engines can take from `config.rope_parameters`.

        Raises:
            Unsupported: The method is not a matter of frequencies.
        """
        from unspool.errors import Unsupported

        raise Unsupported(
            f"{self.name} changes which keys are met, and rope_parameters cannot say that."
        )

    def spec(self) -> str:
        """The method as it would be typed, with every setting that is not the default."""
        parts = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                parts.append(f"{field.name}={spell_value(value)}")
        return f"{self.name}:{','.join(parts)}" if parts else self.name


@dataclass(frozen=True, kw_only=True)
class DenseMethod(Method):
    """The stock model through this project's stores: what every other method differs from."""

    name: ClassVar[str] = "dense"
    family: ClassVar[str] = "attention"
    slots: ClassVar[tuple[Slot, ...]] = ("store", "attend")
    recalls: ClassVar[str] = "everything inside the window"
    costs: ClassVar[str] = "memory grows with the text"

    late: bool = False
    """Store keys raw and rotate them when attending: the same logits, by the other road."""

    def attend(self, facts: ModelFacts, layer: int) -> Attend:
        from unspool.attention.dense import Dense

        return Dense(late=self.late)

    def store(self, facts: ModelFacts, layer: int) -> Store:
        from unspool.caches.dense import DenseStore

        return DenseStore(not self.late)


def resolve_method(method: Method | str | Sequence[Method | str]) -> tuple[Method, ...]:
    """A method, its spelling, or a list of either, as a tuple of methods.

    Raises:
        ConfigError: An unknown name, an unknown option or a value of the wrong type.
    """
    if isinstance(method, Method):
        return (method,)
    if isinstance(method, str):
        return tuple(_parse(part) for part in method.split("+"))
    out: list[Method] = []
    for part in method:
        out.extend(resolve_method(part))
    if not out:
        raise ConfigError("No method was given. 'dense' is the stock model.")
    return tuple(out)


def resolve_reading(method: Method | str | Sequence[Method | str]) -> tuple[Method, ...]:
    """As `resolve_method`, for what reads a text and writes after it.

    Raises:
        ConfigError: Also a method of encoders and of training, which keeps nothing of what it read.
    """
    found = resolve_method(method)
    for each in found:
        if "layout" in each.slots:
            raise ConfigError(
                f"{each.name} is for batches of encoders and for training: it keeps no cache, so "
                f"nothing can be read with it here. Use it as extend(model, {each.name!r}), and "
                f"choose another method; 'unspool list methods' has them."
            )
    return found


def spell(methods: Sequence[Method]) -> str:
    """A composition as it would be typed."""
    return "+".join(method.spec() for method in methods)


def method_names() -> list[str]:
    """Every method by its name on a command line."""
    return names("method")


def method_class(name: str) -> type[Method]:
    """The dataclass behind a name; an unknown one lists the nearest."""
    found = resolve("method", name)
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise ConfigError(f"{name!r} is registered as a method, but it is a {found!r}.")
    return found


def options(kind: type[Method]) -> list[tuple[str, Any, str]]:
    """(name, default, type in words) of every setting of a method."""
    hints = typing.get_type_hints(kind)
    return [
        (field.name, field.default, _type_words(hints[field.name]))
        for field in dataclasses.fields(kind)
    ]


def meanings(kind: type[Method]) -> dict[str, str]:
    """What each setting of a method is for, by its name: the string under its field."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(each):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(tree, ast.ClassDef)  # the source of a class
        for line, below in itertools.pairwise(tree.body):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                said = below.value if isinstance(below, ast.Expr) else None
                text = said.value if isinstance(said, ast.Constant) else ""
                found[line.target.id] = " ".join(str(text).split())
    return found


def _parse(text: str) -> Method:
    name, _, rest = text.strip().partition(":")
    kind = method_class(name)
    hints = typing.get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]
    pairs: list[str] = []
    for piece in rest.split(",") if rest else []:
        if "=" in piece or not pairs:
            pairs.append(piece)
        else:
            pairs[-1] += f",{piece}"  # a list as the value: layers=0-3,11
    values: dict[str, Any] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if key not in known:
            raise ConfigError(
                f"Method {name!r} has no option {key!r}. It has: {', '.join(known)}. 'unspool list "
                f"methods {name}' says what they are for."
            )
        if not sign:
            raise ConfigError(f"Method {name!r}: option {key!r} needs a value, as {key}=VALUE.")
        values[key] = _convert(name, key, value, hints[key])
    return kind(**values)


def _convert(method: str, key: str, text: str, hint: Any) -> Any:
    choices = typing.get_args(hint) if _is_union(hint) else (hint,)
    if text == "none" and type(None) in choices:
        return None
    for choice in choices:
        if choice is bool and text.lower() in ("true", "false", "yes", "no", "1", "0"):
            return text.lower() in ("true", "yes", "1")
        if choice in (int, float):
            try:
                return choice(text)
            except ValueError:
                continue
        if typing.get_origin(choice) is Literal and text in typing.get_args(choice):
            return text
        if typing.get_origin(choice) is tuple:
            inner = next((a for a in typing.get_args(choice) if a is not Ellipsis), str)
            return tuple(_convert(method, key, part, inner) for part in text.split(",") if part)
    if str in choices:
        return text
    raise ConfigError(f"Method {method!r}: {key}={text!r} is not {_type_words(hint)}.")


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _type_words(hint: Any) -> str:
    if _is_union(hint):
        parts = [_type_words(part) for part in typing.get_args(hint)]
        return " or ".join(p for p in parts if p != "an integer" or "a number" not in parts)
    if typing.get_origin(hint) is Literal:
        return " or ".join(str(part) for part in typing.get_args(hint))
    if hint is type(None):
        return "none"
    if typing.get_origin(hint) is tuple:
        return "a list"
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
    return words.get(hint, str(hint))


def spell_value(value: Any) -> str:
    """A setting's value as it would be typed."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(spell_value(part) for part in value)
    return str(value)
