import datetime
from pathlib import Path
from typing import Any

import pytest
from transformers import BloomConfig

from tests.forward.tiny import CHATML, NO_SYSTEM, save_tiny, tiny_config, tiny_tokenizer
from ulcmod_dist.config.schema import ModelConfig, TokenizationConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.batches import RefusedPrompt
from ulcmod_dist.forward.tokens import PromptTokenizer

SYSTEM = "You are a helpful assistant."


def encoder(
    template: str | None = CHATML, positions: int = 512, model_max_length: int = 10**30, **rule: Any
) -> PromptTokenizer:
    tokenizer = tiny_tokenizer(template, model_max_length=model_max_length)
    config = tiny_config("llama", max_position_embeddings=positions)
    return PromptTokenizer(tokenizer, config, TokenizationConfig(**rule))


def decode_tokens(encoded: Any, only_counted: bool = False) -> str:
    pairs = zip(encoded.ids, encoded.token_mask, strict=True)
    return str(
        tiny_tokenizer().decode([token for token, counted in pairs if counted or not only_counted])
    )


def test_encode__system_user_and_generation_prompt_with_one_bos() -> None:
    [encoded] = encoder().encode(["Hi"])
    assert decode_tokens(encoded) == f"<s><|system|>{SYSTEM}</s><|user|>Hi</s><|assistant|>"
    assert encoded.token_mask == (True,) * len(encoded.ids)


def test_encode__a_template_that_refuses_a_system_message_gets_none() -> None:
    subject = encoder(NO_SYSTEM)
    [encoded] = subject.encode(["Hi"])
    assert decode_tokens(encoded) == "<s><|user|>Hi</s><|assistant|>"
    assert subject.provenance["system"] == "refused"


def test_encode__a_template_that_ignores_a_system_message_is_recorded() -> None:
    only_user = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"
    assert encoder(only_user).provenance["system"] == "ignored"


def test_encode__no_system_message_when_the_rule_has_none() -> None:
    subject = encoder(system=None)
    assert decode_tokens(subject.encode(["Hi"])[0]) == "<s><|user|>Hi</s><|assistant|>"
    assert subject.provenance["system"] == "none"


@pytest.mark.parametrize(("template", "rule"), [(None, "model"), (CHATML, "none")])
def test_encode__plain_text_where_there_is_no_template(template: str | None, rule: Any) -> None:
    subject = PromptTokenizer(
        tiny_tokenizer(template), tiny_config("llama"), TokenizationConfig(template=rule)
    )
    assert decode_tokens(subject.encode(["Hi"])[0]) == "<s>Hi</s>"
    assert subject.provenance["template"] == "none"


def test_encode__messages_are_taken_as_given() -> None:
    messages = (
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Two"},
        {"role": "user", "content": "Three"},
    )
    [encoded] = encoder().encode([messages])
    assert decode_tokens(encoded) == (
        "<s><|user|>One</s><|assistant|>Two</s><|user|>Three</s><|assistant|>"
    )
    [own] = encoder(tokens="prompt").encode([messages])
    assert decode_tokens(own, only_counted=True) == "OneThree"
    [plain] = encoder(template=None).encode([messages])
    assert decode_tokens(plain) == "<s>One\n\nThree</s>"


@pytest.mark.parametrize(
    "text", ["Hi", "user", SYSTEM, "  blanks \n", "<|user|> ü 漢字 🙂", "\x02\x03"]
)
def test_encode__tokens_of_the_prompts_own_text(text: str) -> None:
    [encoded] = encoder(tokens="prompt").encode([text])
    assert decode_tokens(encoded, only_counted=True) == text.strip()
    [plain] = encoder(template=None, tokens="prompt").encode([text])
    assert decode_tokens(plain, only_counted=True) == text


def test_encode__last_token() -> None:
    short, long = encoder(tokens="last").encode(["Hi", "Hello there"])
    assert [encoded.num_counted for encoded in (short, long)] == [1, 1]
    assert short.token_mask[-1]
    assert long.token_mask[-1]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"positions": 50}, 50),
        ({"positions": 50, "model_max_length": 40}, 40),
        ({"positions": 50, "model_max_length": 40, "max_tokens": 30}, 30),
        ({"positions": 50, "max_tokens": 90}, 50),
    ],
)
def test_encode__truncated_at_the_least_limit(limits: dict[str, Any], expected: Any) -> None:
    subject = encoder(**limits)
    long, short = subject.encode(["x" * 100, ""])
    assert subject.max_tokens == expected
    assert subject.provenance["max_tokens"] == str(expected)
    assert (len(long.ids), long.truncated) == (expected, True)
    assert len(short.ids) <= expected
    assert long.ids[0] == 1


def test_encode__no_limit_where_the_model_has_none() -> None:
    tokenizer = tiny_tokenizer(model_max_length=10**30)
    subject = PromptTokenizer(tokenizer, BloomConfig(), TokenizationConfig())
    assert len(subject.encode(["x" * 5000])[0].ids) > 5000
    assert subject.provenance["max_tokens"] == "none"


def test_encode__a_truncated_plain_text_keeps_its_closing_token() -> None:
    [encoded] = encoder(template=None, max_tokens=10).encode(["x" * 100])
    assert decode_tokens(encoded) == "<s>" + "x" * 8 + "</s>"


def test_encode__a_long_prompt_is_refused_by_its_position() -> None:
    subject = encoder(max_tokens=60, long="refuse")
    with pytest.raises(
        RefusedPrompt, match="position 1 has 134 tokens, over the limit of 60"
    ) as info:
        subject.encode(["ok", "x" * 100, "y" * 100])
    assert info.value.position == 1


def test_encode__a_prompt_without_counted_tokens_is_refused() -> None:
    with pytest.raises(RefusedPrompt, match="position 1 has no token that counts"):
        encoder(max_tokens=10, tokens="prompt", template=None).encode(["Hi", ""])


def test_encode__messages_that_the_template_refuses_name_their_position() -> None:
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"})
    with pytest.raises(RefusedPrompt, match=r"position 1 .* System role not supported"):
        encoder(NO_SYSTEM).encode(["Hi", messages])


def test_encode__a_template_that_changes_the_words_cannot_count_them() -> None:
    shouting = CHATML.replace("| trim", "| upper")
    assert encoder(shouting).encode(["Hi"])
    with pytest.raises(RefusedPrompt, match="changes the user's words"):
        encoder(shouting, tokens="prompt").encode(["Hi"])


def test_encoder__a_template_that_refuses_everything_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="refuses a single user message: never"):
        encoder("{{ raise_exception('never') }}")


def test_encode__a_template_with_a_clock_gives_the_same_tokens_every_day() -> None:
    clock = "{{ strftime_now('%d %b %Y, %H:%M') }} " + CHATML
    [encoded] = encoder(clock).encode(["Hi"])
    text = decode_tokens(encoded)
    assert text.startswith("26 Jul 2024, 12:00 <s>")
    assert datetime.date(2024, 7, 26).strftime("%A %j") == "Friday 208"


def test_record__tells_rules_and_tokenizers_apart() -> None:
    base = encoder().provenance
    assert encoder().provenance == base
    assert all(isinstance(value, str) for value in base.values())
    others = [
        encoder(tokens="last"),
        encoder(system="Be brief."),
        encoder(max_tokens=100),
        encoder(long="refuse"),
        encoder(CHATML + " "),
        encoder(None),
    ]
    records = [base, *(other.provenance for other in others)]
    assert len({tuple(record.items()) for record in records}) == len(records)


def test_load__reads_the_tokenizer_beside_the_model(tmp_path: Path) -> None:
    spec = ModelConfig(id=str(save_tiny(tmp_path)))
    subject = PromptTokenizer.load(spec, TokenizationConfig())
    subject.encode(["x" * 1000])
    # Truncating must leave no trace in the digest.
    assert subject.provenance == PromptTokenizer.load(spec, TokenizationConfig()).provenance
    assert subject.max_tokens == 64


def test_load__a_folder_without_tokenizer_is_an_error(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    for path in tmp_path.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(InvalidInput, match=r"tokenizer of the model .* cannot be loaded"):
        PromptTokenizer.load(ModelConfig(id=str(tmp_path)), TokenizationConfig())
