"""The ablation engine on tiny decoders: what is ablated, and what it costs."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from tests.forward.tiny import SPARSE, make_prompts, save_tiny, tiny_model
from tests.intervene.shared_models import measure_ablation
from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import InvalidInput, UlcmodError
from ulcmod_dist.forward.batches import TokenizedPrompt, plan_batches
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.forward.hooks import HookPoint, find_hook_points, get_base_model, hooked
from ulcmod_dist.forward.units import list_units
from ulcmod_dist.intervene.ablation import compute_unit_means
from ulcmod_dist.intervene.engine import (
    LossEngine,
    PairedPrompt,
    align_tokens,
    estimate_pruned_size,
    mask_units,
)
from ulcmod_dist.intervene.masks import Mask, get_unit_layers

LENGTHS = [2, 31, 7, 12]


def mask_of(model: PreTrainedModel, ablated: NDArray[np.bool_]) -> Mask:
    return Mask(list_units(model.config), ablated, np.zeros(len(ablated), np.float32))


def nothing_of(model: PreTrainedModel) -> Mask:
    return mask_of(model, np.zeros(len(get_unit_layers(list_units(model.config))), np.bool_))


def some_of(model: PreTrainedModel, seed: int = 0) -> Mask:
    count = len(get_unit_layers(list_units(model.config)))
    return mask_of(model, np.random.default_rng(seed).random(count) < 0.4)


def test_losses__of_a_batch_equal_those_alone(model: PreTrainedModel) -> None:
    engine, prompts = LossEngine(model), make_prompts(LENGTHS)
    for mask in (None, some_of(model)):
        together = engine.losses(prompts, mask)
        alone = [engine.losses([prompt], mask).total[0] for prompt in prompts]
        np.testing.assert_allclose(together.total, alone, rtol=1e-5)
        assert together.tokens.tolist() == [length - 1 for length in LENGTHS]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_losses__a_batch_that_does_not_fit_is_halved(most: int) -> None:
    model: Any = tiny_model("llama", head=True)
    engine, prompts, mask = LossEngine(model), make_prompts(LENGTHS), some_of(model)
    whole = engine.losses(prompts, mask)
    model.register_forward_pre_hook(partial(_out_of_memory, most), with_kwargs=True)
    halved = engine.losses(prompts, mask)
    np.testing.assert_allclose(halved.total, whole.total, rtol=1e-5)
    assert halved.tokens.tolist() == whole.tokens.tolist()


def test_losses__a_prompt_that_does_not_fit_alone_is_named() -> None:
    model: Any = tiny_model("llama", head=True)
    model.register_forward_pre_hook(partial(_out_of_memory, 0), with_kwargs=True)
    with pytest.raises(UlcmodError, match="A batch of 1 prompts of up to 31 tokens does not fit"):
        LossEngine(model).losses(make_prompts([31]))


def _out_of_memory(most: int, _: Any, __: Any, words: dict[str, Any]) -> None:
    if len(words["input_ids"]) > most:
        raise torch.OutOfMemoryError


def test_losses__are_those_that_the_library_computes(model: PreTrainedModel) -> None:
    [prompt] = make_prompts([23])
    ids = torch.tensor([prompt.ids])
    with torch.inference_mode():
        expected = model(input_ids=ids, labels=ids, output_router_logits=False).loss.item()
    assert LossEngine(model).losses([prompt]).mean[0] == pytest.approx(expected, rel=1e-5)


def test_ablate__no_unit_changes_no_loss(model: PreTrainedModel) -> None:
    prompts = make_prompts(LENGTHS)
    result = measure_ablation(LossEngine(model), prompts, [[0, 1], [2, 3]], [nothing_of(model)])
    assert np.array_equal(result.loss_increase, np.zeros((1, len(prompts))))


def test_masked_units__are_captured_as_zero_and_the_model_is_left_as_it_was(
    model: PreTrainedModel,
) -> None:
    engine, mask, prompts = Engine(get_base_model(model)), some_of(model), make_prompts(LENGTHS)
    before = engine.run(prompts)
    with mask_units(model, mask):
        rows = engine.run(prompts)
    assert np.all(rows.activations[:, mask.ablated] == 0)
    first_layer = (get_unit_layers(mask.units) == 0) & ~mask.ablated
    np.testing.assert_allclose(
        rows.activations[:, first_layer], before.activations[:, first_layer], rtol=1e-5, atol=1e-7
    )
    assert not np.array_equal(
        rows.activations[:, ~mask.ablated], before.activations[:, ~mask.ablated]
    )
    assert engine.run(prompts).activations.tobytes() == before.activations.tobytes()


def answered(prompts: list[TokenizedPrompt], answer: int) -> list[TokenizedPrompt]:
    """Prompts of which the last tokens are an answer."""
    return [
        replace(
            p,
            token_mask=(True,) * (len(p.ids) - answer) + (False,) * answer,
            num_answer=answer,
        )
        for p in prompts
    ]


def test_measure_ablation__answers_are_measured_beside_the_prompts(model: PreTrainedModel) -> None:
    engine, prompts, masks = LossEngine(model), make_prompts([9, 14, 7]), [some_of(model)]
    whole = measure_ablation(engine, prompts, [[0, 1, 2]], masks)
    assert whole.answer is None
    parts = measure_ablation(engine, answered(prompts, 3), [[0, 1], [2]], masks)
    bare = [replace(p, ids=p.ids[:-3], token_mask=p.token_mask[:-3]) for p in prompts]
    alone = measure_ablation(engine, bare, [[0, 1, 2]], masks)
    np.testing.assert_allclose(parts.loss, alone.loss, rtol=1e-4)
    assert parts.answer is not None
    # Every token but the first is of the prompt or of the answer.
    tokens = np.array([len(p.ids) - 1 for p in prompts])
    np.testing.assert_allclose(
        parts.loss * (tokens - 3) + parts.answer.loss * 3, whole.loss * tokens, rtol=1e-4
    )
    np.testing.assert_allclose(
        parts.accuracy * (tokens - 3) + parts.answer.accuracy * 3, whole.accuracy * tokens
    )
    mixed = measure_ablation(engine, [*answered(prompts[:1], 3), *prompts[1:]], [[0, 1, 2]], masks)
    assert mixed.answer is not None
    assert np.isfinite(mixed.answer.loss).all(axis=0).tolist() == [True, False, False]


class Silent(torch.nn.Module):
    """An MLP that is not there."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(hidden)


@pytest.mark.parametrize("family", ["llama", "qwen2", "mixtral", "qwen2_moe", "deepseek_v3"])
def test_ablate__a_whole_layer_is_the_model_without_that_mlp(family: str) -> None:
    model: Any = tiny_model(family, head=True)
    mask = nothing_of(model)
    mask.ablated[get_unit_layers(mask.units) == 1] = True
    prompts = make_prompts(LENGTHS)
    ablated = LossEngine(model).losses(prompts, mask).total
    model.model.layers[1].mlp = Silent()
    ids = [torch.tensor([prompt.ids]) for prompt in prompts]
    with torch.inference_mode():
        expected = [model(input_ids=i, labels=i).loss.item() * (i.shape[1] - 1) for i in ids]
    np.testing.assert_allclose(ablated, expected, rtol=1e-5)


def test_ablate__order_of_samples_and_masks_is_kept() -> None:
    model = tiny_model("llama", head=True)
    engine, prompts, masks = (
        LossEngine(model),
        make_prompts(LENGTHS),
        [some_of(model, s) for s in (1, 2)],
    )
    result = measure_ablation(engine, prompts, plan_batches(LENGTHS, 40), masks)
    for row, accuracy, mask in zip(result.loss, result.accuracy, [None, *masks], strict=True):
        alone = engine.losses(prompts, mask)
        np.testing.assert_allclose(row, alone.mean, rtol=1e-5)
        np.testing.assert_allclose(accuracy, alone.accuracy)


def test_losses__only_counted_tokens_are_predicted() -> None:
    engine = LossEngine(tiny_model("llama", head=True))
    [prompt] = make_prompts([6])
    parts = [
        TokenizedPrompt(prompt.ids, tuple(token < 3 for token in range(6))),
        TokenizedPrompt(prompt.ids, tuple(token >= 3 for token in range(6))),
    ]
    losses = engine.losses(parts)
    assert losses.tokens.tolist() == [2, 3]
    assert losses.total.sum() == pytest.approx(engine.losses([prompt]).total[0], rel=1e-6)


def test_losses__a_prompt_without_a_predicted_token_has_none() -> None:
    engine = LossEngine(tiny_model("llama", head=True))
    assert np.isnan(engine.losses(make_prompts([1, 4])).mean).tolist() == [True, False]


@pytest.mark.parametrize("family", ["llama", "gpt2", *SPARSE])
def test_mask__units_held_at_their_mean(family: str) -> None:
    model = tiny_model(family, head=True)
    engine, prompts = LossEngine(model), make_prompts(LENGTHS)
    means = compute_unit_means(engine, prompts, [[0, 1], [2, 3]])
    np.testing.assert_allclose(
        means, compute_unit_means(engine, prompts, [[0, 1, 2, 3]]), rtol=1e-4, atol=1e-6
    )
    mask = some_of(model).with_means(means)
    with mask_units(model, mask):
        held = compute_unit_means(engine, prompts, [[0, 1, 2, 3]])
    seen = mask.ablated & (held != 0)
    assert seen.any()
    np.testing.assert_allclose(held[seen], means[seen], rtol=1e-5)


def test_unit_means__keep_signs_and_leave_padding_out() -> None:
    model: Any = tiny_model("llama", head=True)
    [prompt] = make_prompts([9])
    seen: list[torch.Tensor] = []
    down = model.model.layers[1].mlp.down_proj
    handle = down.register_forward_pre_hook(lambda _module, args: seen.append(args[0][0]))
    with torch.inference_mode():
        model(input_ids=torch.tensor([prompt.ids]))
    handle.remove()
    counted = TokenizedPrompt(prompt.ids, (False, *(True,) * 8))
    other = TokenizedPrompt(make_prompts([30])[0].ids, (True,) * 30)
    sums, tokens = LossEngine(model).unit_sums([counted, other])
    assert set(tokens) == {38}
    alone = LossEngine(model).unit_sums([other])[0]
    np.testing.assert_allclose((sums - alone)[24:], seen[0][1:].sum(0), rtol=1e-3, atol=1e-5)


def test_mask_units__works_while_generating() -> None:
    model: Any = tiny_model("llama", head=True)
    ids = torch.tensor([make_prompts([5])[0].ids])
    settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    plain = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    mask = nothing_of(model)
    mask.ablated[:] = True
    with mask_units(model, mask):
        masked = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    assert masked.shape == plain.shape
    assert not torch.equal(masked, plain)


def test_mask_units__a_mask_of_another_model_is_refused() -> None:
    mask = nothing_of(tiny_model("llama"))
    model = tiny_model("mixtral")
    with pytest.raises(InvalidInput, match="48 units in 2 parts"), mask_units(model, mask):
        pass


def test_load__a_saved_decoder_with_its_head(tmp_path: Path) -> None:
    tiny_model("llama", head=True).save_pretrained(tmp_path)
    prompts = make_prompts(LENGTHS)
    loaded = LossEngine.load(ModelConfig(id=str(tmp_path))).losses(prompts)
    direct = LossEngine(tiny_model("llama", head=True)).losses(prompts)
    np.testing.assert_allclose(loaded.total, direct.total, rtol=1e-6)


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_load__an_encoder_has_no_loss(family: str, tmp_path: Path) -> None:
    spec = ModelConfig(id=str(save_tiny(tmp_path, family)))
    with pytest.raises(InvalidInput, match=f"type {family} are encoders without a head"):
        LossEngine.load(spec)


def test_load__a_decoder_saved_without_its_head_is_refused(tmp_path: Path) -> None:
    spec = ModelConfig(id=str(save_tiny(tmp_path, "llama")))
    with pytest.raises(InvalidInput, match=r"lacks 1 of the model's weights, such as lm_head"):
        LossEngine.load(spec)


def test_pruned_size__counts_the_weights_of_the_ablated_units() -> None:
    for family, vectors in (("llama", 3), ("gpt2", 2), ("mixtral", 3), ("t5", 2), ("opt", 2)):
        model = tiny_model(family)
        size = estimate_pruned_size(model.config, some_of(model))
        assert size.removed == some_of(model).num_units * vectors * 16
        assert size.parameters == sum(parameter.numel() for parameter in model.parameters())
        assert 0 < size.share < 1


def pair(prompt: TokenizedPrompt, source: TokenizedPrompt) -> PairedPrompt:
    return PairedPrompt(prompt.ids, prompt.token_mask, source=source)


def test_align_tokens__counted_tokens_stand_for_counted_tokens() -> None:
    # A template of two tokens before the text and one after it, around texts of 4 and of 3 tokens.
    prompt = TokenizedPrompt(tuple(range(7)), (False, False, *(True,) * 4, False))
    source = TokenizedPrompt(tuple(range(6)), (False, False, *(True,) * 3, False))
    assert align_tokens(prompt, source).tolist() == [0, 1, 2, 3, 4, 2, 5]
    assert align_tokens(source, prompt).tolist() == [0, 1, 2, 3, 4, 6]
    assert align_tokens(prompt, prompt).tolist() == list(range(7))
    plain = TokenizedPrompt((1, 2), (True, True))
    assert align_tokens(prompt, plain).tolist() == [0, 1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_losses__of_resampled_units_equal_a_pass_with_the_source_s_values(family: str) -> None:
    model: Any = tiny_model(family, head=True)
    prompt, source = make_prompts([9, 6])
    mask = replace(some_of(model), resampled=True)
    points = find_hook_points(mask.units)
    seen: dict[HookPoint, torch.Tensor] = {}
    ids = {name: torch.tensor([each.ids]) for name, each in (("own", prompt), ("other", source))}
    with (
        torch.inference_mode(),
        hooked(model, points, lambda point, units, _: seen.update({point: units[0].clone()})),
    ):
        model(input_ids=ids["other"])

    def replace_units(point: HookPoint, units: torch.Tensor, _: Any) -> torch.Tensor:
        changed = units.clone()
        for token in range(9):
            for unit in np.flatnonzero(mask.ablated[point.start : point.stop]):
                changed[0, token, unit] = seen[point][token % 6, unit]
        return changed

    with torch.inference_mode(), hooked(model, points, replace_units):
        logits = model(input_ids=ids["own"]).logits[0]
    right, total = 0, 0.0
    for token in range(8):
        target = prompt.ids[token + 1]
        total -= float(torch.log_softmax(logits[token].double(), -1)[target])
        right += int(logits[token].argmax()) == target
    found = LossEngine(model).losses([pair(prompt, source)], mask)
    assert found.total[0] == pytest.approx(total, rel=1e-5)
    assert found.correct.tolist() == [right]
    assert found.accuracy[0] == right / 8
    assert found.total[0] != pytest.approx(LossEngine(model).losses([prompt]).total[0], rel=1e-4)


def test_losses__resampled_units_of_a_prompt_by_itself_change_nothing(
    model: PreTrainedModel,
) -> None:
    engine, mask = LossEngine(model), replace(some_of(model), resampled=True)
    prompts = make_prompts(LENGTHS)
    same = engine.losses([pair(prompt, prompt) for prompt in prompts], mask)
    np.testing.assert_allclose(same.total, engine.losses(prompts).total, rtol=1e-4)


def test_losses__resampled_units_do_not_depend_on_the_batch(model: PreTrainedModel) -> None:
    engine, mask = LossEngine(model), replace(some_of(model), resampled=True)
    prompts = make_prompts(LENGTHS)
    pairs = [pair(prompt, prompts[position - 1]) for position, prompt in enumerate(prompts)]
    together = engine.losses(pairs, mask)
    alone = [engine.losses([each], mask).total[0] for each in pairs]
    np.testing.assert_allclose(together.total, alone, rtol=1e-5)


def test_losses__accuracy_is_the_share_of_tokens_predicted_right(model: PreTrainedModel) -> None:
    # The model's own choices are its right answers.
    [prompt] = make_prompts([12])
    with torch.inference_mode():
        chosen = model(input_ids=torch.tensor([prompt.ids])).logits[0].argmax(-1).tolist()
    engine = LossEngine(model)
    expected = [chosen[token] == prompt.ids[token + 1] for token in range(11)]
    greedy = TokenizedPrompt((*prompt.ids, chosen[-1]), (*(False,) * 12, True))
    assert engine.losses([prompt]).correct[0] == sum(expected)
    assert engine.losses([greedy]).accuracy.tolist() == [1.0]
