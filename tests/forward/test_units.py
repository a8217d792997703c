"""Units are found from the computation of any architecture, and never in part."""

from pathlib import Path

import numpy as np
import pytest
from transformers import GPT2Config, LlamaConfig

from tests.forward.shrunk import build_shrunk, shrink_config
from tests.forward.tiny import make_prompts, save_tiny, tiny_config
from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward import trace
from ulcmod_dist.forward.architectures import LayerUnits, count_units, is_decoder
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.forward.loading import get_model_provenance
from ulcmod_dist.forward.units import find_units, get_layout, list_units
from ulcmod_dist.intervene.engine import LossEngine
from ulcmod_dist.intervene.masks import Mask

EXPERTS = {"layers.1.mlp.experts"}
FOUND = {
    "apertus": "layers.{}.mlp.down_proj",
    "bamba": "layers.{}.feed_forward.down_proj",
    "biogpt": "layers.{}.fc2",
    "cohere2": "layers.{}.mlp.down_proj",
    "ctrl": "h.{}.ffn.{}",
    "deberta-v2": "encoder.layer.{}.output.dense",
    "distilbert": "transformer.layer.{}.ffn.lin2",
    "ernie4_5": "layers.{}.mlp.down_proj",
    "exaone4": "layers.{}.mlp.down_proj",
    "gemma3n_text": "layers.{}.mlp.down_proj",
    "gemma4_text": "layers.{}.mlp.down_proj",
    "glm4": "layers.{}.mlp.down_proj",
    "gpt_bigcode": "h.{}.mlp.c_proj",
    "gptj": "h.{}.mlp.fc_out",
    "granitemoehybrid": "layers.{}.block_sparse_moe.experts layers.{}.shared_mlp.output_linear",
    "hunyuan_v1_dense": "layers.{}.mlp.down_proj",
    "jamba": "layers.{}.feed_forward.down_proj layers.{}.feed_forward.experts",
    "lfm2": "layers.{}.feed_forward.w2",
    "llama4_text": (
        "layers.{}.feed_forward.experts layers.{}.feed_forward.shared_expert.down_proj"
    ),
    "mistral3": "language_model.layers.{}.mlp.down_proj",
    "modernbert": "layers.{}.mlp.Wo",
    "mpt": "blocks.{}.ffn.down_proj",
    "nemotron": "layers.{}.mlp.down_proj",
    "nemotron_h": (
        "layers.{}.mixer.experts layers.{}.mixer.shared_experts.down_proj layers.{}.mixer.down_proj"
    ),
    "olmo2": "layers.{}.mlp.down_proj",
    "phi": "layers.{}.mlp.fc2",
    "qwen3_next": "layers.{}.mlp.experts layers.{}.mlp.shared_expert.down_proj",
    "qwen3_vl": "language_model.layers.{}.mlp.down_proj",
    "roberta": "encoder.layer.{}.output.dense",
    "smollm3": "layers.{}.mlp.down_proj",
    "stablelm": "layers.{}.mlp.down_proj",
    "starcoder2": "layers.{}.mlp.c_proj",
}


def templates(units: tuple[LayerUnits, ...]) -> str:
    paths = (part.path.split(".") for part in units)
    names = (".".join("{}" if part.isdigit() else part for part in path) for path in paths)
    return " ".join(dict.fromkeys(names))


@pytest.mark.parametrize("model_type", FOUND)
def test_units__of_an_architecture_are_found_and_its_rows_stand_alone(model_type: str) -> None:
    config = shrink_config(model_type)
    engine = Engine(build_shrunk(config))
    assert templates(engine.units) == FOUND[model_type]
    prompts = make_prompts([2, 31, 7, 12])
    alone = np.concatenate([engine.run([prompt]).activations for prompt in prompts])
    for order in (1, -1):
        together = engine.run(prompts[::order]).activations[::order]
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5 * np.abs(alone).max())
    engine.check_independence()


@pytest.mark.parametrize("model_type", [name for name in FOUND if is_decoder(name)][::3])
def test_units__of_an_architecture_can_be_ablated(model_type: str) -> None:
    engine = LossEngine(build_shrunk(shrink_config(model_type), head=True))
    prompts, mask = make_prompts([31, 7]), Mask.empty(engine.units)
    intact = engine.losses(prompts).total
    mask.ablated[: count_units(engine.units[:1])] = True
    assert np.abs(engine.losses(prompts, mask).total - intact).max() > 1e-3
    assert engine.losses(prompts).total == pytest.approx(intact, rel=1e-6)


def test_units__of_every_layer_are_found_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    config = shrink_config("gemma3n_text")
    assert find_units(config).layers_without_mlp == ()
    # As if the operation that some of its layers have in their MLP were not known.
    monkeypatch.setattr(trace, "_STATISTICS", frozenset({"Mean", "Rsqrt"}))
    config.vocab_size += 1  # another model, so that nothing is remembered
    with pytest.raises(InvalidInput, match=r"0\.mlp\.down_proj has the place .* through Std"):
        find_units(config)


def test_units__layers_without_an_mlp_are_named() -> None:
    layout = find_units(shrink_config("nemotron_h"))
    assert layout.layers_without_mlp
    layers = {part.layer for part in layout.units}
    assert layers.isdisjoint(layout.layers_without_mlp)


def test_units__of_a_model_of_70_billion_weights_need_no_memory() -> None:
    config = LlamaConfig(hidden_size=8192, intermediate_size=28672, num_hidden_layers=80)
    assert count_units(list_units(config)) == 80 * 28672


def test_units__weight_vectors_tell_a_gated_mlp_from_a_plain_one() -> None:
    gated, plain = find_units(LlamaConfig()), find_units(GPT2Config())
    assert set(gated.vectors.values()) == {3}
    assert set(plain.vectors.values()) == {2}


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("mamba", r"no layer has .* feeds\. Name .* layers\.\{\}\.mixer\.out_proj"),
        ("albert", r"is called 4 times in a forward pass, not once"),
        ("longcat_flash", r"mlp\.experts\.gate_up_proj stacks matrices .* as experts do"),
        ("cpmant", r"gets 36 tokens of a prompt of 4"),
        ("blip", r"a forward pass without weights fails \(You have to specify pixel_values\)"),
        ("bart", r"encoder-decoders, whose encoder transformers cannot load alone"),
        ("emu3", r"transformers cannot build a model of type 'emu3'"),
    ],
)
def test_units__that_hooks_would_miss_are_refused(model_type: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        find_units(shrink_config(model_type))


@pytest.mark.parametrize(
    ("model_type", "precise"),
    [("convbert", False), ("fnet", True), ("nystromformer", True), ("paligemma", False)],
)
def test_rows__that_depend_on_their_batch_are_refused(model_type: str, precise: bool) -> None:
    model = build_shrunk(shrink_config(model_type))
    engine = Engine(model if precise else model.bfloat16())
    with pytest.raises(InvalidInput, match=r"depends on its batch: .* activations differ by"):
        engine.check_independence()


def test_units__may_be_named_by_the_job(tmp_path: Path) -> None:
    folder = str(save_tiny(tmp_path))
    named = ModelConfig(id=folder, units=("layers.{}.self_attn.o_proj",))
    engine = Engine.load(named)
    assert templates(engine.units) == "layers.{}.self_attn.o_proj"
    assert engine.run(make_prompts([5])).activations.shape == (1, 2 * 16)
    assert "units" not in get_model_provenance(ModelConfig(id=folder))
    assert get_model_provenance(named)["units"] == "layers.{}.self_attn.o_proj"


def test_units__a_name_without_a_match_lists_the_candidates() -> None:
    with pytest.raises(
        InvalidInput, match=r"'layers\.\{\}\.ffn'.*: .*layers\.\{\}\.mlp\.down_proj \(24\)"
    ):
        find_units(tiny_config("llama"), ["layers.{}.ffn"])


def test_layout__of_a_mask_must_be_that_of_the_model() -> None:
    config = tiny_config("llama")
    units = list_units(config, ["layers.{}.self_attn.o_proj"])
    assert get_layout(config, units).units == units
    with pytest.raises(InvalidInput, match="differ from those of this model"):
        get_layout(config, units[:1])
