"""What a tokenizer makes of the prompts of a corpus: digests, and what a user should know."""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

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
    digests: list[str] = []
    omitted: Counter[str] = Counter()
    spelling = 0
    for row in range(len(corpus)):
        try:
            reading = tokenizer.read(corpus.prompt(row))
        except TemplateRefusal as error:
            raise InvalidInput(
                f"Sample {corpus.describe_row(row)} does not fit the chat template: {error}.",
                "Correct the chat, or set prompt.template to none for the user's words alone.",
            ) from error
        digests.append(reading.digest)
        omitted.update(reading.omitted)
        spelling += reading.spells_control_tokens
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
        digests=tuple(digests),
        control_tokens=spelling,
        omitted=dict(omitted),
        first=describe_tokens(tokenizer, first.ids, quote=quote),
        warnings=(*tokenizer.find_faults(first.ids), *warnings),
    )


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
