"""The corpus as a whole: pairs of every category, split into test, train and extra text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from . import coding, ethical, knowledge, linguistic, maths, translation, writing
from .base import Draw, Pair, distinct, pick

TRAIN_COUNT = 150
TEST_COUNT = 30

# What draws a pair of each category, and how people lead up to such a request.
GENERATORS: Mapping[str, tuple[Draw, Sequence[str]]] = {
    "Coding": (coding.draw, coding.LEADS),
    "Math": (maths.draw, maths.LEADS),
    "Linguistic": (linguistic.draw, linguistic.LEADS),
    "Knowledge": (knowledge.draw, knowledge.LEADS),
    "Translation": (translation.draw, translation.LEADS),
    "Ethical": (ethical.draw, ethical.LEADS),
    "Writing": (writing.draw, writing.LEADS),
}

CATEGORIES = tuple(GENERATORS)


@dataclass(frozen=True)
class Splits:
    """Pairs by category; no prompt is in two splits.

    `train` and `test` are the demo corpus, `extra` is further text to train the model on.
    """

    train: dict[str, list[Pair]]
    test: dict[str, list[Pair]]
    extra: dict[str, list[Pair]]


def generate(seed: int, extra: int = 0) -> Splits:
    """Generate the corpus, and `extra` more pairs of each category.

    No request is in two splits, not even after another opening. The same seed gives the same
    `train` and `test` whatever `extra` is: every category has random streams of its own, and the
    extra pairs are those that they yield later.
    """
    splits = Splits({}, {}, {})
    streams = np.random.default_rng(seed).spawn(len(GENERATORS))
    for (category, (draw, leads)), rng in zip(GENERATORS.items(), streams, strict=True):
        openings = rng.spawn(1)[0]
        bare = distinct(draw, rng, TRAIN_COUNT + TEST_COUNT + extra)
        pairs = [replace(pair, text=pick(openings, leads) + pair.text) for pair in bare]
        splits.test[category] = pairs[:TEST_COUNT]
        splits.train[category] = pairs[TEST_COUNT : TEST_COUNT + TRAIN_COUNT]
        splits.extra[category] = pairs[TEST_COUNT + TRAIN_COUNT :]
    return splits
