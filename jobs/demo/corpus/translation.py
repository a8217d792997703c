"""Requests to translate words, sentences and short texts between seven languages."""

import numpy as np

from .base import Draw, Pair, draw_from, number, pick, pick_many
from .phrases import CITIES, LANGUAGES, PATTERNS, SENTENCES, WORDS

LEADS = (
    "", "", "", "", "", "I am travelling next month. ", "For a postcard to a friend: ",
    "Please be precise. ",
)  # fmt: skip
# The request in the language of the reader, by language translated from.
LOCAL = {
    "Spanish": "Traduce al inglés: {}",
    "French": "Traduisez en anglais : {}",
    "German": "Übersetze ins Englische: {}",
    "Italian": "Traduci in inglese: {}",
    "Portuguese": "Traduza para o inglês: {}",
    "Dutch": "Vertaal naar het Engels: {}",
}


def _direction(rng: np.random.Generator) -> tuple[int, int]:
    if rng.random() < 0.7:
        pair = [0, number(rng, 1, len(LANGUAGES) - 1)]
        return (pair[0], pair[1]) if rng.random() < 0.35 else (pair[1], pair[0])
    first, second = pick_many(rng, range(len(LANGUAGES)), 2)
    return first, second


def _sentences(rng: np.random.Generator, count: int) -> list[tuple[str, ...]]:
    rows = pick_many(rng, SENTENCES, count)
    if rng.random() < 0.4:
        size, city = number(rng, 3, 20), pick(rng, CITIES)
        rows[-1] = tuple(part.format(size, city) for part in pick(rng, PATTERNS))
    return rows


def sentence(rng: np.random.Generator) -> Pair:
    """One sentence from one language into another."""
    source, target = _direction(rng)
    row = _sentences(rng, 1)[0]
    text = pick(rng, (
        'Translate the following sentence from {s} into {t}: "{x}"',
        'Translate into {t}: "{x}"', 'How do you say "{x}" in {t}?',
        'What is the {t} translation of "{x}"?', '{s} to {t}: {x}',
        'I have this {s} sentence: "{x}" Please give me its translation in {t}.',
    ))  # fmt: skip
    given = text.format(s=LANGUAGES[source], t=LANGUAGES[target], x=row[source])
    return Pair(given, f"In {LANGUAGES[target]}: {row[target]}")


def local(rng: np.random.Generator) -> Pair:
    """A request written in the language translated from."""
    source = number(rng, 1, len(LANGUAGES) - 1)
    row = _sentences(rng, 1)[0]
    return Pair(LOCAL[LANGUAGES[source]].format(row[source]), f"In English: {row[0]}")


def passage(rng: np.random.Generator) -> Pair:
    """A few sentences."""
    source, target = _direction(rng)
    rows = _sentences(rng, number(rng, 2, 7))
    text = pick(rng, ("Translate this short text from {s} to {t}: {x}",
                      "Please translate the following {s} text into {t}.\n\n{x}",
                      "I need the {t} version of this {s} message: {x}"))  # fmt: skip
    given = " ".join(row[source] for row in rows)
    wanted = " ".join(row[target] for row in rows)
    prompt = text.format(s=LANGUAGES[source], t=LANGUAGES[target], x=given)
    return Pair(prompt, f"In {LANGUAGES[target]}: {wanted}")


def words(rng: np.random.Generator) -> Pair:
    """One word or a few words, or the same word in two languages."""
    source, target = _direction(rng)
    rows = pick_many(rng, WORDS, number(rng, 2, 6))
    if rng.random() < 0.3:
        one, other = pick_many(rng, range(1, len(LANGUAGES)), 2)
        english = f'the English word "{rows[0][0]}"'
        text = f"How is {english} translated into {LANGUAGES[one]} and {LANGUAGES[other]}?"
        answer = f"In {LANGUAGES[one]}: {rows[0][one]}. In {LANGUAGES[other]}: {rows[0][other]}."
        return Pair(text, answer)
    text = pick(rng, (
        "What are the {t} words for these {s} words: {x}?",
        "Translate the {s} words {x} into {t}.",
        "Make a small dictionary from {s} to {t} with these words: {x}.",
    ))  # fmt: skip
    shown = ", ".join(row[source] for row in rows)
    given = text.format(s=LANGUAGES[source], t=LANGUAGES[target], x=shown)
    return Pair(given, f"In {LANGUAGES[target]}: " + ", ".join(row[target] for row in rows))


DRAWS: tuple[Draw, ...] = (
    sentence,
    sentence,
    sentence,
    local,
    local,
    passage,
    passage,
    passage,
    words,
)


def draw(rng: np.random.Generator) -> Pair:
    """Draw a translation request with the translation as its answer."""
    return draw_from(DRAWS, rng)
