"""Chat templates: prompts rendered as the model was trained to read them, the same on any day."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from ulcmod_dist.corpus.prompts import Message
from ulcmod_dist.errors import InvalidInput

_MARK = "\x02\x03"
_FIXED_DATE = {
    "%Y": "2024", "%y": "24", "%m": "07", "%d": "26", "%b": "Jul", "%B": "July",
    "%a": "Fri", "%A": "Friday", "%j": "208", "%H": "12", "%M": "00", "%S": "00",
}  # fmt: skip


class ChatTemplate:
    """A model's chat template, with the generation prompt added and the clock stopped.

    Some templates write today's date into the prompt, which would make every day's rows different;
    here it is always 26 July 2024.

    Attributes:
        digest: SHA-256 of the template's text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        source = tokenizer.get_chat_template()
        self.digest = hashlib.sha256(source.encode()).hexdigest()
        self._source = _fixed_clock() + source if "strftime_now" in source else source

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

    def use_of_system(self, system: str | None) -> str:
        """What becomes of a system message: ``none`` given, ``used``, ``ignored`` or ``refused``.

        Raises:
            InvalidInput: The template refuses a single user message as well.
        """
        user = Message(role="user", content=_MARK)
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

    def own_text(self, messages: Sequence[Message], text: str) -> list[tuple[int, int]]:
        """Where the user's words stand in the rendered ``text``: (start, stop) of each message.

        The messages are rendered once more with a mark in place of the user's words; what lies
        around the marks must be found again around the words.

        Raises:
            ValueError: The template changes the words beyond stripping blanks, or drops them.
        """
        marked = self.render(
            [m if m["role"] != "user" else {**m, "content": _MARK} for m in messages]
        )
        before, *after = marked.split(_MARK)
        words = [message["content"] for message in messages if message["role"] == "user"]
        if len(after) != len(words) or not text.startswith(before):
            raise ValueError("the chat template drops or repeats the user's words")
        spans: list[tuple[int, int]] = []
        start = len(before)
        for content, following in zip(words, after, strict=True):
            stop = _end_of(content, text, start, following)
            spans.append((start, stop))
            start = stop + len(following)
        return spans


def _end_of(content: str, text: str, start: int, following: str) -> int:
    for shown in (content, content.strip(), content.lstrip(), content.rstrip()):
        stop = start + len(shown)
        if text.startswith(shown, start) and text.startswith(following, stop):
            return stop
    raise ValueError("the chat template changes the user's words")


def _fixed_clock() -> str:
    """A macro that takes the place of the template environment's clock."""
    filters = "".join(f" | replace({code!r}, {value!r})" for code, value in _FIXED_DATE.items())
    return "{%- macro strftime_now(format) -%}{{ format" + filters + " }}{%- endmacro -%}"
