import datetime
import inspect
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors
from transformers import BloomConfig, PreTrainedTokenizerBase

from tests.forward.tiny import CHATML, NO_SYSTEM, save_tiny, tiny_config, tiny_tokenizer
from ulcmod_dist.config.schema import RESERVED_ARGUMENTS, ModelConfig, TokenizationConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.batches import RefusedPrompt
from ulcmod_dist.forward.tokens import PromptTokenizer

SYSTEM = "You are a helpful assistant."


def encoder(
    template: str | None = CHATML, positions: int = 512, model_max_length: int = 10**30, **rule: Any
) -> PromptTokenizer:
    rule = {"template" if key == "rule" else key: value for key, value in rule.items()}
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


def test_load__pointers_of_git_lfs_and_damaged_files_are_errors(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        folder = save_tiny(tmp_path / name)
        (folder / name).write_text(pointer)
        with pytest.raises(InvalidInput, match=rf"{name} is a pointer of Git LFS"):
            PromptTokenizer.load(ModelConfig(id=str(folder)), TokenizationConfig())
    (tmp_path / "tokenizer.json" / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidInput, match="cannot be loaded: KeyError"):
        PromptTokenizer.load(ModelConfig(id=str(tmp_path / "tokenizer.json")), TokenizationConfig())


THINKING = CHATML + "{% if enable_thinking is defined and not enable_thinking %}<s>{% endif %}"
TOOL_LIST = "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}" + CHATML


def test_encode__template_arguments_reach_the_template_and_the_provenance() -> None:
    bare, off = encoder(THINKING), encoder(THINKING, template_arguments={"enable_thinking": False})
    assert off.encode(["Hi"])[0].ids == (*bare.encode(["Hi"])[0].ids, 1)
    assert bare.provenance.items() < off.provenance.items()
    tools = [{"name": "time"}]
    [encoded] = encoder(TOOL_LIST, template_arguments={"tools": tools}).encode(["Hi"])
    assert decode_tokens(encoded).startswith('{"name": "time"}<s>')


def test_encoder__an_argument_that_the_template_does_not_read_is_an_error() -> None:
    with pytest.raises(InvalidInput, match=r"reads no 'thinking'\. It reads .*enable_thinking"):
        encoder(THINKING, template_arguments={"thinking": False})


def test_encoder__the_job_names_one_of_several_templates() -> None:
    names = {"default": CHATML, "shout": CHATML.replace("| trim", "| upper")}
    tokenizer: Any = tiny_tokenizer()
    tokenizer.chat_template = names

    def load(**rule: Any) -> PromptTokenizer:
        config = tiny_config("llama", max_position_embeddings=512)
        return PromptTokenizer(tokenizer, config, TokenizationConfig(**rule))

    assert load().encode(["Hi"]) == encoder().encode(["Hi"])
    assert load().provenance == encoder().provenance
    assert "<|user|>HI</s>" in decode_tokens(load(template="shout").encode(["Hi"])[0])
    with pytest.raises(InvalidInput, match="has the chat templates default, shout, not 'rag'"):
        load(template="rag")
    del names["default"]
    with pytest.raises(InvalidInput, match="templates shout, and none of them is the default"):
        load()
    with pytest.raises(InvalidInput, match="has one chat template, which has no name, not 'rag'"):
        encoder(template=CHATML, rule="rag")


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{% if %}", "no valid template: line 1: "),
        ("constant", "leaves out the prompt itself: it makes 'constant' of every prompt"),
        ("{{ 1 / 0 }}", "refuses a single user message: ZeroDivisionError: division by zero"),
    ],
)
def test_encoder__what_is_no_template_is_an_error(template: str, fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault):
        encoder(template)


@pytest.mark.parametrize("rule", [{"template": "chat"}, {"template_arguments": {"x": 1}}])
def test_encoder__a_template_is_asked_for_where_there_is_none(rule: dict[str, Any]) -> None:
    with pytest.raises(
        InvalidInput, match=f"no chat template, and the job sets prompt.{next(iter(rule))}"
    ):
        PromptTokenizer(tiny_tokenizer(None), tiny_config("llama"), TokenizationConfig(**rule))


def test_config__reserves_what_transformers_gives_to_a_template() -> None:
    signature = inspect.signature(PreTrainedTokenizerBase.apply_chat_template)
    own = signature.parameters.keys() - {"kwargs", "tools", "documents"}
    assert own < RESERVED_ARGUMENTS


def find_faults(source: str | None, declared: dict[str, Any], add_bos: bool, **rule: Any) -> Any:
    tokenizer: Any = tiny_tokenizer(source)
    if not add_bos:
        tokenizer.backend_tokenizer.post_processor = processors.ByteLevel()
    subject = PromptTokenizer(tokenizer, tiny_config("llama"), TokenizationConfig(**rule), declared)
    return subject.find_faults(subject.encode(["Hi"])[0].ids)


def test_find_faults__a_promised_token_that_is_missing_or_doubled() -> None:
    promised = {"add_bos_token": True, "add_eos_token": True}
    without_bos = CHATML.replace("{{ bos_token }}", "")
    assert find_faults(None, promised, True, template="none") == []
    assert find_faults(None, {"add_bos_token": False}, False, template="none") == []
    bos, eos = find_faults(None, promised, False, template="none")
    assert bos.startswith("tokenizer_config.json says add_bos_token: true, but no <s> begins the")
    assert eos.startswith("tokenizer_config.json says add_eos_token: true, but no </s> ends the")
    # With a template, it is the template that writes them.
    assert find_faults(CHATML, promised, False) == []
    assert find_faults(without_bos, promised, True) == [bos]
    assert find_faults("<s>" + CHATML, {}, True) == ["The prompts begin with <s> twice."]
    [plain] = find_faults(None, {}, True)
    assert plain.startswith("The model has no chat template")


def test_append_answers__keep_the_prompt_and_are_cut_at_the_limit() -> None:
    subject = encoder()
    prompts = subject.encode(["Hi", "Ho"])
    first, second = subject.append_answers(prompts, ["Hello", None])
    assert second == prompts[1]
    length = len(prompts[0].ids)
    assert (first.ids[:length], first.num_counted) == (prompts[0].ids, length)
    assert tiny_tokenizer().decode(list(first.ids[length:])) == "Hello"
    assert first.answer_mask == (False,) * length + (True,) * first.num_answer
    short = encoder(max_tokens=length + 1, long="refuse").append_answers(prompts, ["Hello"] * 2)
    assert [each.num_answer for each in short] == [1, 1]


def test_append_answers__control_tokens_are_read_as_text() -> None:
    for rule, is_control in (("text", False), ("tokens", True)):
        subject = encoder(control_tokens=rule)
        [appended] = subject.append_answers(subject.encode(["Hi"]), ["</s>"])
        answer = appended.ids[-appended.num_answer :]
        assert any(map(subject.is_control, answer)) == is_control
