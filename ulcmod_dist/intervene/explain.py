"""What drives modules, what a model says without them, and lines that describe them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np
from sklearn.metrics import roc_auc_score

from ulcmod_dist.config.schema import ExplainConfig
from ulcmod_dist.corpus.chats import Prompt
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.batches import TokenizedPrompt
from ulcmod_dist.forward.tokens import PromptTokenizer
from ulcmod_dist.intervene.ablation import AblationPool
from ulcmod_dist.intervene.generate import Sampling, SteeringEngine, TokenReading, decode_pieces
from ulcmod_dist.intervene.masks import Mask, name_units
from ulcmod_dist.results.explanation import (
    Completion,
    Description,
    ExplainedModule,
    TokenActivations,
    TopToken,
    TopUnit,
)
from ulcmod_dist.results.types import Absent, Floats
from ulcmod_dist.runtime.text import label

TOP_TOKENS = 8
MAX_SHOWN = 240
"""Tokens of a prompt that are shown one by one."""
ASKED = 20
"""Held-out prompts of a module, and of others, that score its description."""
QUOTED, LINE, LINE_TOKENS = 200, 200, 40
"""Characters of a prompt that the describing model reads; characters and tokens of its line."""

NOT_DESCRIBED = Absent("The job names no model that describes modules (explain.describe).")

_WRITE = """Group A:
{own}

Group B:
{other}

In one short line, say what the prompts of group A have in common and those of group B have not. \
Answer with that line alone."""
_ASK = """Description: {line}

Prompt: {prompt}

Does the description fit the prompt? Answer with Yes or No."""


@dataclass(frozen=True)
class Sample:
    """One sample whose prompt is run. Untrusted text."""

    sample_id: str
    text: str
    prompt: Prompt


@dataclass(frozen=True, eq=False)
class ModuleSamples:
    """The samples that explain one module."""

    typical: Sequence[Sample]
    held_out: Sequence[Sample]


def describe_units(
    reading: TokenReading, tokens: Sequence[tuple[TopToken, ...]] | Absent
) -> list[tuple[TopUnit, ...]]:
    """The top units of each module; ``tokens`` are those of each unit, in the same order."""
    empty = Mask.empty(reading.layout)
    found: list[list[TopUnit]] = [[] for _ in range(int(reading.labels.max()) + 1)]
    for place, unit in enumerate(reading.units.tolist()):
        (name,) = name_units(empty.select(np.arange(len(reading.labels)) == unit))
        top = tokens if isinstance(tokens, Absent) else tokens[place]
        found[reading.labels[unit]].append(TopUnit(unit, name, float(reading.margins[unit]), top))
    return list(map(tuple, found))


def explain_modules(
    pool: AblationPool,
    tokenizer: PromptTokenizer,
    reading: TokenReading,
    samples: Sequence[ModuleSamples],
    config: ExplainConfig,
) -> tuple[ExplainedModule, ...]:
    """Explain every module: a pass over all typical prompts, then completions."""
    read = _read_prompts(pool, tokenizer, reading, samples)
    everywhere = list(chain.from_iterable(read))
    columns = range(len(samples), len(samples) + len(reading.units))
    units = describe_units(reading, [_rank_tokens(everywhere, column) for column in columns])
    completions = _complete(pool, tokenizer, reading, samples, config)
    no_prompt = Absent("The module has no typical prompt.")
    no_completion = Absent("No held-out prompt of the module was completed.")
    explained = []
    for module, own in enumerate(read):
        prompts = (
            TokenActivations(name, pieces[:MAX_SHOWN], values[:MAX_SHOWN, module].round(3))
            for name, pieces, values in own
        )
        explained.append(
            ExplainedModule(
                module,
                tuple(prompts) or no_prompt,
                _rank_tokens(own, module) or no_prompt,
                units[module],
                completions[module] or no_completion,
                NOT_DESCRIBED,
            )
        )
    return tuple(explained)


_Read = tuple[str, tuple[str, ...], Floats]  # id, pieces of the text, and values [pieces, columns]


def _read_prompts(
    pool: AblationPool,
    tokenizer: PromptTokenizer,
    reading: TokenReading,
    samples: Sequence[ModuleSamples],
) -> list[list[_Read]]:
    prompts = [tokenizer.encode([each.prompt for each in given.typical]) for given in samples]
    calls = [(prompt, reading) for prompt in chain.from_iterable(prompts)]
    found = pool.map(SteeringEngine.read_tokens, calls)
    read: list[list[_Read]] = []
    for given, encoded in zip(samples, prompts, strict=True):
        read.append([])
        for sample, prompt in zip(given.typical, encoded, strict=True):
            values = next(found)
            shown = np.flatnonzero(prompt.token_mask[: len(values)]).tolist()
            pieces = decode_pieces(tokenizer.decode, prompt.ids, shown)
            peaks = [values[places].max(axis=0) for _, places in pieces]
            texts = tuple(text for text, _ in pieces)
            table = np.array(peaks).reshape(len(texts), values.shape[1])
            read[-1].append((sample.sample_id, texts, table))
    return read


def _rank_tokens(read: Sequence[_Read], column: int) -> tuple[TopToken, ...]:
    """The tokens of largest value, each text once; blank ones say nothing."""
    best: dict[str, float] = {}
    for _, pieces, values in read:
        for text, value in zip(pieces, values[:, column].round(3).tolist(), strict=True):
            if word := text.strip():
                best[word] = max(value, best.get(word, value))
    ranked = sorted(best.items(), key=lambda item: (-item[1], item[0]))[:TOP_TOKENS]
    return tuple(TopToken(*item) for item in ranked)


def _complete(
    pool: AblationPool,
    tokenizer: PromptTokenizer,
    reading: TokenReading,
    samples: Sequence[ModuleSamples],
    config: ExplainConfig,
) -> list[tuple[Completion, ...]]:
    """Complete a few held-out prompts of each module, those that leave room."""
    sampling = Sampling(config.tokens)
    limit = np.inf if tokenizer.max_tokens is None else tokenizer.max_tokens - config.tokens
    chosen, calls = [], []
    for module, given in enumerate(samples):
        prompts = tokenizer.encode([sample.prompt for sample in given.held_out])
        fitting = [n for n, prompt in enumerate(prompts) if len(prompt.ids) <= limit]
        kept = fitting[: config.completions]
        chosen.append([given.held_out[n] for n in kept])
        mask = Mask.from_modules(reading.layout, reading.labels, [module])
        calls += [(prompts[n], sampling, each) for n in kept for each in (None, mask)]
    texts = map(tokenizer.decode, pool.map(SteeringEngine.complete, calls))
    return [
        tuple(Completion(each.sample_id, each.text, next(texts), next(texts)) for each in given)
        for given in chosen
    ]


def describe_modules(
    pool: AblationPool, tokenizer: PromptTokenizer, samples: Sequence[ModuleSamples]
) -> list[Description]:
    """Let a model write a line on each module from typical prompts, and score it on held-out ones.

    Raises:
        InvalidInput: The first tokens of "Yes" and "No" are the same, or a question is too long.
    """
    answers = [tokenizer.encode_words(word)[0] for word in ("Yes", "No")]
    if answers[0] == answers[1]:
        raise InvalidInput(
            "The tokenizer of explain.describe.model begins Yes and No with the same token.",
            "Name another model.",
        )
    typical = [[sample.text for sample in given.typical] for given in samples]
    held_out = [[sample.text for sample in given.held_out] for given in samples]
    groups = [_quote(tokenizer, own, _take_others(typical, n)) for n, own in enumerate(typical)]
    asked = [(prompt, Sampling(LINE_TOKENS)) for prompt in groups]
    written = pool.map(SteeringEngine.complete, asked)
    lines = [label(tokenizer.decode(ids).strip().partition("\n")[0], LINE) for ids in written]
    described = []
    for module, line in enumerate(lines):
        parts = held_out[module][:ASKED], _take_others(held_out, module)
        questions = [
            _ASK.format(line=line, prompt=label(text, QUOTED)) for part in parts for text in part
        ]
        numbers = [len(part) for part in parts]
        auc = None
        if all(numbers):
            prompts = tokenizer.encode(questions)
            if any(prompt.truncated for prompt in prompts):
                raise _no_room(tokenizer)
            calls = [(prompt, *answers) for prompt in prompts]
            odds = list(pool.map(SteeringEngine.log_odds, calls))
            auc = float(roc_auc_score(np.repeat([1, 0], numbers), odds))
        described.append(Description(line, auc, *numbers))
    return described


def _quote(tokenizer: PromptTokenizer, own: Sequence[str], other: Sequence[str]) -> TokenizedPrompt:
    """The question for a line, about as many prompts of both groups as the model has room for."""
    room = np.inf if tokenizer.max_tokens is None else tokenizer.max_tokens - LINE_TOKENS
    for count in (8, 4, 2, 1):
        lists = ["\n".join(f"- {label(t, QUOTED)}" for t in part[:count]) for part in (own, other)]
        (prompt,) = tokenizer.encode([_WRITE.format(own=lists[0], other=lists[1])])
        if not prompt.truncated and len(prompt.ids) <= room:
            return prompt
    raise _no_room(tokenizer)


def _no_room(tokenizer: PromptTokenizer) -> InvalidInput:
    return InvalidInput(
        f"A question about prompts exceeds the {tokenizer.max_tokens} tokens of "
        "explain.describe.model.",
        "Name a model with a longer context.",
    )


def _take_others(texts: Sequence[Sequence[str]], module: int) -> list[str]:
    """Texts of the other modules, from each in turn."""
    others = [given for number, given in enumerate(texts) if number != module]
    taken = [text for row in zip_longest(*others) for text in row if text is not None]
    return taken[:ASKED]
