"""The demo's model as committed: it loads as people load models, and is what its card says."""

import json
import re
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)

from jobs.demo.corpus import CATEGORIES
from jobs.demo.train_model import (
    CONTEXT,
    Settings,
    batches,
    build_model,
    encode,
    gather,
    held_out_loss,
    train,
    train_tokenizer,
)
from jobs.demo.write_corpus import HERE

MODEL = HERE / "model"
SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
USER = {"role": "user", "content": "What is 2 + 3?"}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    loaded = AutoModelForCausalLM.from_pretrained(
        MODEL, use_safetensors=True, local_files_only=True, trust_remote_code=False
    )
    assert isinstance(loaded, Qwen2ForCausalLM)
    return loaded


@pytest.fixture(scope="module")
def tokenizer() -> Qwen2Tokenizer:
    loaded = AutoTokenizer.from_pretrained(MODEL, local_files_only=True, trust_remote_code=False)
    assert type(loaded) is Qwen2Tokenizer
    return loaded


def test_model__has_the_stated_shape(model: Qwen2ForCausalLM) -> None:
    settings = Settings()
    assert type(model) is Qwen2ForCausalLM
    assert len(model.model.layers) == settings.layers
    assert {layer.mlp.down_proj.in_features for layer in model.model.layers} == {settings.units}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.max_position_embeddings == CONTEXT
    assert model.generation_config.eos_token_id == 2


def test_tokenizer__special_tokens_and_limits(tokenizer: Qwen2Tokenizer) -> None:
    names = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    assert tokenizer.convert_tokens_to_ids(names) == [0, 1, 2]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 2)
    assert tokenizer.model_max_length == CONTEXT
    assert len(tokenizer) == Settings().vocabulary


@pytest.mark.parametrize(
    "text", ["Straße, señor, où? 12345", "def f(x):\n\treturn x  # 3", "日本語 🙂", ""]
)
def test_tokenizer__gives_any_text_back(tokenizer: Qwen2Tokenizer, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert not set(ids) & {0, 1, 2}


def test_template__renders_qwen_markup(tokenizer: Qwen2Tokenizer) -> None:
    shown = tokenizer.apply_chat_template(
        [SYSTEM, USER], tokenize=False, add_generation_prompt=True
    )
    assert shown == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_template__adds_no_system_message_of_its_own(tokenizer: Qwen2Tokenizer) -> None:
    shown = tokenizer.apply_chat_template([USER], tokenize=False, add_generation_prompt=False)
    assert shown == "<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n"


def test_folder__is_small_and_names_no_machine() -> None:
    files = {path.name: path for path in MODEL.iterdir()}
    assert set(files) == {
        "README.md", "chat_template.jinja", "config.json", "generation_config.json",
        "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert files["model.safetensors"].stat().st_size < 6_000_000
    assert sum(path.stat().st_size for path in files.values()) < 7_000_000
    for name, path in files.items():
        if path.suffix != ".safetensors":
            assert not re.search(r"/(home|root|work|tmp|Users)\b", path.read_text("utf-8")), name
    assert "_name_or_path" not in json.loads(files["config.json"].read_text())


def test_model__has_learned_the_held_out_text(
    model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer
) -> None:
    text = gather(Settings(extra=0))
    assert set(text.held_out) == set(CATEGORIES)
    for category, pairs in text.held_out.items():
        documents = encode(tokenizer, pairs[:10], np.random.default_rng(0))
        assert held_out_loss(model, documents) < 3.0, category


def test_batches__hold_every_document_once_within_the_limit() -> None:
    rng = np.random.default_rng(0)
    documents = [torch.full((int(n),), i + 1) for i, n in enumerate(rng.integers(1, 60, 200))]
    seen = list(batches(documents, 256, rng))
    assert all(batch.numel() <= 256 for batch in seen)
    kept = [int(row[0]) for batch in seen for row in batch]
    assert sorted(kept) == list(range(1, 201))


def test_training__same_seed_same_weights_and_a_falling_loss(
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = Settings(vocabulary=320, hidden=16, units=32, layers=1, extra=0, epochs=1)
    text = gather(settings)
    pairs = text.train[::10]
    weights = []
    for _ in range(2):
        rng = np.random.default_rng(settings.seed)
        documents = encode(train_tokenizer(pairs, settings.vocabulary), pairs, rng)
        model = build_model(settings)
        before = held_out_loss(model, documents)
        train(model, documents, settings, rng)
        assert held_out_loss(model, documents) < before
        weights.append(model.model.embed_tokens.weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert "loss" in capsys.readouterr().out
