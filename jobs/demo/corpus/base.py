"""What every category's generator shares: the pair, random picks, and drawing distinct pairs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """A user's request and the answer to it."""

    text: str
    answer: str


Draw = Callable[[np.random.Generator], Pair]


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """Return one item, each with equal chance."""
    return items[int(rng.integers(len(items)))]


def pick_many(rng: np.random.Generator, items: Sequence[T], count: int) -> list[T]:
    """Return `count` different items in random order."""
    return [items[int(i)] for i in rng.permutation(len(items))[:count]]


def number(rng: np.random.Generator, low: int, high: int) -> int:
    """Return a whole number from `low` to `high`, both included."""
    return int(rng.integers(low, high + 1))


def capital(text: str) -> str:
    """Return the text with its first letter in upper case and the rest as it is."""
    return text[:1].upper() + text[1:]


def a_or_an(noun: str) -> str:
    """Return the noun after its indefinite article, chosen by the first letter."""
    article = "an" if noun[:1].lower() in "aeiou" else "a"
    return f"{article} {noun}"


def listing(items: Sequence[str]) -> str:
    """Return the items as an English list: `a, b and c`."""
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + " and " + items[-1]


def draw_from(draws: Sequence[Draw], rng: np.random.Generator) -> Pair:
    """Draw a pair from one of several generators, each with equal chance."""
    return pick(rng, draws)(rng)


def several(rng: np.random.Generator, draws: Sequence[Draw], opening: str) -> Pair:
    """Draw two to four pairs of different kinds and put them into one numbered request."""
    pairs = [draw(rng) for draw in pick_many(rng, draws, number(rng, 2, 4))]
    texts = " ".join(f"{i}. {pair.text}" for i, pair in enumerate(pairs, start=1))
    answers = "\n".join(f"{i}. {pair.answer}" for i, pair in enumerate(pairs, start=1))
    return Pair(f"{opening} {texts}", answers)


def distinct(draw: Draw, rng: np.random.Generator, count: int) -> list[Pair]:
    """Draw pairs until `count` with different texts are there, ignoring case and spacing.

    Raises:
        ValueError: the generator repeats itself too often to yield that many.
    """
    pairs: dict[str, Pair] = {}
    for _ in range(100 * count):
        pair = draw(rng)
        pairs.setdefault(" ".join(pair.text.lower().split()), pair)
        if len(pairs) == count:
            return list(pairs.values())
    raise ValueError(f"only {len(pairs)} distinct prompts of the {count} asked for; ask for fewer")
