"""Tokens that prompts begin with are computed once, where that changes no row."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.forward.test_row_independence import make_model
from tests.forward.tiny import FAMILIES, SPARSE, make_prompts, tiny_model
from ulcmod_dist.forward.batches import TokenizedPrompt, mark_prefix, split_by_prefix
from ulcmod_dist.forward.engine import Engine

ENCODERS = ("bert", "t5")
# Below and above the sliding window of 8 tokens that `make_model` gives.
PREFIXES = [5, 11]


def make_chats(prefix: int, *, counted: bool = True) -> list[TokenizedPrompt]:
    """Prompts of several lengths that begin with the same tokens."""
    first, *others = make_prompts([prefix, 1, 9, 4, 17])
    return [
        TokenizedPrompt(first.ids + each.ids, (counted,) * prefix + each.token_mask, shared=prefix)
        for each in others
    ]


def make_engine(family: str, rope: str = "default", **changes: Any) -> Engine:
    engine = Engine(make_model(family, rope, **changes))
    engine.reuses_prefix = engine.check_prefix()
    return engine


@pytest.mark.parametrize("family", FAMILIES)
def test_prefix__changes_no_row(family: str) -> None:
    engine = make_engine(family)
    assert engine.reuses_prefix == (family not in ENCODERS)
    for prompts in (*map(make_chats, PREFIXES), make_chats(6, counted=False)):
        rows = engine.run(prompts)
        expected = engine.run([replace(prompt, shared=0) for prompt in prompts])
        scale = 1e-5 * float(expected.activations.max())
        np.testing.assert_allclose(rows.activations, expected.activations, 1e-5, scale)
        if family in SPARSE:
            np.testing.assert_array_equal(rows.routed, expected.routed)


@pytest.mark.parametrize(("rope", "reuses"), [("yarn", True), ("longrope", False)])
def test_prefix__is_reused_unless_positions_depend_on_the_length(rope: str, reuses: bool) -> None:
    assert make_engine("llama", rope).reuses_prefix == reuses


def test_prefix__is_reused_in_bfloat16() -> None:
    engine = Engine(tiny_model("llama").to(torch.bfloat16))
    assert engine.check_prefix()


def test_prefix__is_not_computed_again() -> None:
    engine = make_engine("llama")
    lengths: list[int] = []
    layers: Any = engine._model.layers
    layers[0].register_forward_pre_hook(lambda _module, args: lengths.append(args[0].shape[1]))
    prompts = make_chats(11)
    for _ in range(2):
        engine.run(prompts)
    assert lengths == [11, 17, 17]
    # A batch in which not all prompts have it is computed as a whole.
    engine.run([*prompts, *make_prompts([3])])
    assert lengths[-1] == 28


def test_engine__computes_nothing_after_the_last_units() -> None:
    engine, called = make_engine("llama"), []
    model: Any = engine._model
    for layer in model.layers:
        layer.mlp.down_proj.register_forward_hook(lambda *_: called.append("down"))
    model.norm.register_forward_hook(lambda *_: called.append("norm"))
    engine.run(make_prompts([5, 3]))
    assert called == ["down"] * (len(model.layers) - 1)


def test_mark_prefix__takes_the_beginning_that_saves_most() -> None:
    def mark(*texts: str) -> list[int]:
        prompts = [TokenizedPrompt(tuple(map(ord, text)), (True,) * len(text)) for text in texts]
        return [prompt.shared for prompt in mark_prefix(prompts)]

    assert mark("system a", "system bc", "other", "system d") == [7, 7, 0, 7]
    # Three prompts share 7 tokens, two of them 12: 14 tokens saved against 12.
    assert mark("system the a", "system the b", "system c") == [7, 7, 7]
    # The last token is left to compute, and a few tokens are not worth it.
    assert mark("same text", "same text") == [8, 8]
    assert mark("abc d", "abc e") == [4, 4]
    assert mark("abcd", "abce", "x") == [0, 0, 0]
    assert mark("alone") == [0]


def test_mark_prefix__tells_tokens_apart_that_count_and_do_not() -> None:
    ids = tuple(range(8))
    prompts = [TokenizedPrompt(ids, mask) for mask in ((True,) * 8, (False,) * 5 + (True,) * 3)]
    assert [prompt.shared for prompt in mark_prefix(prompts)] == [0, 0]


def test_split_by_prefix__keeps_every_prompt_of_a_batch() -> None:
    chats = make_chats(5)
    prompts = [chats[0], *make_prompts([7]), chats[1]]
    assert split_by_prefix(prompts, (2, 1, 0)) == [(2, 0), (1,)]
    assert split_by_prefix(prompts, (1,)) == [(1,)]
