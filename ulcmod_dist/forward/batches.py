"""Batches: which prompts run together, what a prompt is as tokens, and what a batch yields.

Planning an extraction needs these without a model, so nothing here imports torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, pairwise
from os.path import commonprefix
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ulcmod_dist.corpus.digests import Digests
from ulcmod_dist.errors import InvalidInput, UlcmodError
from ulcmod_dist.forward.architectures import ANY_LENGTHS, LengthClasses

_MIN_SHARED_TOKENS = 4
"""Fewer tokens than these are computed with each prompt: reusing them saves nothing."""


@dataclass(frozen=True)
class TokenizedPrompt:
    """Token ids without padding, and which tokens enter the mean; at least one does.

    ``shared`` is the number of first tokens that other prompts begin with too, see `mark_prefix`.
    """

    ids: tuple[int, ...]
    token_mask: tuple[bool, ...]
    truncated: bool = False
    shared: int = 0
    num_answer: int = 0  # the last tokens, which are an expected answer and enter no mean

    @property
    def num_counted(self) -> int:
        """Number of tokens that enter the mean."""
        return sum(self.token_mask)

    @property
    def prefix(self) -> Self:
        """The tokens that other prompts begin with too, perhaps none."""
        ids, mask = self.ids[: self.shared], self.token_mask[: self.shared]
        return replace(self, ids=ids, token_mask=mask, truncated=False, shared=0, num_answer=0)

    @property
    def answer_mask(self) -> tuple[bool, ...]:
        """Which tokens are of the expected answer."""
        return (False,) * (len(self.ids) - self.num_answer) + (True,) * self.num_answer


@dataclass(frozen=True)
class PromptSurvey:
    """What a tokenizer makes of the prompts of a corpus.

    Attributes:
        digests: The digest of each prompt, in order.
        control_tokens: Number of prompts whose words spell control tokens.
        omitted: Fields that the chat template does not show, and in how many chats.
        first: The tokens of the first prompt: control tokens as they are, text in quotes.
        warnings: Sentences about what is probably not intended.
    """

    digests: Digests
    control_tokens: int
    omitted: Mapping[str, int]
    first: str
    warnings: tuple[str, ...]


def pad_rows(
    rows: Sequence[Sequence[int]], dtype: DTypeLike
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Rows of numbers as one array [rows, longest], padded by 0 on the right; where they are."""
    lengths = np.array([len(row) for row in rows])
    inside = np.arange(lengths.max()) < lengths[:, None]
    padded = np.zeros(inside.shape, dtype)
    padded[inside] = np.fromiter(chain.from_iterable(rows), dtype, int(lengths.sum()))
    return padded, inside


@dataclass(frozen=True)
class PooledActivations:
    """The activations of one batch, one row a prompt, in the order of the batch.

    Attributes:
        activations: float32 [batch, units], the mean over the counted tokens of the absolute
            input of the down-projection. A token that is not routed to an expert counts as zero.
        routed: int32 [batch, expert slots], the number of counted tokens routed to each expert;
            slots follow the entries of the engine's units that name an expert. None for a model
            without experts. ``activations * num_counted / routed`` is the mean over routed tokens.
    """

    activations: NDArray[np.float32]
    routed: NDArray[np.int32] | None = None

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join the rows of several batches of one model; those of one are not copied."""
        if len(parts) == 1:
            return parts[0]
        routed = [part.routed for part in parts if part.routed is not None]
        return cls(
            np.concatenate([part.activations for part in parts]),
            np.concatenate(routed) if routed else None,
        )


class PromptError(UlcmodError):
    """An error of the prompt at a position of the call."""

    def __init__(self, position: int, fact: str, remedy: str | None = None) -> None:
        super().__init__(fact, remedy)
        self.position = position


class RefusedPrompt(PromptError, InvalidInput):
    """A prompt that cannot be tokenized as the job's ``prompt`` section asks."""


def explain_vocabulary(token: int, vocabulary: int) -> tuple[str, str]:
    """Fact and remedy for a token that the model does not know."""
    return (
        f"The tokenizer gave token {token}, but the model knows {vocabulary}.",
        "Save the model's own tokenizer in its folder.",
    )


def require_tokens(
    tokenized: Sequence[TokenizedPrompt], least: int, vocabulary: int | None = None
) -> None:
    """Raise `RefusedPrompt` for a token beyond the vocabulary or fewer counted tokens than needed.

    Attribution needs two: units of the last token that counts have no loss after them.
    """
    for position, entry in enumerate(tokenized):
        if vocabulary is not None and (token := max(entry.ids)) >= vocabulary:
            raise RefusedPrompt(position, *explain_vocabulary(token, vocabulary))
        if entry.num_counted < least:
            fact = "It has one token that counts; attribution needs another one to predict."
            raise RefusedPrompt(position, fact, "Leave it out, or set prompt.tokens to all.")


class NonFiniteActivation(PromptError):
    """A forward pass that produced NaN or infinity."""


class PromptTooLarge(UlcmodError):
    """A prompt that does not fit into the device's memory even in a batch of its own."""


def plan_batches(
    lengths: Sequence[int], batch_tokens: int, classes: LengthClasses = ANY_LENGTHS
) -> tuple[tuple[int, ...], ...]:
    """Group the prompts of a shard into batches of similar length.

    Prompts are sorted by falling length, so that little is padded and the batch that needs most
    memory comes first; equal lengths keep their order. A batch padded to its longest prompt holds
    at most ``batch_tokens`` tokens, except that a prompt longer than that has a batch of its own.
    Each index of a prompt occurs in exactly one batch, whose prompts are of one length class.
    """
    batches: list[list[int]] = []
    remaining = 0
    current = None
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        length_class = classes.classify(lengths[index])
        if remaining == 0 or length_class != current:
            batches.append([])
            current = length_class
            remaining = max(1, batch_tokens // max(1, lengths[index]))
        batches[-1].append(index)
        remaining -= 1
    return tuple(map(tuple, batches))


def mark_prefix(prompts: Sequence[TokenizedPrompt]) -> list[TokenizedPrompt]:
    """Set ``shared`` in the prompts with the common beginning whose reuse saves most tokens.

    The others keep 0. The last token of a prompt is never shared, so that something is left to
    compute. The choice depends on the prompts alone: a shard computed again gives the same bytes.
    """
    begins = [tuple(zip(each.ids, each.token_mask, strict=True))[:-1] for each in prompts]
    order = sorted(range(len(prompts)), key=begins.__getitem__)
    # Prompts with a common beginning are neighbours in this order.
    common = [
        len(commonprefix([begins[one], begins[other]]))  # noqa: RUF071 - tokens, not paths
        for one, other in pairwise(order)
    ]
    saved, length, rows = 0, 0, order[:0]
    for least in {value for value in common if value >= _MIN_SHARED_TOKENS}:
        is_shared = [value >= least for value in common]
        for is_run, group in groupby(range(len(common)), is_shared.__getitem__):
            run = list(group)
            if is_run and (len(run) * least, least) > (saved, length):
                saved, length, rows = len(run) * least, least, order[run[0] : run[-1] + 2]
    chosen = set(rows)
    return [replace(p, shared=length) if n in chosen else p for n, p in enumerate(prompts)]


def split_by_prefix(
    prompts: Sequence[TokenizedPrompt], batch: Sequence[int]
) -> list[tuple[int, ...]]:
    """Split a batch, indices of prompts, into those that share their first tokens and others."""
    ordered = sorted(batch, key=lambda index: -prompts[index].shared)
    return [tuple(part) for _, part in groupby(ordered, lambda index: prompts[index].shared)]
