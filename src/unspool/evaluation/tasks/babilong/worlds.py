"""Small worlds of people, places and things: what happens in them, and questions about it.

What: a world is played forward, each step says one sentence, and the question is answered from the
state; the numbers of the sentences that are needed are kept.
Source: the kinds of question are those of bAbI (Weston et al. 2015, arXiv 1502.05698), which
BABILong (Kuratov et al. 2024, arXiv 2406.10149) hides in long texts; the world is our own.
Differs from bAbI: people, places, things and verbs are our own, facts are drawn anew by seed.
Cost: linear in the steps.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import NamedTuple

PEOPLE = ("Amira", "Boris", "Clara", "Dmitri")
PLACES = ("attic", "bakery", "cellar", "garage", "library", "terrace")
THINGS = ("lamp", "melon", "novel", "parcel")
DIRECTIONS = (("north", "south"), ("east", "west"))
NUMBERS = ("none", "one", "two", "three", "four")


class Story(NamedTuple):
    """Facts in order, a question, its answers, and all answers of that kind."""

    facts: tuple[str, ...]
    question: str
    answers: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass
class World:
    """Who is where and has what; each change says what happened."""

    draw: random.Random
    at: dict[str, str] = field(default_factory=dict)
    holds: dict[str, str] = field(default_factory=dict)
    """Thing to person."""
    lies: dict[str, str] = field(default_factory=dict)
    """Thing to place, where nobody holds it."""
    history: dict[str, list[str]] = field(default_factory=dict)
    """Places that a thing has been in, in order, each once in a row."""
    gifts: list[tuple[str, str, str]] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)

    def move(self, who: str, place: str | None = None) -> None:
        others = [each for each in PLACES if each != self.at.get(who)]
        place = place or self.draw.choice(others)
        self.at[who] = place
        verb = self.draw.choice(("went to", "walked to", "hurried to"))
        self.facts.append(f"{who} {verb} the {place}.")
        for thing, holder in self.holds.items():
            if holder == who:
                self._been(thing, place)

    def take(self, who: str, thing: str) -> None:
        """Needs a person who is somewhere, where the thing is or has not been seen yet."""
        self.lies.pop(thing, None)
        self.holds[thing] = who
        self._been(thing, self.at[who])
        self.facts.append(f"{who} {self.draw.choice(('picked up', 'took'))} the {thing} there.")

    def leave(self, thing: str) -> None:
        who = self.holds.pop(thing)
        self.lies[thing] = self.at[who]
        self.facts.append(f"{who} {self.draw.choice(('put down', 'left'))} the {thing} there.")

    def give(self, thing: str, to: str) -> None:
        who = self.holds[thing]
        self.holds[thing] = to
        self.gifts.append((who, thing, to))
        self.facts.append(f"{who} gave the {thing} to {to}.")

    def step(self) -> None:
        """Anything that can happen."""
        who = self.draw.choice(PEOPLE)
        if who not in self.at or self.draw.random() < 0.5:
            self.move(who)
            return
        held = [thing for thing, holder in self.holds.items() if holder == who]
        near = [each for each in PEOPLE if each != who and self.at.get(each) == self.at[who]]
        free = [
            t
            for t in THINGS
            if t not in self.holds and self.lies.get(t, self.at[who]) == self.at[who]
        ]
        if held and near and self.draw.random() < 0.5:
            self.give(self.draw.choice(held), self.draw.choice(near))
        elif held and self.draw.random() < 0.5:
            self.leave(self.draw.choice(held))
        elif free:
            self.take(who, self.draw.choice(free))
        else:
            self.move(who)

    def _been(self, thing: str, place: str) -> None:
        places = self.history.setdefault(thing, [])
        if not places or places[-1] != place:
            places.append(place)


def story(kind: str, draw: random.Random) -> Story:
    """A story of one kind of question."""
    return _KINDS[kind](draw)


def _played(draw: random.Random, steps: int) -> World:
    world = World(draw)
    for _ in range(steps):
        world.step()
    return world


def _told(world: World, question: str, answers: tuple[str, ...], labels: tuple[str, ...]) -> Story:
    return Story(tuple(world.facts), question, answers, labels)


def _person(draw: random.Random) -> Story:
    world = _played(draw, draw.randint(2, 8))
    world.move(draw.choice(PEOPLE))
    for _ in range(draw.randint(0, 2)):
        world.step()
    who = draw.choice(sorted(world.at))
    return _told(world, f"Where is {who}?", (world.at[who],), PLACES)


def _thing(draw: random.Random) -> Story:
    world = _carried(draw, 1)
    thing = draw.choice(sorted(world.history))
    return _told(world, f"Where is the {thing}?", (world.history[thing][-1],), PLACES)


def _before(draw: random.Random) -> Story:
    while True:
        world = _carried(draw, 2)
        found = [  # a place that the thing was in once only, and not at first
            (thing, i)
            for thing, places in sorted(world.history.items())
            for i in range(1, len(places))
            if places.count(places[i]) == 1
        ]
        if found:
            thing, i = draw.choice(found)
            places = world.history[thing]
            question = f"Where was the {thing} just before it was in the {places[i]}?"
            return _told(world, question, (places[i - 1],), PLACES)


def _carried(draw: random.Random, moves: int) -> World:
    """A world in which something has been carried so often."""
    world = _played(draw, draw.randint(2, 6))
    who, thing = draw.choice(PEOPLE), draw.choice(THINGS)
    place = world.lies.get(thing)
    if thing in world.holds:
        who = world.holds[thing]
    else:
        if place is not None and world.at.get(who) != place:
            world.move(who, place)
        elif who not in world.at:
            world.move(who)
        world.take(who, thing)
    for _ in range(moves):
        world.move(who)
    return world


def _two_arguments(draw: random.Random) -> Story:
    first, second, third = draw.sample(PLACES, 3)
    (a, b), (c, d) = draw.sample(DIRECTIONS, 2)
    facts = (f"The {first} is {a} of the {second}.", f"The {third} is {c} of the {second}.")
    question, answer = draw.choice(
        (
            (f"What is {a} of the {second}?", first),
            (f"What is {c} of the {second}?", third),
            (f"What is the {first} {a} of?", second),
            (f"What is {b} of the {first}?", second),
            (f"What is {d} of the {third}?", second),
        )
    )
    return Story(tuple(draw.sample(facts, 2)), question, (answer,), PLACES)


def _three_arguments(draw: random.Random) -> Story:
    world = _played(draw, draw.randint(1, 5))
    giver, taker = draw.sample(PEOPLE, 2)
    free = [thing for thing in THINGS if all(gift[1] != thing for gift in world.gifts)]
    thing = draw.choice(free or THINGS)
    if thing in world.holds:
        giver = world.holds[thing]
        taker = next(each for each in PEOPLE if each != giver)
    else:
        place = world.lies.get(thing)
        if world.at.get(giver) is None or (place and world.at[giver] != place):
            world.move(giver, place)
        world.take(giver, thing)
    if world.at.get(taker) != world.at[giver]:
        world.move(taker, world.at[giver])
    world.give(thing, taker)
    gifts = world.gifts
    questions = []
    if sum(gift[1] == thing for gift in gifts) == 1:
        questions += [
            (f"Who gave the {thing} away?", giver, PEOPLE),
            (f"Who was given the {thing}?", taker, PEOPLE),
        ]
    if sum(gift[0] == giver and gift[2] == taker for gift in gifts) == 1:
        questions.append((f"What did {giver} give to {taker}?", thing, THINGS))
    if not questions:
        return _three_arguments(draw)
    question, answer, labels = draw.choice(questions)
    return _told(world, question, (answer,), labels)


def _yes_no(draw: random.Random) -> Story:
    world = _played(draw, draw.randint(3, 9))
    who = draw.choice(sorted(world.at))
    place = world.at[who] if draw.random() < 0.5 else draw.choice(PLACES)
    answer = "yes" if world.at[who] == place else "no"
    return _told(world, f"Is {who} in the {place}? Say yes or no.", (answer,), ("yes", "no"))


def _held(world: World, draw: random.Random) -> tuple[str, list[str]]:
    who = draw.choice(sorted(set(world.holds.values()) or set(world.at)))
    return who, sorted(thing for thing, holder in world.holds.items() if holder == who)


def _count(draw: random.Random) -> Story:
    world = _played(draw, draw.randint(4, 12))
    who, held = _held(world, draw)
    return _told(
        world,
        f"How many things is {who} carrying? Say none, one, two, three or four.",
        (NUMBERS[len(held)],),
        NUMBERS,
    )


def _list(draw: random.Random) -> Story:
    world = _played(draw, draw.randint(4, 12))
    who, held = _held(world, draw)
    answers = tuple(held) or ("nothing",)
    question = f"What is {who} carrying? List the things, or say nothing."
    return _told(world, question, answers, (*THINGS, "nothing"))


_KINDS = {
    "qa1": _person,
    "qa2": _thing,
    "qa3": _before,
    "qa4": _two_arguments,
    "qa5": _three_arguments,
    "qa6": _yes_no,
    "qa7": _count,
    "qa8": _list,
}
KINDS = tuple(_KINDS)
