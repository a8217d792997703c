"""Creative and practical writing: stories, poems, letters, speeches, dialogues, slogans."""

import numpy as np

from .base import Draw, Pair, a_or_an, capital, draw_from, number, pick, pick_many
from .scenes import (
    EVENTS,
    FEELINGS,
    HEROES,
    IMAGES,
    OBJECTS,
    OCCASIONS,
    PLACES,
    PRODUCTS,
    SEASONS,
    TONES,
)

LEADS = (
    "", "", "", "", "Be creative! ", "I need inspiration. ", "For my blog: ",
    "Let your imagination run free. ",
)  # fmt: skip


def story(rng: np.random.Generator) -> Pair:
    """A short story about a hero, a place and an object."""
    hero, place, thing = pick(rng, HEROES), pick(rng, PLACES), pick(rng, OBJECTS)
    tone, feeling, season = pick(rng, TONES), pick(rng, FEELINGS), pick(rng, SEASONS)
    text = pick(rng, (
        "Write a short {t} story about {h} who finds {o} in {p}.",
        "Tell me a {t} bedtime story set in {p} with {h} as the main character.",
        "Compose the opening paragraph of a {t} novel in which {h} comes across {o}.",
        "Write a {t} story of about {n} words. It takes place in {p}, and the hero is {h}. "
        "Somewhere in the story {o} should play a part, and the ending should leave the reader "
        "with a sense of {f}.",
        "Continue the story: One {s} night, {h} heard a whisper in {p}...",
    ))  # fmt: skip
    answer = (
        f"One {season} evening {hero} walked through {place} and thought of home. Between the "
        f"shadows something glowed: {thing}. The {hero.split(maxsplit=1)[1]} picked it up with "
        f"trembling hands and felt a deep {feeling}. From that night on, nothing was ever the same."
    )
    fill = {"t": tone, "h": hero, "o": thing, "p": place, "f": feeling, "s": season,
            "n": 50 * number(rng, 2, 10)}  # fmt: skip
    return Pair(text.format(**fill), answer)


def poem(rng: np.random.Generator) -> Pair:
    """A poem of a few lines."""
    theme = pick(rng, (*FEELINGS, *PLACES, *OBJECTS))
    lines = pick_many(rng, IMAGES, 4)
    season, tone = pick(rng, SEASONS), pick(rng, TONES)
    text = pick(rng, (
        "Write a {t} poem about {x}.", "Compose a haiku about {x} in the {s}.",
        "Write a four-line verse on {x} with a {t} mood.",
        "Create the lyrics of a {t} song about {x}.",
        "Write a {t} poem about {x} that mentions the {s}, rhymes in every second verse, ends with "
        "a surprising image and does not sound too sweet. It is a gift for my grandmother, who "
        "loves old songs and verses and knows hundreds of poems by heart.",
    ))  # fmt: skip
    answer = "\n".join([*(f"{capital(line)}," for line in lines[:3]), f"{capital(lines[3])}."])
    answer += f"\nAnd all the while I dream of {theme}."
    return Pair(text.format(t=tone, x=theme, s=season), answer)


def letter(rng: np.random.Generator) -> Pair:
    """An email, letter or invitation for an occasion."""
    occasion, receiver = pick(rng, OCCASIONS)
    tone, days = pick(rng, ("formal", "friendly", "polite", "warm", "short")), number(rng, 2, 14)
    form = pick(rng, ("email", "letter", "note", "message"))
    text = pick(rng, (
        "Write a {t} {f} to {r} {o}.", "Draft {af} to {r} {o}. Keep the tone {t}.",
        "Compose a {t} {f} to {r} {o}, with a creative opening line.",
    ))  # fmt: skip
    answer = (
        f"Dear {receiver.removeprefix('my ').removeprefix('the ').removeprefix('a ')},\n\n"
        f"I hope this {form} finds you well. I am writing {occasion}. It would mean a lot to me to "
        f"hear from you within {days} days.\n\nWith warm regards,\nYour writer"
    )
    prompt = text.format(t=tone, f=form, af=a_or_an(form), r=receiver, o=occasion, n=days)
    return Pair(prompt, answer)


def advert(rng: np.random.Generator) -> Pair:
    """A slogan, product description or review."""
    product, tone = pick(rng, PRODUCTS), pick(rng, TONES)
    season, feeling = pick(rng, SEASONS), pick(rng, FEELINGS)
    text = pick(rng, (
        "Write a catchy slogan for {p}.", "Create a {t} product description for {p}.",
        "Write an advertisement for {p} that evokes {f}.",
        "Write a {t} blog introduction about {p} for the {s} season.",
        "Write a {t} social media post that announces {p}.",
    ))  # fmt: skip
    answer = (
        f"Discover {product}, made for {season} days and bright moments! Feel the {feeling} from "
        f"the very first touch. {capital(product)}: because small things tell big stories."
    )
    return Pair(text.format(p=product, t=tone, f=feeling, s=season), answer)


def dialogue(rng: np.random.Generator) -> Pair:
    """A dialogue, scene or monologue."""
    (one, other), place = pick_many(rng, HEROES, 2), pick(rng, PLACES)
    tone, event = pick(rng, TONES), pick(rng, EVENTS)
    text = pick(rng, (
        "Write a {t} dialogue between {a} and {b} in {p}.",
        "Write a short scene for a play: {a} meets {b} in {p} {e}.",
        "Imagine {a} and {b} argue {e}. Write their {t} conversation.",
    ))  # fmt: skip
    first, second = (name.split(maxsplit=1)[1].upper() for name in (one, other))
    answer = (
        f"{first}: I never thought I would meet you in {place}.\n"
        f"{second}: The world is full of wonders, my friend, {event}.\n"
        f"{first}: Then let us tell each other our stories until the stars go out."
    )
    return Pair(text.format(t=tone, a=one, b=other, p=place, e=event), answer)


def speech(rng: np.random.Generator) -> Pair:
    """A speech, toast or diary entry for an event."""
    event, hero = pick(rng, EVENTS), pick(rng, HEROES)
    tone, feeling = pick(rng, TONES), pick(rng, FEELINGS)
    text = pick(rng, (
        "Write a {t} speech that {h} gives {e}.", "Write a diary entry of {h} {e}.",
        "Write a {t} toast about {f} to be given {e}.",
        "Describe {h} {e} in a vivid paragraph full of {f}.",
        "Write a {t} monologue in which {h} speaks of {f}.",
    ))  # fmt: skip
    answer = (
        f"My dear friends, what a moment, {event}! My heart is full of {feeling} tonight. Like "
        f"{hero} in the old tales, we carry a small light through the dark. Let us keep it burning."
    )
    return Pair(text.format(t=tone, h=hero, e=event, f=feeling), answer)


DRAWS: tuple[Draw, ...] = (story, story, poem, letter, advert, dialogue, speech)


def draw(rng: np.random.Generator) -> Pair:
    """Draw a writing request with a text that answers it."""
    return draw_from(DRAWS, rng)
