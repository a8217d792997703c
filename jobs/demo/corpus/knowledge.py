"""General knowledge: geography, science, history, literature, animals, and why things are so."""

import numpy as np

from .base import Draw, Pair, a_or_an, capital, draw_from, listing, pick, pick_many, several
from .facts import ANIMALS, COUNTRIES, ELEMENTS, EVENTS, PEOPLE, QUESTIONS, RIVERS, WORKS

CONTINENTS = tuple(dict.fromkeys(row[2] for row in COUNTRIES))
LEADS = (
    "", "", "", "I am curious about the world. ", "My daughter asked me this today. ",
    "A quick question for a quiz night: ", "We are studying this at school. ",
)  # fmt: skip


def country(rng: np.random.Generator) -> Pair:
    """Capital, continent, language or currency of a country."""
    name, city, continent, language, money = pick(rng, COUNTRIES)
    text, answer = pick(rng, (
        (f"What is the capital of {name}?", f"The capital of {name} is {city}."),
        (f"Which city is the capital of {name}?", f"{city} is the capital of {name}."),
        (f"{city} is the capital of which country?", f"{city} is the capital of {name}."),
        (f"On which continent is {name} located?", f"{name} is in {continent}."),
        (f"Which language is mainly spoken in {name}?",
         f"In {name} the main official language is {language}."),
        (f"What currency is used in {name}?", f"The currency of {name} is the {money}."),
        (f"Tell me some basic facts about {name}, such as its capital, language and currency.",
         f"{name} is a country in {continent}. Its capital is {city}, its main official language "
         f"is {language} and its currency is the {money}."),
        (f"I am planning a trip to {name}. What is the capital and which currency will I need?",
         f"The capital of {name} is {city} and you pay with the {money}."),
    ))  # fmt: skip
    return Pair(text, answer)


def continent(rng: np.random.Generator) -> Pair:
    """Countries of a continent, or which of a few is the capital."""
    if rng.random() < 0.4:
        place = pick(rng, CONTINENTS)
        names = [row[0] for row in COUNTRIES if row[2] == place]
        count = min(len(names), int(rng.integers(2, 5)))
        text = f"Name {count} countries in {place}."
        return Pair(text, f"Countries in {place} include {listing(names[:count])}.")
    rows = pick_many(rng, COUNTRIES, 3)
    target = pick(rng, rows)
    text = f"Which of these cities is the capital of {target[0]}: {listing([r[1] for r in rows])}?"
    return Pair(text, f"{target[1]} is the capital of {target[0]}.")


def element(rng: np.random.Generator) -> Pair:
    """Symbol, atomic number or state of a chemical element."""
    name, symbol, place, state = pick(rng, ELEMENTS)
    text, answer = pick(rng, (
        (f"What is the chemical symbol of {name}?", f"The chemical symbol of {name} is {symbol}."),
        (f"Which chemical element has the symbol {symbol}?", f"{symbol} stands for {name}."),
        (f"What is the atomic number of {name}?", f"The atomic number of {name} is {place}."),
        (f"Which element has the atomic number {place}?", f"It is {name}, with symbol {symbol}."),
        (f"Is {name} a solid, a liquid or a gas at room temperature?",
         f"At room temperature {name} is a {state}."),
    ))  # fmt: skip
    return Pair(text, answer)


def work(rng: np.random.Generator) -> Pair:
    """Who made a famous work."""
    title, author, kind = pick(rng, WORKS)
    made = {"painting": "painted", "opera": "composed", "ballet": "composed",
            "set of concertos": "composed"}.get(kind, "wrote")  # fmt: skip
    text, answer = pick(rng, (
        (f"Who {made} {title}?", f"{author} {made} {title}."),
        (f"Which famous person {made} {title}?", f"It was {author}."),
        (f"What kind of work is {title} and who made it?",
         f"{title} is {a_or_an(kind)} by {author}."),
        (f"Name a famous work by {author}.", f"{author} {made} {title}."),
    ))  # fmt: skip
    return Pair(text, answer)


def event(rng: np.random.Generator) -> Pair:
    """The year of an event, or which of two came first."""
    name, year = pick(rng, EVENTS)
    if rng.random() < 0.5:
        text = pick(rng, ("In which year was {}?", "When did {} take place?",
                          "What is the date of {} in history?"))  # fmt: skip
        return Pair(text.format(name), f"{capital(name)} was in {year}.")
    (one, first), (other, second) = pick_many(rng, EVENTS, 2)
    early, late = (one, other) if int(first) < int(second) else (other, one)
    years = min(first, second), max(first, second)
    text = f"Which happened first in history: {one} or {other}?"
    answer = f"{capital(early)} was in {years[0]}, {late} in {years[1]}."
    if first == second:
        answer = f"Both happened in the same year, {first}."
    return Pair(text, answer)


def animal(rng: np.random.Generator) -> Pair:
    """Class, home or food of an animal."""
    name, kind, home, food = pick(rng, ANIMALS)
    one = a_or_an(name)
    text, answer = pick(rng, (
        (f"What kind of animal is {one}?", f"{capital(one)} is {a_or_an(kind)}."),
        (f"Where does the {name} live?", f"The {name} lives in {home}."),
        (f"What does the {name} eat?", f"The {name} eats {food}."),
        (f"Describe the {name}: what it eats and where it lives.",
         f"The {name} is {a_or_an(kind)} that lives in {home} and eats {food}."),
        (f"Is the {name} a mammal, a bird, a reptile or something else?",
         f"The {name} is {a_or_an(kind)}."),
    ))  # fmt: skip
    return Pair(text, answer)


def person(rng: np.random.Generator) -> Pair:
    """Who did something great."""
    deed, name = pick(rng, PEOPLE)
    text, answer = pick(rng, (
        (f"Who {deed}?", f"{name} {deed}."),
        (f"Which famous person {deed}?", f"It was {name} who {deed}."),
        (f"Why is {name} famous in history?", f"{name} {deed}."),
    ))  # fmt: skip
    return Pair(text, answer)


def explanation(rng: np.random.Generator) -> Pair:
    """A question about how the world works."""
    question, answer = pick(rng, QUESTIONS)
    tail = pick(rng, ("", "", " Explain it in simple words.", " Give a short answer.",
                      " A brief explanation is enough."))  # fmt: skip
    return Pair(question + tail, answer)


def river(rng: np.random.Generator) -> Pair:
    """Where a river is and where it ends."""
    name, place, sea = pick(rng, RIVERS)
    text, answer = pick(rng, (
        (f"On which continent is the river {name}?", f"The river {name} is in {place}."),
        (f"Into which sea or ocean does the river {name} flow?",
         f"The river {name} flows into {sea}."),
        (f"Where does the river {name} end?", f"The {name} in {place} ends in {sea}."),
    ))  # fmt: skip
    return Pair(text, answer)


KINDS: tuple[Draw, ...] = (
    country, continent, element, work, event, animal, person, explanation, river,
)  # fmt: skip


def quiz(rng: np.random.Generator) -> Pair:
    """A quiz of a few questions of different kinds."""
    opening = pick(rng, (
        "Answer these quiz questions:", "General knowledge quiz.",
        "I need the answers to some questions from geography and history.",
    ))  # fmt: skip
    return several(rng, KINDS, opening)


DRAWS: tuple[Draw, ...] = (*KINDS, country, country, quiz, quiz)


def draw(rng: np.random.Generator) -> Pair:
    """Draw a question of general knowledge with its answer."""
    return draw_from(DRAWS, rng)
