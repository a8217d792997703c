"""What a tokenizer makes of the prompts of a corpus: digests, and what a user should know."""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import chain, groupby

import numpy as np

from ulcmod_dist.corpus.digests import Digests, join_digests
from ulcmod_dist.corpus.prompts import Corpus
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.batches import PromptSurvey, RefusedPrompt
from ulcmod_dist.forward.messages import TemplateRefusal
from ulcmod_dist.forward.tokens import PromptTokenizer
from ulcmod_dist.runtime.text import count

_MAX_RUN = 40
_MAX_RUNS = 16


def survey_prompts(tokenizer: PromptTokenizer, corpus: Corpus, *, quote: bool) -> PromptSurvey:
    """Read all prompts and tokenize the first, whose words are left out unless ``quote`` is set.

    Raises:
        InvalidInput: The chat template cannot take a chat; the message names sample and field.
    """
    digests, spelling, omitted = (_read_chats if corpus.has_chats else _read_texts)(
        tokenizer, corpus
    )
    try:
        [first] = tokenizer.encode([corpus.prompt(0)])
    except RefusedPrompt as error:
        raise InvalidInput(
            f"Sample {corpus.describe_row(0)}: {error.fact}", error.remedy
        ) from error
    warnings = [
        f"The chat template does not show the field {name} of {count(chats, 'chat')}."
        for name, chats in sorted(omitted.items())
    ]
    return PromptSurvey(
        digests=digests,
        control_tokens=spelling,
        omitted=omitted,
        first=describe_tokens(tokenizer, first.ids, quote=quote),
        warnings=(*tokenizer.find_faults(first.ids), *warnings),
    )


def _read_texts(tokenizer: PromptTokenizer, corpus: Corpus) -> tuple[Digests, int, dict[str, int]]:
    """Digests of texts, how many spell control tokens, and no omitted fields."""
    digests = corpus.digests().copy()
    rows = tokenizer.find_spelling(corpus.table["text"])
    for row in rows:
        digests[row] = np.frombuffer(tokenizer.read(corpus.prompt(row)).digest, np.uint8)
    return digests, len(rows), {}


def _read_chats(tokenizer: PromptTokenizer, corpus: Corpus) -> tuple[Digests, int, dict[str, int]]:
    """Digests of chats, how many spell control tokens, and how many have each omitted field."""
    digests: list[bytes] = []
    omitted: Counter[str] = Counter()
    spelling = 0
    for prompt in chain.from_iterable(corpus.blocks()):
        try:
            reading = tokenizer.read(prompt)
        except TemplateRefusal as error:
            raise InvalidInput(
                f"Sample {corpus.describe_row(len(digests))} does not fit the chat template: "
                f"{error}.",
                "Correct the chat, or set prompt.template to none for the user's words alone.",
            ) from error
        digests.append(reading.digest)
        omitted.update(reading.omitted)
        spelling += reading.spells_control_tokens
    return join_digests(digests), spelling, dict(omitted)


def describe_tokens(tokenizer: PromptTokenizer, ids: Sequence[int], *, quote: bool) -> str:
    """Tokens as text of a few lines: control tokens as they are, others decoded, in quotes."""
    runs = []
    for is_control, run in groupby(ids, key=tokenizer.is_control):
        if is_control:
            runs += [tokenizer.decode([token]) for token in run]
            continue
        text = tokenizer.decode(list(run)) if quote else "…"
        if len(text) > _MAX_RUN:
            text = f"{text[: _MAX_RUN // 2]}…{text[-_MAX_RUN // 2 :]}"
        runs.append(json.dumps(text, ensure_ascii=False))
    if len(runs) > _MAX_RUNS:
        runs = [*runs[: _MAX_RUNS // 2], "…", *runs[-_MAX_RUNS // 2 :]]
    return " ".join(runs)
