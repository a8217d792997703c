"""Chat templates: render prompts as the model was trained to read them, independent of the date."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from ulcmod_dist.corpus.prompts import Message
from ulcmod_dist.errors import InvalidInput

# Control characters: no template strips them, and no template contains them.
_PLACEHOLDER = "\x02\x03"
_FIXED_DATE = {
    "%Y": "2024", "%y": "24", "%m": "07", "%d": "26", "%b": "Jul", "%B": "July",
    "%a": "Fri", "%A": "Friday", "%j": "208", "%H": "12", "%M": "00", "%S": "00",
}  # fmt: skip


class ChatTemplate:
    """A model's chat template with the generation prompt added and a fixed date.

    Some templates write today's date into the prompt, which would change the activations from day
    to day; here it is always 26 July 2024.

    Attributes:
        digest: SHA-256 of the template's text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        source = tokenizer.get_chat_template()
        self.digest = hashlib.sha256(source.encode()).hexdigest()
        self._source = _make_date_macro() + source if "strftime_now" in source else source

    def render(self, messages: Sequence[Message]) -> str:
        """The text that the tokenizer reads, special tokens of the template included.

        Raises:
            jinja2.exceptions.TemplateError: The template refuses these messages.
        """
        text = self._tokenizer.apply_chat_template(
            list(messages), chat_template=self._source, tokenize=False, add_generation_prompt=True
        )
        assert isinstance(text, str)
        return text

    def probe_system_message(self, system: str | None) -> str:
        """What the template does with a system message: ``used``, ``ignored`` or ``refused``.

        ``none`` where none is given. A template says this nowhere, so it is tried.

        Raises:
            InvalidInput: The template refuses a single user message as well.
        """
        user = Message(role="user", content=_PLACEHOLDER)
        try:
            self.render([user])
        except TemplateError as error:
            raise InvalidInput(
                f"The model's chat template refuses a single user message: {error}.",
                "Set prompt.template to none to give the model the plain text.",
            ) from error
        if system is None:
            return "none"
        try:
            text = self.render([Message(role="system", content=system), user])
        except TemplateError:
            return "refused"
        return "used" if system.strip() in text else "ignored"

    def find_user_spans(self, messages: Sequence[Message], text: str) -> list[tuple[int, int]]:
        """Spans (start, stop) of the user's messages in the rendered ``text``.

        The messages are rendered once more with a placeholder as the user's content; the text
        around the placeholders must be found again around the content.

        Raises:
            ValueError: The template changes the content beyond stripping whitespace, or drops it.
        """
        rendered = self.render(
            [m if m["role"] != "user" else {**m, "content": _PLACEHOLDER} for m in messages]
        )
        before, *after = rendered.split(_PLACEHOLDER)
        contents = [message["content"] for message in messages if message["role"] == "user"]
        if len(after) != len(contents) or not text.startswith(before):
            raise ValueError("the chat template drops or repeats the user's words")
        spans: list[tuple[int, int]] = []
        start = len(before)
        for content, following in zip(contents, after, strict=True):
            stop = _find_end(content, text, start, following)
            spans.append((start, stop))
            start = stop + len(following)
        return spans


def _find_end(content: str, text: str, start: int, following: str) -> int:
    for shown in (content, content.strip(), content.lstrip(), content.rstrip()):
        stop = start + len(shown)
        if text.startswith(shown, start) and text.startswith(following, stop):
            return stop
    raise ValueError("the chat template changes the user's words")


def _make_date_macro() -> str:
    """A macro that shadows the ``strftime_now`` that transformers gives to templates."""
    filters = "".join(f" | replace({code!r}, {value!r})" for code, value in _FIXED_DATE.items())
    return "{%- macro strftime_now(format) -%}{{ format" + filters + " }}{%- endmacro -%}"
