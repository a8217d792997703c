"""Modules of a run at work in its model: masks, factors, and what the model then says."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

import ulcmod_dist as um
from tests.pipeline.conftest import Ulcmod
from tests.pipeline.demo_corpus import DEMO
from ulcmod_dist.config.schema import ModelConfig, TokenizationConfig
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.forward.tokens import PromptTokenizer
from ulcmod_dist.intervene.engine import mask_units
from ulcmod_dist.intervene.masks import Mask


def test_export__masks_ablate_just_their_units(
    searched: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    words = ("--num-modules", 3, "--module", 1, "--module", 1, "--out", tmp_path, "--json")
    (row,) = ulcmod("export", searched / "run", *words).json()["rows"]
    assert (row["name"], row["modules"]) == ("K003-module-01", [1])
    assert row["share"] == pytest.approx(row["removed"] / row["parameters"])
    model = AutoModel.from_pretrained(DEMO / "model").eval()
    engine = Engine(model)
    tensors = load_file(tmp_path / "masks.safetensors")
    labels = um.open_run(searched / "run").units(3)["module"].to_numpy()
    assert {key.split("/")[0] for key in tensors} == {"K003-module-01"}
    stored = [tensors[f"K003-module-01/{part.path}"] for part in engine.units]
    mask = Mask.empty(engine.units).select(np.concatenate(stored))
    assert mask.ablated.tolist() == (labels == 1).tolist()
    rows = pq.read_table(tmp_path / "masks.parquet").to_pandas()
    assert rows["unit"].tolist() == np.flatnonzero(labels == 1).tolist()
    assert set(rows["mask"]) == {"K003-module-01"}
    assert not rows["value"].any()
    encoded = PromptTokenizer.load(
        ModelConfig(id=str(DEMO / "model")), TokenizationConfig()
    ).encode(["Add 2 and 3."])
    with mask_units(model, mask):
        ablated = engine.run(encoded).activations[0]
    assert ablated[labels == 1].max() == 0
    assert (ablated[labels != 1] > 0).mean() > 0.9


def test_mask_modules__changes_a_live_model_and_leaves_it_as_it_was(searched: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(DEMO / "model").eval()
    tokens = AutoTokenizer.from_pretrained(DEMO / "model")("Add 2 and 3.", return_tensors="pt")
    with torch.inference_mode():
        before = model(**tokens).logits
        with um.mask_modules(model, um.open_run(searched / "run"), modules=[0], num_modules=3):
            within = model(**tokens).logits
        after = model(**tokens).logits
    assert not torch.equal(before, within)
    assert torch.equal(before, after)


def test_mask_modules__takes_one_module_and_sets_it_to_its_mean(searched: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(DEMO / "model").eval()
    tokens = AutoTokenizer.from_pretrained(DEMO / "model")("Add 2 and 3.", return_tensors="pt")
    run = um.open_run(searched / "run")

    def logits(factors: dict[int, float], **options: Any) -> torch.Tensor:
        with torch.inference_mode(), um.scale_modules(model, run, factors, 3, **options):
            found: torch.Tensor = model(**tokens).logits
            return found

    for method in ("zero", "mean"):
        with torch.inference_mode(), um.mask_modules(model, run, 0, 3, method=method):
            masked = model(**tokens).logits
        assert torch.equal(masked, logits({0: 0.0}, method=method))
        plain = logits({0: 1.0}, method=method)
        assert torch.equal(plain, logits({}))
        assert not torch.equal(masked, plain)
    assert not torch.equal(logits({0: 0.0}), logits({0: 0.0}, method="mean"))


def test_scale_modules__refuses_what_is_not_the_run_s(searched: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(DEMO / "model")
    run = um.open_run(searched / "run")
    for factors, message in (({3: 0.0}, "no module 3"), ({0: math.inf}, "not a finite number")):
        with (
            pytest.raises(um.InvalidInput, match=message),
            um.scale_modules(model, run, factors, 3),
        ):
            pass
    model.model.layers[0].mlp.down_proj.weight.data[0, 0] += 1
    model.save_pretrained(tmp_path)
    other = AutoModelForCausalLM.from_pretrained(tmp_path)
    with (
        pytest.raises(um.InvalidInput, match="not that of the run") as refused,
        um.scale_modules(other, run, {0: 0.0}, 3),
    ):
        pass
    assert "\n" not in str(refused.value)
    with um.scale_modules(other, run, {0: 0.0}, 3, same_model=False):
        pass


def test_generate__is_what_the_model_says_untouched_and_scaled(
    searched: Path, ulcmod: Ulcmod
) -> None:
    words = ("--num-modules", 3, "--prompt", "Add 2 and 3.", "--tokens", 6)
    answer = ulcmod(
        "generate", searched / "run", *words, "--scale", "0=0", "--scale", "1=1", "--json"
    )
    assert answer.code == 0, answer.err
    (row,) = answer.json()["rows"]
    assert answer.json()["scale"] == {"0": 0.0, "1": 1.0}
    model = AutoModelForCausalLM.from_pretrained(DEMO / "model").eval()
    tokenizer = PromptTokenizer.load(ModelConfig(id=str(DEMO / "model")), TokenizationConfig())
    ids = torch.tensor([tokenizer.encode(["Add 2 and 3."])[0].ids])

    def complete() -> str:
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6)
        ended = [token for token in made[0, ids.shape[1] :].tolist() if token != tokenizer_end]
        return tokenizer.decode(ended)

    tokenizer_end = model.generation_config.eos_token_id
    assert row["untouched"] == complete()
    with um.mask_modules(model, um.open_run(searched / "run"), 0, 3):
        assert row["changed"] == complete()
    lines = ulcmod("generate", searched / "run", *words, "--scale", "0=0.5").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].strip() == "Add 2 and 3."


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompt", "A", "--scale", "9=0"], "There is no module 9; there are 0 to 2."),
        (["--prompt", "A", "--scale", "1=nan"], "The factor of module 1 is nan, not a finite"),
        (["--prompt", "A", "--scale", "1=much"], "--scale '1=much' is not of the form"),
        (["--prompt", "A", "--scale", "1=0", "--scale", "1=2"], "names module 1 twice"),
        (["--prompt", "A"], "No module is scaled."),
        (["--prompt", "A", "--scale", "1=0", "--temperature", "0.001"], "The temperature is 0.001"),
        (["--scale", "1=0"], "There is no prompt to complete."),
        (["--scale", "1=0", "--prompts", "gone.csv"], "gone.csv"),
    ],
)
def test_generate__refuses_bad_words_in_one_line(
    searched: Path, ulcmod: Ulcmod, words: list[str], message: str
) -> None:
    answer = ulcmod("generate", searched / "run", "--num-modules", 3, *words)
    assert answer.code == 2
    assert message in " ".join(answer.err.split())
