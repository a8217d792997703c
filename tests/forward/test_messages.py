"""Messages reach the template as they are; what it cannot take is refused by message and field."""

from typing import Any

import pytest
from hypothesis import given, settings

from tests.corpus.test_chats import CHATS, without_nulls
from tests.forward.tiny import CHATML, NO_SYSTEM, tiny_config, tiny_tokenizer
from ulcmod_dist.config.schema import TokenizationConfig
from ulcmod_dist.forward.batches import RefusedPrompt
from ulcmod_dist.forward.messages import TemplateRefusal
from ulcmod_dist.forward.tokens import PromptTokenizer

TOOLS = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.reasoning_content %}[think {{ m.reasoning_content }}]{% endif %}"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content or [] %}"
    "{% if part.type == 'text' %}{{ part.text }}{% else %}<image>{% endif %}"
    "{% endfor %}{% endif %}"
    "{% for call in m.tool_calls or [] %}[{{ call.function | tojson }}]{% endfor %}"
    "</s>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LAST_REASONING = TOOLS.replace("if m.reasoning_content", "if m.reasoning_content and loop.last")
PLAIN = CHATML.replace("| trim", "")
BRANCHES = (
    "{% for m in messages %}{% if m.role == 'user' %}U:{% elif m.role == 'system' %}S:"
    "{% else %}A:{% endif %}{{ m.content }}{% endfor %}"
)
ONLY_KNOWN = (
    "{% for m in messages %}{% if m.role in ('user', 'assistant') %}{{ m.content }}{% endif %}"
    "{% endfor %}"
)
USER = {"role": "user", "content": "It's what time in Rome?"}
CALL = {"function": {"name": "time", "arguments": {"zone": "CET", "day": 1}}}
CALLED = {"role": "assistant", "tool_calls": [CALL]}
TOLD = {"role": "tool", "content": "12:00", "tool_call_id": "c1", "name": "time"}
THOUGHT = {"role": "assistant", "content": "Noon.", "reasoning_content": "It is 12."}
PARTS = {
    "role": "user",
    "content": [{"type": "text", "text": "It's "}, {"type": "text", "text": "on"}],
}
SYSTEM = {"role": "system", "content": "x"}
IMAGE = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}
LINK = {"role": "user", "content": [{"type": "image", "url": "x.png"}]}


def make(template: str | None, **options: Any) -> PromptTokenizer:
    tokenizer = tiny_tokenizer(template)
    config = tiny_config("llama", max_position_embeddings=2048)
    return PromptTokenizer(tokenizer, config, TokenizationConfig(**options))


def render(template: str, *messages: Any, **options: Any) -> str:
    subject = make(template, **options)
    return subject.decode(subject.encode([messages])[0].ids)


def count(template: str, *messages: Any) -> str:
    """The text of the tokens that count where those of the prompt's own text do."""
    subject = make(template, tokens="prompt")
    [encoded] = subject.encode([messages])
    pairs = zip(encoded.ids, encoded.token_mask, strict=True)
    return subject.decode([token for token, counted in pairs if counted])


@pytest.mark.parametrize(
    "messages",
    [
        [USER, CALLED, TOLD],
        [USER, CALLED | {"content": "Wait."}, TOLD, THOUGHT, USER],
        [PARTS],
        [USER, {"role": "function", "content": "12:00"}],
        [USER, {"role": "assistant", "content": ""}, USER],
    ],
)
def test_encode__a_chat_is_rendered_as_transformers_does(messages: list[Any]) -> None:
    expected = tiny_tokenizer(TOOLS).apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    assert render(TOOLS, *messages) == expected


def test_encode__a_chat_that_ends_with_the_assistant_is_not_opened_again() -> None:
    closed = "<|user|>Hi</s><|assistant|>Yes</s>"
    user, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}
    assert render(PLAIN, user, answer) == "<s>" + closed
    assert render(PLAIN, user, answer, user) == f"<s>{closed}<|user|>Hi</s><|assistant|>"
    assert render(PLAIN, user, answer | {"role": "model"}).endswith("Yes</s>")
    assert count(PLAIN, user, answer) == "Hi"
    assert make(PLAIN, tokens="last").encode([(user, answer)])[0].token_mask[-1]


def test_encode__text_parts_of_the_user_are_the_prompts_own_text() -> None:
    assert count(TOOLS, PARTS, CALLED, USER) == "It's on" + USER["content"]
    # In a chat without a user, all words are.
    assert count(TOOLS, SYSTEM, {"role": "User", "content": "Hi"}, CALLED) == "xHi"


ADDING = PLAIN.replace("m['content']", "(m['content'] + '')")
BLIND = PLAIN.replace("m['content']", "m['content'] or ''")
RAW = TOOLS.replace("| tojson", "['arguments']")
UNSAFE = PLAIN + "{% if messages[-1].role == 'tool' %}{{ messages.__class__.__mro__ }}{% endif %}"
TIMES = PLAIN + "{% if messages[0].times %}{{ 1 / messages[0].times[0] }}{% endif %}"


@pytest.mark.parametrize(
    ("template", "messages", "reason"),
    [
        (ADDING, [USER, CALLED, TOLD], r"does not take the missing content of message 1 \("),
        (BLIND, [USER, CALLED], r"leaves out tool_calls\[0\].function.name of message 1"),
        (PLAIN, [USER, THOUGHT], "leaves out reasoning_content of message 1"),
        (PLAIN, [PARTS], "prints content of message 0 in Python's notation"),
        (ADDING, [PARTS], r"does not take the content of message 0 \(TypeError: "),
        (RAW, [USER, CALLED], "prints arguments of message 1 in Python's notation"),
        (TOOLS, [IMAGE], r"content\[0\] of message 0 has no text"),
        (TOOLS, [LINK], r"leaves out content\[0\].url of message 0"),
        (BRANCHES, [USER, {"role": "User", "content": "x"}], "knows no role 'User', of message 1"),
        (ONLY_KNOWN, [USER, TOLD], "knows no role 'tool', of message 1"),
        (ONLY_KNOWN, [SYSTEM, USER], "leaves out content of message 0"),
        (NO_SYSTEM, [SYSTEM, USER], "System role not supported"),
        (UNSAFE, [USER, TOLD], "unsafe"),
        (ADDING, [PARTS, CALLED], "given content of message 0, tool_calls of message 1"),
        (TIMES, [USER | {"times": [0]}], r"not take the times of message 0 \(ZeroDivisionError"),
    ],
)
def test_encode__what_a_template_cannot_take_is_refused(
    template: str, messages: list[Any], reason: str
) -> None:
    with pytest.raises(RefusedPrompt, match=reason) as refused:
        render(template, *messages)
    assert refused.value.position == 0
    with pytest.raises(TemplateRefusal, match=reason):
        make(template).read(tuple(messages))


@pytest.mark.parametrize(
    ("template", "messages", "omitted"),
    [
        (TOOLS, [USER, CALLED, TOLD], {"name"}),
        (TOOLS.replace("{{ m.role }}", "{{ m.name }}"), [USER | {"name": "Bob"}], set()),
        (PLAIN, [USER | {"weight": 1, "hash": "x"}], {"weight", "hash"}),
        (LAST_REASONING, [USER, THOUGHT, USER], {"reasoning_content"}),
        (LAST_REASONING, [USER, THOUGHT], set()),
        (TOOLS, [USER, THOUGHT | {"reasoning": "It is 12."}], set()),
    ],
)
def test_read__lists_fields_that_the_template_does_not_show(
    template: str, messages: list[Any], omitted: set[str]
) -> None:
    assert make(template).read(tuple(messages)).omitted == omitted


def test_read__digest_covers_fields_and_the_missing_generation_prompt() -> None:
    user, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}
    chats = [(user,), (user | {"name": "Bob"},), (user, answer), (user, answer | {"name": "x"})]
    digests = [make(PLAIN).read(chat).digest for chat in chats]
    assert len(set(digests)) == 4
    plain = [make(None).read(chat).digest for chat in chats]
    assert [a == b for a, b in zip(digests, plain, strict=True)] == [True, True, False, False]


@settings(max_examples=50, deadline=None)
@given(chat=CHATS)
def test_encode__any_chat_reaches_the_template_whole(chat: list[Any]) -> None:
    messages = without_nulls(chat)
    expected = tiny_tokenizer(TOOLS).apply_chat_template(
        messages, tokenize=False, add_generation_prompt=messages[-1]["role"] != "assistant"
    )
    assert render(TOOLS, *messages) == expected
