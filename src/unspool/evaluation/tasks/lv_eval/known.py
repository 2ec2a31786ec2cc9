"""Facts that every model has read, and names that none has: for twins of LV-Eval without a network.

What: capitals of countries, as triples; drawn names that are no words; the two together are a
question whose remembered answer is wrong and whose right one stands in the context alone.
Source: common knowledge; the idea of replacement is section 3.2 of arXiv 2402.05136.
Differs from the paper: one kind of fact, so that the confusing ones are alike in everything but
their subject.
Cost: none.
"""

from __future__ import annotations

import random
from functools import cache
from typing import NamedTuple

from unspool.errors import ConfigError
from unspool.evaluation.tasks.lv_eval.devices import Fact, confuse, replace

DEVICES = ("cfi", "kpr", "keywords")
"""Confusing facts, replaced names, the keyword stage of the metric."""

_CAPITALS = (
    "Argentina:Buenos Aires;Australia:Canberra;Austria:Vienna;Bangladesh:Dhaka;Belgium:Brussels;"
    "Bolivia:Sucre;Bulgaria:Sofia;Canada:Ottawa;Chile:Santiago;Colombia:Bogota;Croatia:Zagreb;"
    "Cuba:Havana;Denmark:Copenhagen;Ecuador:Quito;Egypt:Cairo;Estonia:Tallinn;Ethiopia:Addis Ababa;"
    "Finland:Helsinki;France:Paris;Germany:Berlin;Ghana:Accra;Greece:Athens;Hungary:Budapest;"
    "Iceland:Reykjavik;India:New Delhi;Indonesia:Jakarta;Iran:Tehran;Iraq:Baghdad;Ireland:Dublin;"
    "Italy:Rome;Jamaica:Kingston;Japan:Tokyo;Jordan:Amman;Kenya:Nairobi;Latvia:Riga;"
    "Lebanon:Beirut;Lithuania:Vilnius;Malaysia:Kuala Lumpur;Mongolia:Ulaanbaatar;Morocco:Rabat;"
    "Nepal:Kathmandu;Netherlands:Amsterdam;New Zealand:Wellington;Nigeria:Abuja;Norway:Oslo;"
    "Pakistan:Islamabad;Peru:Lima;Philippines:Manila;Poland:Warsaw;Portugal:Lisbon;"
    "Romania:Bucharest;Russia:Moscow;Saudi Arabia:Riyadh;Serbia:Belgrade;Slovenia:Ljubljana;"
    "South Korea:Seoul;Spain:Madrid;Sri Lanka:Colombo;Sweden:Stockholm;Switzerland:Bern;"
    "Thailand:Bangkok;Tunisia:Tunis;Turkey:Ankara;Ukraine:Kyiv;Uruguay:Montevideo;"
    "Venezuela:Caracas;Vietnam:Hanoi;Zimbabwe:Harare"
)
CAPITALS: tuple[tuple[str, str], ...] = tuple(
    (country, capital)
    for country, _, capital in (pair.partition(":") for pair in _CAPITALS.split(";"))
)
"""Country and capital."""

_SYLLABLES = (
    "bal bel cor da dun el fen gar hal ith jor kel lor mar nor ost pel quen ras sel tor ul vel wen "
    "yar zan"
)
_ENDINGS = {"place": "dor mar ven holm stad ria", "town": "burg ton mouth ford ham wick"}


class Question(NamedTuple):
    """A question with what its devices need."""

    fact: Fact
    """As it stands in the context and is asked."""
    original: Fact
    """As everybody knows it."""
    keywords: str
    confusers: tuple[Fact, ...]


def question(
    number: int, *, seed: int = 0, confusers: int = 4, without: tuple[str, ...] = ()
) -> Question:
    """Question `number` of a seed, the same at every length.

    Args:
        number: Which one; beyond the facts there are, they come again under other names.
        seed: Of order and names.
        confusers: Confusing facts.
        without: Devices that are left off: `cfi` (no confusing facts), `kpr` (the fact as everybody
            knows it).

    Raises:
        ConfigError: More confusing facts than there are others, or an unknown device.
    """
    unknown = [device for device in without if device not in DEVICES]
    if unknown:
        raise ConfigError(f"There is no device {unknown[0]!r}: {', '.join(DEVICES)}.")
    order = list(range(len(CAPITALS)))
    random.Random(f"order/{seed}").shuffle(order)
    index = order[number % len(order)]
    if not 0 <= confusers < len(CAPITALS):
        raise ConfigError(f"confusers must be 0 to {len(CAPITALS) - 1}, got {confusers}.")
    facts = _as_known()
    pool = facts if "kpr" in without else _renamed(seed, number // len(order))
    fact, original = pool[index], facts[index]
    others: list[Fact] = []
    if "cfi" not in without:
        others = confuse(
            fact,
            confusers,
            subjects=[f.subject for f in pool],
            objects=[f.object for f in pool],
            seed=seed,
        )
    return Question(fact, original, fact.object, tuple(others))


@cache
def _as_known() -> tuple[Fact, ...]:
    return tuple(Fact(country, "capital", capital) for country, capital in CAPITALS)


@cache
def _renamed(seed: int, times: int) -> tuple[Fact, ...]:
    """Every fact under drawn names, by the device itself."""
    found = []
    for fact, (place, town) in zip(_as_known(), _names(seed, times), strict=True):
        mapping = {fact.subject: place, fact.object: town}
        made = replace(str(fact), fact.subject, fact.object, mapping)
        found.append(Fact(made.question, fact.relation, made.answer))
    return tuple(found)


def _names(seed: int, times: int) -> list[tuple[str, str]]:
    """A place and a town for every fact; none is a known name or part of another."""
    draw = random.Random(f"names/{seed}/{times}")
    known = {word.lower() for pair in CAPITALS for name in pair for word in name.split()}
    found: list[str] = []
    for i in range(2 * len(CAPITALS)):
        endings = _ENDINGS["place" if i % 2 == 0 else "town"].split()
        while True:
            syllables = draw.sample(_SYLLABLES.split(), 2)
            name = ("".join(syllables) + draw.choice(endings)).capitalize()
            within = any(name.lower() in o.lower() or o.lower() in name.lower() for o in found)
            if not within and name.lower() not in known:
                found.append(name)
                break
    return list(zip(found[0::2], found[1::2], strict=True))
