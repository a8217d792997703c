"""Tokens, completions and descriptions of modules, on tiny models."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from tests.forward.tiny import CHATML, make_prompts, tiny_config, tiny_model, tiny_tokenizer
from ulcmod_dist.config.schema import ExplainConfig, Statistic, TokenizationConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.forward.tokens import PromptTokenizer
from ulcmod_dist.intervene.explain import (
    ModuleSamples,
    Sample,
    describe_modules,
    explain_modules,
)
from ulcmod_dist.intervene.generate import Sampling, SteeringEngine, TokenReading
from ulcmod_dist.intervene.masks import Mask
from ulcmod_dist.results.explanation import Explanation
from ulcmod_dist.results.serialize import from_json, to_json
from ulcmod_dist.results.types import Absent

WORDS = ["Über 3 Äpfel 🍏 reden", "def f(x):\n    return x", "plain"]


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "qwen2_moe"])
@pytest.mark.parametrize("statistic", ["activation", "attribution"])
def test_read_tokens__their_mean_is_the_z_of_the_row(family: str, statistic: Statistic) -> None:
    model, prompts = tiny_model(family, head=True), make_prompts([5, 17])
    rows = Engine(model, statistic=statistic).run(prompts).activations
    generator, count = np.random.default_rng(0), int(rows.shape[1])
    labels, margins = generator.integers(0, 3, count), generator.random(count)
    mean, std = generator.random(count), 0.1 + generator.random(count)
    engine, z = SteeringEngine(model), (rows - mean) / std
    reading = TokenReading(engine.units, labels, margins, mean, std, statistic)
    for prompt, row in zip(prompts, z, strict=True):
        values = engine.read_tokens(prompt, reading)
        assert values.shape == (len(prompt.ids), 3 + 15)
        modules = [row[labels == module].mean() for module in range(3)]
        expected = [*modules, *row[reading.units]]
        np.testing.assert_allclose(values.mean(0), expected, rtol=1e-4, atol=1e-4)


def test_complete__is_greedy_or_drawn_by_the_seed_and_ends_where_the_model_ends() -> None:
    model: Any = tiny_model("llama", head=True)
    engine, (prompt, _) = SteeringEngine(model), make_prompts([5, 9])
    greedy = engine.complete(prompt, Sampling(8))
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt.ids, *greedy]])).logits[0]
    assert tuple(logits[4 : 4 + len(greedy)].argmax(-1).tolist()) == greedy
    drawn = [engine.complete(prompt, Sampling(8, 2.0, seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert engine.complete(prompt, Sampling(8, 2.0, 1), Mask.empty(engine.units)) == drawn[0]
    # Whatever token comes first, a model that ends with it says nothing.
    model.generation_config.eos_token_id = [greedy[0]]
    assert engine.complete(prompt, Sampling(8)) == ()


def test_complete__refuses_what_does_not_fit_or_has_no_scores() -> None:
    model: Any = tiny_model("llama", head=True)
    engine = SteeringEngine(model)
    with pytest.raises(InvalidInput, match="60 tokens and a completion of 5 exceed the 64 posit"):
        engine.complete(make_prompts([60])[0], Sampling(5))
    model.model.layers[0].mlp.down_proj.weight.data *= 1e3
    huge = Mask.scaling(engine.units, np.zeros(48, np.int32), {0: 3e38})
    with pytest.raises(InvalidInput, match="scores of the next token are not numbers"):
        engine.complete(make_prompts([5])[0], Sampling(5), huge)


class LocalPool:
    """What explains modules, with one engine in this process."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def map(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        return (function(self.engine, *args) for args in calls)


def make_tokenizer(tokens: Any = "prompt") -> PromptTokenizer:
    config = tiny_config("llama", max_position_embeddings=512)
    options = TokenizationConfig(tokens=tokens, system=None)
    return PromptTokenizer(tiny_tokenizer(CHATML), config, options)


def explain(config: ExplainConfig) -> Explanation:
    engine = SteeringEngine(tiny_model("llama", head=True, max_position_embeddings=512))
    samples = [Sample(f"s{row}", text, text) for row, text in enumerate(WORDS)]
    given = [ModuleSamples(samples, samples[:2]), ModuleSamples(samples[1:], samples[2:])]
    labels, margins = np.arange(48) % 3, np.linspace(0, 1, 48)
    reading = TokenReading(engine.units, labels, margins, np.zeros(48), np.ones(48))
    pool: Any = LocalPool(engine)
    everything = [*given, ModuleSamples([], [])]
    modules = explain_modules(pool, make_tokenizer(), reading, everything, config)
    return Explanation(3, modules)


def test_explain__tokens_join_to_the_prompt_and_no_character_is_cut() -> None:
    found = explain(ExplainConfig(tokens=4))
    assert to_json(from_json(to_json(found), Explanation)) == to_json(found)
    first, second, third = found.modules
    assert not isinstance(first.prompts, Absent)
    assert ["".join(prompt.tokens) for prompt in first.prompts] == WORDS
    assert "🍏" in first.prompts[0].tokens
    assert all(len(prompt.tokens) == len(prompt.values) for prompt in first.prompts)
    assert not isinstance(first.tokens, Absent)
    values = [token.value for token in first.tokens]
    assert values == sorted(values, reverse=True)
    assert values[0] == max(prompt.values.max() for prompt in first.prompts)
    assert [unit.name for unit in first.units][:2] == ["layer 1 unit 21", "layer 1 unit 18"]
    assert not isinstance(second.completions, Absent)
    assert [done.sample_id for done in second.completions] == ["s2"]
    assert isinstance(third.prompts, Absent)
    assert isinstance(third.completions, Absent)
    assert all(
        isinstance(m.completions, Absent) for m in explain(ExplainConfig(completions=0)).modules
    )


def test_describe__a_line_is_scored_by_the_answers_to_held_out_prompts() -> None:
    tokenizer = make_tokenizer("all")

    class Describer(LocalPool):
        def map(self, function: Any, calls: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
            texts = [tokenizer.decode(call[0].ids) for call in calls]
            if function is SteeringEngine.log_odds:
                return iter([1.0 if "owl" in text else -1.0 for text in texts])
            assert "- owl 1" in texts[0]
            return iter([tuple(tokenizer.encode_words(text)) for text in ("\n birds \n more", "")])

    def samples(*texts: str) -> list[Sample]:
        return [Sample(text, text, text) for text in texts]

    pool: Any = Describer(None)
    given = [
        ModuleSamples(samples("owl 1", "owl 2"), samples("owl 3", "hen")),
        ModuleSamples(samples("car"), samples("bus", "owl bus")),
    ]
    birds, other = describe_modules(pool, tokenizer, given)
    # Of four pairs of a prompt of the module and another, one is right, one wrong, two are even.
    assert (birds.text, birds.auc, birds.num_own, birds.num_other) == ("birds", 0.5, 2, 2)
    assert other.text == ""
    alone = [given[0], ModuleSamples(samples("car"), [])]
    assert [line.auc for line in describe_modules(pool, tokenizer, alone)] == [None, None]


def test_log_odds__compare_two_tokens_after_the_last() -> None:
    model: Any = tiny_model("llama", head=True)
    (prompt,) = make_prompts([7])
    with torch.inference_mode():
        shares = model(torch.tensor([prompt.ids])).logits[0, -1].double().softmax(-1)
    odds = SteeringEngine(model).log_odds(prompt, 10, 20)
    assert odds == pytest.approx(float((shares[10] / shares[20]).log()))
