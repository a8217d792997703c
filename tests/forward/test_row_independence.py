"""A prompt's row is the same alone and in any batch, in every family and beyond every threshold."""

from typing import Any

import numpy as np
import pytest
import transformers

from tests.forward.tiny import EAGER, FAMILIES, make_prompts, tiny_model
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.architectures import (
    ANY_LENGTHS,
    LengthClasses,
    get_length_classes,
)
from ulcmod_dist.forward.batches import plan_batches
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.intervene.engine import LossEngine

WINDOW, ORIGINAL, POSITIONS = 8, 16, 32
LENGTHS = [1, 8, 9, 16, 17, 32]
"""Both sides of the sliding window and of the original positions, up to the model's positions."""
BEYOND = [33, 33, 40]
"""Beyond the model's positions, where dynamic NTK scaling begins."""
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "original_max_position_embeddings": ORIGINAL,
}
ROPES: dict[str, dict[str, Any]] = {
    "default": {},
    "longrope": {**LONGROPE, "short_factor": [1.0] * 4, "long_factor": [2.0, 3.0, 5.0, 7.0]},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
    "yarn": {
        "rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0,
        "original_max_position_embeddings": ORIGINAL,
    },
}  # fmt: skip


NO_ROPE = ("bert", "bloom", "gpt2", "opt", "t5")
ABSOLUTE = ("bert", "gpt2", "opt")
CASES = [
    (family, rope)
    for family in FAMILIES
    for rope in ROPES
    if rope == "default" or family not in NO_ROPE
    if family != "phi3" or rope in ("default", "longrope")
]


def make_model(family: str, rope: str, **changes: Any) -> Any:
    """A tiny model whose thresholds all lie between the lengths of the prompts."""
    settings: dict[str, Any] = {
        "max_position_embeddings": POSITIONS, "n_positions": POSITIONS, "sliding_window": WINDOW,
        "use_sliding_window": True, "max_window_layers": 1, "layer_types": None,
        "attn_implementation": "eager" if family in EAGER else "sdpa",
    }  # fmt: skip
    if family == "gpt_neox":
        settings["rotary_pct"] = 1.0
    if family.startswith("deepseek"):
        settings |= {"qk_rope_head_dim": 8, "head_dim": 8}
    if family == "phi3":
        settings["original_max_position_embeddings"] = ORIGINAL
    if rope != "default":
        kinds = ("sliding_attention", "full_attention") if family.startswith("gemma3") else ()
        given = ROPES[rope]
        settings["rope_parameters"] = {kind: dict(given) for kind in kinds} or dict(given)
    return tiny_model(family, **settings | changes)


def list_lengths(family: str) -> list[int]:
    return LENGTHS if family in ABSOLUTE else [*LENGTHS, *BEYOND]


@pytest.mark.parametrize(("family", "rope"), CASES)
def test_row__does_not_depend_on_its_batch_or_those_before(family: str, rope: str) -> None:
    engine = Engine(make_model(family, rope))
    prompts = make_prompts(list_lengths(family))
    expected = np.concatenate([engine.run([prompt]).activations for prompt in prompts])
    scale = 1e-5 * float(expected.max())
    # From short to long and from long to short; all together, in two halves, then alone again.
    for batches in ([prompts], [prompts[::2], prompts[1::2]], [[prompt] for prompt in prompts]):
        for ordered in (batches, [batch[::-1] for batch in batches[::-1]]):
            order = [prompts.index(prompt) for batch in ordered for prompt in batch]
            rows = np.concatenate([engine.run(batch).activations for batch in ordered])
            np.testing.assert_allclose(rows, expected[order], rtol=1e-5, atol=scale)


@pytest.mark.parametrize("rope", ["longrope", "dynamic"])
def test_row__would_depend_on_its_batch_without_length_classes(
    rope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(make_model("llama", rope))
    prompts = make_prompts(list_lengths("llama"))
    expected = np.concatenate([engine.run([prompt]).activations for prompt in prompts])
    monkeypatch.setattr(engine, "_lengths", ANY_LENGTHS)
    assert np.abs(engine.run(prompts).activations - expected).max() > 1e-4 * expected.max()


@pytest.mark.parametrize("rope", ["longrope", "dynamic"])
def test_loss__does_not_depend_on_its_batch(rope: str) -> None:
    engine = LossEngine(make_model("llama", rope, head=True))
    prompts = make_prompts(list_lengths("llama")[1:])
    expected = np.concatenate([engine.losses([prompt]).total for prompt in prompts])
    np.testing.assert_allclose(engine.losses(prompts).total, expected, rtol=1e-5)
    sums = np.sum([engine.unit_sums([prompt])[0] for prompt in prompts], axis=0)
    np.testing.assert_allclose(engine.unit_sums(prompts)[0], sums, rtol=1e-4, atol=1e-4)


def test_length_classes__follow_the_configuration() -> None:
    assert get_length_classes(make_model("llama", "yarn").config) == ANY_LENGTHS
    assert get_length_classes(make_model("phi3", "longrope").config) == LengthClasses((ORIGINAL,))
    assert get_length_classes(make_model("gemma3", "dynamic").config) == LengthClasses(
        exact_above=POSITIONS
    )
    config = make_model("llama", "default").config
    config.rope_parameters = {"rope_type": "novel"}
    with pytest.raises(InvalidInput, match=r"rope_type\) is 'novel'"):
        get_length_classes(config)


def test_length_classes__refuse_attention_that_changes_with_length() -> None:
    with pytest.raises(InvalidInput, match=r"block_sparse.*Set attention_type to original_full"):
        get_length_classes(transformers.BigBirdConfig())
    config = transformers.BigBirdConfig(attention_type="original_full")
    assert get_length_classes(config) == ANY_LENGTHS


def test_plan_batches__never_mixes_length_classes() -> None:
    lengths = [3, 17, 16, 40, 33, 40, 5]
    assert plan_batches(lengths, 1000, LengthClasses((16,), 32)) == ((3, 5), (4,), (1,), (2, 6, 0))
