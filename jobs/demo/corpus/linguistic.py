"""Questions about the English language: grammar, word classes, forms, meanings, rewriting."""

import numpy as np

from .base import Draw, Pair, capital, draw_from, number, pick, pick_many, several
from .words import (
    ADVERBS,
    AFFIXES,
    GRADES,
    IDIOMS,
    MISTAKES,
    PEOPLE,
    PLACES,
    PLURALS,
    TERMS,
    THINGS,
    TIMES,
    VERBS,
    WORDS,
)

LEADS = (
    "", "", "", "", "English grammar exercise: ", "I am learning English. ",
    "A question from my language class: ", "My English teacher gave us this task. ",
)  # fmt: skip


def _clause(rng: np.random.Generator) -> tuple[str, tuple[str, ...], str]:
    return pick(rng, PEOPLE), pick(rng, VERBS), f"the {pick(rng, THINGS)}"


def passive(rng: np.random.Generator) -> Pair:
    """From the active to the passive voice, or back."""
    who, verb, what = _clause(rng)
    active = capital(f"{who} {verb[2]} {what}.")
    turned = capital(f"{what} was {verb[3]} by {who}.")
    if rng.random() < 0.7:
        text = pick(rng, (
            "Rewrite the sentence in the passive voice: {}", "Change this to passive voice: {}",
            "Convert the following active sentence into a passive one. {}",
        ))  # fmt: skip
        return Pair(text.format(f'"{active}"'), f'In the passive voice: "{turned}"')
    return Pair(f'Rewrite in the active voice: "{turned}"', f'In the active voice: "{active}"')


def tense(rng: np.random.Generator) -> Pair:
    """The same sentence in another tense."""
    who, verb, what = _clause(rng)
    place = pick(rng, PLACES)
    forms = {
        "simple present": verb[1], "simple past": verb[2], "present perfect": f"has {verb[3]}",
        "simple future": f"will {verb[0]}", "past perfect": f"had {verb[3]}",
        "present continuous": f"is {verb[4]}", "past continuous": f"was {verb[4]}",
    }  # fmt: skip
    old, new = pick_many(rng, tuple(forms), 2)
    given = capital(f"{who} {forms[old]} {what} {place}.")
    wanted = capital(f"{who} {forms[new]} {what} {place}.")
    if rng.random() < 0.3:
        text = f'Which verb tense is used in the sentence "{given}"?'
        return Pair(text, f'The verb "{forms[old]}" is in the {old} tense.')
    text = pick(rng, ("Put this sentence into the {n} tense: {g}",
                      "Change the verb to the {n}. Sentence: {g}",
                      "How does the sentence {g} read in the {n} tense?"))  # fmt: skip
    return Pair(text.format(n=new, g=f'"{given}"'), f'In the {new} tense: "{wanted}"')


def parts(rng: np.random.Generator) -> Pair:
    """Which word of a sentence is the verb, subject, object or adverb."""
    who, verb, what = _clause(rng)
    adverb = pick(rng, ADVERBS)
    sentence = capital(f"{who} {adverb} {verb[2]} {what} {pick(rng, PLACES)}.")
    name, answer = pick(rng, (("subject", who), ("verb", verb[2]), ("direct object", what),
                              ("adverb", adverb)))  # fmt: skip
    text = pick(rng, (
        "Identify the {n} in the sentence {s}", "What is the {n} of this sentence? {s}",
        "Find the {n} in the following sentence and write it down: {s}",
    ))  # fmt: skip
    return Pair(
        text.format(n=name, s=f'"{sentence}"'), f'The {name} of the sentence is "{answer}".'
    )


def mistake(rng: np.random.Generator) -> Pair:
    """A sentence with a grammar mistake, corrected."""
    wrong, right, why = pick(rng, MISTAKES)
    fill = {"p": pick(rng, PEOPLE), "t": pick(rng, THINGS)}
    bad, good = capital(wrong.format(**fill)), capital(right.format(**fill))
    text = pick(rng, (
        "Correct the grammar of this sentence: {}", "Find and fix the grammatical error: {}",
        "Is the following sentence grammatically correct? If not, correct it. {}",
        "Proofread this sentence for me: {}",
    ))  # fmt: skip
    return Pair(text.format(f'"{bad}"'), f'The correct sentence is "{good}" Here {why}.')


def meaning(rng: np.random.Generator) -> Pair:
    """Synonyms, antonyms and word classes."""
    word, same, opposite, kind = pick(rng, WORDS)
    text, answer = pick(rng, (
        (f'Give a synonym of the word "{word}".', f'A synonym of "{word}" is "{same}".'),
        (f'What is another English word for "{word}"?', f'Another word for "{word}" is "{same}".'),
        (f'What is the antonym of "{word}"?', f'The antonym of "{word}" is "{opposite}".'),
        (f'Name the opposite of the {kind} "{word}".', f'Its opposite is "{opposite}".'),
        (f'What part of speech is the word "{word}"?', f'The word "{word}" is a {kind}.'),
        (f'Are the words "{word}" and "{same}" synonyms or antonyms?', "They are synonyms."),
        (f'Are the words "{word}" and "{opposite}" synonyms or antonyms?', "They are antonyms."),
        (f'Which word is closest in meaning to "{word}": "{opposite}" or "{same}"?',
         f'The word "{same}" is closest in meaning to "{word}".'),
    ))  # fmt: skip
    return Pair(text, answer)


def forms(rng: np.random.Generator) -> Pair:
    """Plurals, degrees of comparison and the forms of verbs."""
    one, many = pick(rng, PLURALS)
    base, more, most = pick(rng, GRADES)
    verb = pick(rng, VERBS)
    text, answer = pick(rng, (
        (f'What is the plural of the noun "{one}"?', f'The plural of "{one}" is "{many}".'),
        (f'Write the singular form of "{many}".', f'The singular of "{many}" is "{one}".'),
        (f'Give the comparative and superlative of "{base}".',
         f'The forms are "{base}", "{more}", "{most}".'),
        (f'What is the superlative of the adjective "{base}"?', f'The superlative is "{most}".'),
        (f'What is the past participle of the verb "{verb[0]}"?',
         f'The past participle of "{verb[0]}" is "{verb[3]}".'),
        (f'Conjugate the verb "{verb[0]}" in the simple present.',
         f'I {verb[0]}, you {verb[0]}, he {verb[1]}, we {verb[0]}, they {verb[0]}.'),
    ))  # fmt: skip
    return Pair(text, answer)


def idiom(rng: np.random.Generator) -> Pair:
    """Idioms, prefixes and terms of grammar."""
    phrase, sense = pick(rng, IDIOMS)
    prefix, examples, gloss = pick(rng, AFFIXES)
    term, definition, example = pick(rng, TERMS)
    text, answer = pick(rng, (
        (f'What does the idiom "{phrase}" mean?', f'The idiom "{phrase}" means {sense}.'),
        (f'Explain the English expression "{phrase}".', f'It means {sense}.'),
        (f'Which idiom means "{sense}"?', f'The idiom is "{phrase}".'),
        (f'What does the prefix "{prefix}-" mean?',
         f'The prefix "{prefix}-" means {gloss}, as in {examples}.'),
        (f"In grammar, what is {term}?", f"It is {definition}, for example: {example}."),
        (f"Define {term} and give an example.", f"It is {definition}. Example: {example}."),
    ))  # fmt: skip
    return Pair(text, answer)


def rewriting(rng: np.random.Generator) -> Pair:
    """Negation, question, reported speech, or two sentences joined into one."""
    who, verb, what = _clause(rng)
    time = pick(rng, TIMES)
    given = capital(f"{who} {verb[1]} {what} {time}.")
    second, action = pick(rng, PEOPLE), pick(rng, VERBS)
    other = capital(f"{second} {action[2]} it {pick(rng, PLACES)}.")
    text, answer = pick(rng, (
        (f'Make the sentence negative: "{given}"',
         capital(f"{who} does not {verb[0]} {what} {time}.")),
        (f'Turn this statement into a question: "{given}"',
         f"Does {who} {verb[0]} {what} {time}?"),
        (f'Change to reported speech: {capital(who)} said, "I {verb[0]} {what} {time}."',
         capital(f"{who} said that he or she {verb[2]} {what} {time}.")),
        (f'Combine the two sentences with "and then": "{capital(who)} {verb[2]} {what}." "{other}"',
         capital(f"{who} {verb[2]} {what} and then {other[0].lower()}{other[1:]}")),
        (f'Rewrite the sentence with a pronoun as its subject: "{given}"',
         f"He or she {verb[1]} {what} {time}."),
    ))  # fmt: skip
    return Pair(text, f'The sentence becomes: "{answer}"')


def order(rng: np.random.Generator) -> Pair:
    """Words to put in order, or a gap to fill."""
    who, verb, what = _clause(rng)
    words = f"{who} {verb[2]} {what} {pick(rng, PLACES)}".split()
    sentence = capital(" ".join(words)) + "."
    if rng.random() < 0.5:
        mixed = " / ".join(pick_many(rng, words, len(words)))
        text = f"Put the words in the right order to form a correct sentence: {mixed}"
        return Pair(text, f'The sentence is: "{sentence}"')
    gap = capital(f"{who} ___ ({verb[0]}) {what} {number(rng, 2, 9)} days ago.")
    text = pick(rng, ("Fill in the blank with the correct form of the verb:",
                      "Complete the sentence with the verb in brackets:"))  # fmt: skip
    return Pair(f'{text} "{gap}"', f'The correct form is "{verb[2]}", the simple past.')


SENTENCES: tuple[Draw, ...] = (passive, tense, parts, mistake, rewriting, order)
WORD_QUESTIONS: tuple[Draw, ...] = (meaning, forms, idiom)


def worksheet(rng: np.random.Generator) -> Pair:
    """A few exercises at once."""
    opening = pick(rng, ("Do these English grammar exercises.", "Grammar worksheet:",
                         "Solve the following language exercises for me."))  # fmt: skip
    return several(rng, (*SENTENCES, *WORD_QUESTIONS), opening)


DRAWS: tuple[Draw, ...] = (*SENTENCES, *SENTENCES, *WORD_QUESTIONS, worksheet, worksheet, worksheet)


def draw(rng: np.random.Generator) -> Pair:
    """Draw a question about language with its answer."""
    return draw_from(DRAWS, rng)
