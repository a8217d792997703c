"""Chat templates: render messages, and find the user's words in the result."""

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from ulcmod_dist.corpus.chats import ANSWERING_ROLES, Message, list_texts, list_user_messages
from ulcmod_dist.errors import InvalidInput, describe_error, one_line
from ulcmod_dist.forward.messages import TemplateRefusal, find_omitted, get_shape

# Control characters: no template strips them, and no template contains them.
_PLACEHOLDER = "\x02\x03"
_FIXED_DATE = {
    "%Y": "2024", "%y": "24", "%m": "07", "%d": "26", "%b": "Jul", "%B": "July",
    "%a": "Fri", "%A": "Friday", "%j": "208", "%H": "12", "%M": "00", "%S": "00",
}  # fmt: skip
_FILTERS = "".join(f" | replace({code!r}, {value!r})" for code, value in _FIXED_DATE.items())
# Shadows the `strftime_now` that transformers gives to templates.
_DATE_MACRO = f"{{%- macro strftime_now(format) -%}}{{{{ format{_FILTERS} }}}}{{%- endmacro -%}}"
_MAX_SHAPES = 10_000
_PLAIN_TEXT = "Set prompt.template to none to give the model the plain text."


class ChatTemplate:
    """A model's chat template with the job's arguments and a fixed date.

    The generation prompt is added, except to a chat that ends with an assistant's turn. Some
    templates write today's date into the prompt, which would change the activations from day to
    day; here it is always 26 July 2024.

    Attributes:
        source: The template's text, and ``digest`` its SHA-256.
        arguments: What templates can read beside the messages.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, name: str, arguments: Mapping[str, Any]
    ) -> None:
        """Take the template of a name, or for ``model`` the default one.

        Raises:
            InvalidInput: There is no such template, it is no template at all, it reads none of the
                arguments of a name, or it cannot show a single message of a user.
        """
        self._tokenizer = tokenizer
        self.source = _choose_template(tokenizer, name, arguments)
        self.digest = hashlib.sha256(self.source.encode()).hexdigest()
        self.arguments = dict(arguments)
        self._text = _DATE_MACRO + self.source if "strftime_now" in self.source else self.source
        self._omitted: dict[Hashable, frozenset[str]] = {}
        self._require_arguments_read()
        self._require_user_message()

    def render(self, messages: Sequence[Message]) -> str:
        """The text that the tokenizer reads.

        Raises:
            TemplateRefusal: The template raises an error. Templates are programs that come with a
                model, so it may be any.
        """
        try:
            text = self._tokenizer.apply_chat_template(
                list(messages),
                chat_template=self._text,
                tokenize=False,
                add_generation_prompt=self.is_opened(messages),
                **self.arguments,
            )
        except TemplateError as error:
            raise TemplateRefusal(one_line(error)) from error
        except Exception as error:
            raise TemplateRefusal(describe_error(error)) from error
        assert isinstance(text, str)
        return text

    def is_opened(self, messages: Sequence[Message]) -> bool:
        """Whether a generation prompt follows: the chat does not end with an assistant's turn."""
        return messages[-1]["role"] not in ANSWERING_ROLES

    def check(self, messages: Sequence[Message]) -> frozenset[str]:
        """Fields that the template does not show, see `find_omitted`.

        Chats of the same shape are tried once, so that a large corpus is not rendered twice.

        Raises:
            TemplateRefusal: The template cannot take a field, or drops what it says.
        """
        shape = get_shape(messages)
        if shape not in self._omitted:
            if len(self._omitted) >= _MAX_SHAPES:
                self._omitted.clear()
            self._omitted[shape] = find_omitted(self.render, messages)
        return self._omitted[shape]

    def probe_system_message(self, system: str | None) -> str:
        """What the template does with a system message: ``used``, ``ignored`` or ``refused``.

        ``none`` where none is given. Nothing declares this, so the template is tried.
        """
        if system is None:
            return "none"
        user = Message(role="user", content=_PLACEHOLDER)
        try:
            text = self.render([Message(role="system", content=system), user])
        except TemplateRefusal:
            return "refused"
        return "used" if system.strip() in text else "ignored"

    def find_user_spans(self, messages: Sequence[Message], text: str) -> list[tuple[int, int]]:
        """Spans (start, stop) of the `list_user_messages` in the rendered ``text``.

        The messages are rendered once more with placeholders for the user's words; the text around
        the placeholders must be found again around the words.

        Raises:
            TemplateRefusal: The template changes the words beyond stripping whitespace, or drops
                them.
        """
        users = list_user_messages(messages)
        words = [part for n in users for part in list_texts(messages[n]) if part.strip()]
        rendered = self.render(
            [_hide_words(m) if number in users else m for number, m in enumerate(messages)]
        )
        before, *after = rendered.split(_PLACEHOLDER)
        if len(after) != len(words) or not text.startswith(before):
            raise TemplateRefusal("the chat template drops or repeats the user's words")
        spans: list[tuple[int, int]] = []
        start = len(before)
        for part, following in zip(words, after, strict=True):
            stop = _find_end(part, text, start, following)
            spans.append((start, stop))
            start = stop + len(following)
        return spans

    def _require_arguments_read(self) -> None:
        try:
            known = find_undeclared_variables(_parse(self._text))
        except TemplateSyntaxError as error:
            raise InvalidInput(
                f"The model's chat template is no valid template: line {error.lineno}: "
                f"{one_line(error.message)}.",
                _PLAIN_TEXT,
            ) from error
        unread = sorted(self.arguments.keys() - known)
        if unread:
            others = sorted(known - {"messages", "add_generation_prompt", "raise_exception"})
            raise InvalidInput(
                f"prompt.template_arguments: the model's chat template reads no {unread[0]!r}.",
                f"It reads {', '.join(others) or 'nothing but the messages'}.",
            )

    def _require_user_message(self) -> None:
        try:
            text = self.render([Message(role="user", content=_PLACEHOLDER)])
        except TemplateRefusal as error:
            raise InvalidInput(
                f"The model's chat template refuses a single user message: {error}.", _PLAIN_TEXT
            ) from error
        if _PLACEHOLDER not in text:
            raise InvalidInput(
                "The model's chat template leaves out the prompt itself: it makes "
                f"{text[:60]!r} of every prompt.",
                _PLAIN_TEXT,
            )


def list_literals(source: str) -> list[str]:
    """The texts that a template writes itself; none where it is no valid template."""
    try:
        tree = _parse(source)
    except TemplateSyntaxError:
        return []
    texts = [node.data for node in tree.find_all(nodes.TemplateData)]
    return texts + [str(node.value) for node in tree.find_all(nodes.Const)]


def _parse(source: str) -> nodes.Template:
    # The environment of transformers knows the extensions that chat templates may use.
    tree: nodes.Template = _compile_jinja_template(source).environment.parse(source)
    return tree


def _choose_template(
    tokenizer: PreTrainedTokenizerBase, name: str, arguments: Mapping[str, Any]
) -> str:
    found = tokenizer.chat_template
    named = found if isinstance(found, dict) else {}
    if name in named:
        return str(named[name])
    # As transformers does where it is given no name.
    default = "tool_use" if arguments.get("tools") and "tool_use" in named else "default"
    if name == "model" and (not named or default in named):
        return str(named[default] if named else found)
    if not named:
        raise InvalidInput(
            f"The model has one chat template, which has no name, not {name!r}.",
            "Set prompt.template to model.",
        )
    wanted = "and none of them is the default" if name == "model" else f"not {name!r}"
    raise InvalidInput(
        f"The model has the chat templates {', '.join(sorted(named))}, {wanted}.",
        "Set prompt.template to one of these names.",
    )


def _hide_words(message: Message) -> Message:
    """A message with a placeholder in place of each of its texts that is not blank."""

    def hide(part: Any) -> Any:
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            return {**part, "text": hide(part["text"])}
        return _PLACEHOLDER if isinstance(part, str) and part.strip() else part

    content = message.get("content")
    if content is None:
        return message
    shown = [hide(part) for part in content] if isinstance(content, list) else hide(content)
    return {**message, "content": shown}


def _find_end(words: str, text: str, start: int, following: str) -> int:
    for shown in (words, words.strip(), words.lstrip(), words.rstrip()):
        stop = start + len(shown)
        if text.startswith(shown, start) and text.startswith(following, stop):
            return stop
    raise TemplateRefusal("the chat template changes the user's words")
