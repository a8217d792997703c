"""Ethical questions: whether a deed is right, what to do in a dilemma, what a value asks of us."""

import numpy as np

from .base import Draw, Pair, capital, draw_from, pick, pick_many
from .dilemmas import DEEDS, FIELDS, IDEAS, NAMES, SITUATIONS

LEADS = (
    "", "", "", "", "I have been thinking about right and wrong lately. ",
    "This moral question keeps me awake. ", "I would value your honest opinion. ",
    "We debated this in our philosophy class. ",
    "At dinner my family had a heated argument about what is right, and my father and my sister "
    "could not agree at all. ",
)  # fmt: skip
CLOSINGS = (
    "Reasonable people disagree, so it is worth listening to those who are affected.",
    "In my view intentions matter, but so do consequences.",
    "A fair judgment depends on the circumstances and on who may be harmed.",
    "We should ask whether we could defend the choice openly to everyone involved.",
    "The morally safer choice is the one that respects the rights of all people concerned.",
)


def deed(rng: np.random.Generator) -> Pair:
    """Whether a deed is morally right."""
    act, good, bad = pick(rng, DEEDS)
    text = pick(rng, (
        "Is it ethical to {a}?", "Is it ever morally acceptable to {a}?",
        "Is it wrong to {a}? Why?",
        "Do you think it is right to {a}?", "Should we {a}? Give moral reasons.",
        "What are the moral arguments for and against the choice to {a}?",
        "Would a good person {a}? Explain your moral judgment.",
        "Some say that to {a} is immoral, others see no harm in it. What is your opinion?",
    ))  # fmt: skip
    answer = (
        f"This is a moral question with two sides. On the one hand, {good}. On the other hand, "
        f"{bad}. {pick(rng, CLOSINGS)}"
    )
    return Pair(text.format(a=act), answer)


def situation(rng: np.random.Generator) -> Pair:
    """What somebody should do in a dilemma."""
    what, question, values, way = pick(rng, SITUATIONS)
    who = capital(pick(rng, NAMES))
    text = pick(rng, (
        "{w} {s}. Is it morally right to {q}?",
        "{w} {s}. Should one {q} in such a dilemma, and why?",
        "Consider this ethical dilemma: {w} {s}. What would be the right thing to do?",
        "{w} {s} and feels torn between {v}. What does morality ask for here?",
        "Here is a moral problem. {w} {s}. One could {q}, but I doubt whether that is fair to "
        "everyone involved. Which values are in conflict, and what would you advise?",
    ))  # fmt: skip
    answer = f"Here {values} are in conflict. A reasonable way is to {way}. {pick(rng, CLOSINGS)}"
    return Pair(text.format(w=who, s=what, q=question, v=values), answer)


def idea(rng: np.random.Generator) -> Pair:
    """What a value or an ethical theory asks of us."""
    name, meaning = pick(rng, IDEAS)
    field = pick(rng, FIELDS)
    text = pick(rng, (
        "What does {n} morally demand of us in {f}?", "Why is {n} morally important in {f}?",
        "How would {n} judge whether common practices in {f} are right or wrong?",
        "Do we have a moral duty to follow {n} in {f}, even if it is costly?",
        "Explain how {n} can guide ethical decisions in {f}.",
    ))  # fmt: skip
    answer = (
        f"The idea of {name} asks us {meaning}. In {field} this means that people should think "
        f"about who could be harmed by a decision. {pick(rng, CLOSINGS)}"
    )
    return Pair(text.format(n=name, f=field), answer)


def comparison(rng: np.random.Generator) -> Pair:
    """Which of two deeds is worse."""
    (one, _, first), (other, _, second) = pick_many(rng, DEEDS, 2)
    text = pick(rng, (
        "Which is morally worse: to {a} or to {b}?",
        "Is it more unethical to {a} or to {b}? Explain why.",
        "If you had to choose, would you rather {a} or {b}, morally speaking?",
    ))  # fmt: skip
    answer = (
        f"Both raise moral concerns. To {one} is problematic because {first}. To {other} is "
        f"problematic because {second}. {pick(rng, CLOSINGS)}"
    )
    return Pair(text.format(a=one, b=other), answer)


DRAWS: tuple[Draw, ...] = (deed, deed, situation, situation, idea, comparison)


def draw(rng: np.random.Generator) -> Pair:
    """Draw an ethical question with a balanced answer."""
    return draw_from(DRAWS, rng)
