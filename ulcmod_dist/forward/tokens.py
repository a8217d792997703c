"""Tokenize prompts: chat template, length limit, and which tokens enter the mean."""

import hashlib
from collections.abc import Sequence
from typing import Any, Self

from jinja2.exceptions import TemplateError
from tokenizers import Encoding
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from ulcmod_dist.config.schema import ModelConfig, TokenizationConfig
from ulcmod_dist.corpus.prompts import Message, Prompt
from ulcmod_dist.errors import InvalidInput, one_line
from ulcmod_dist.forward.batches import RefusedPrompt, TokenizedPrompt
from ulcmod_dist.forward.loading import load_config

# transformers sets model_max_length to 1e30 where a tokenizer has no limit.
_NO_LIMIT = 10**12
# Control characters: no template strips them, and no template contains them.
_PLACEHOLDER = "\x02\x03"
_FIXED_DATE = {
    "%Y": "2024", "%y": "24", "%m": "07", "%d": "26", "%b": "Jul", "%B": "July",
    "%a": "Fri", "%A": "Friday", "%j": "208", "%H": "12", "%M": "00", "%S": "00",
}  # fmt: skip
_FILTERS = "".join(f" | replace({code!r}, {value!r})" for code, value in _FIXED_DATE.items())
# Shadows the `strftime_now` that transformers gives to templates.
_DATE_MACRO = f"{{%- macro strftime_now(format) -%}}{{{{ format{_FILTERS} }}}}{{%- endmacro -%}}"


class PromptTokenizer:
    """Tokenizes prompts as a job's ``prompt`` section asks.

    A prompt of text becomes [system, user] in the model's chat template with the generation prompt
    added; the template brings its own special tokens, so none are added a second time. A template
    that refuses a system message gets none. Without a template the plain text is encoded with the
    tokenizer's special tokens; of messages, the user's contents are taken, joined by blank lines.
    The limit ``max_tokens`` is the least of the tokenizer's, the model's positions and the job's.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        config: PretrainedConfig,
        options: TokenizationConfig,
    ) -> None:
        """Take a loaded tokenizer; InvalidInput if it does not support the options."""
        if not tokenizer.is_fast:
            raise InvalidInput(
                f"The tokenizer {type(tokenizer).__name__} gives no offsets into the text.",
                "Save the model with a tokenizer.json.",
            )
        self._options = options
        # The Rust tokenizer itself: its encodings carry offsets into the text and what truncation
        # cut off. The padding and truncation that it was saved with are no part of its digest.
        self._backend: Any = tokenizer.backend_tokenizer
        self._backend.no_padding()
        self._backend.no_truncation()
        self._digest = hashlib.sha256(self._backend.to_str().encode()).hexdigest()
        positions = getattr(config.get_text_config(), "max_position_embeddings", None)
        limits = [tokenizer.model_max_length, positions, options.max_tokens]
        self.max_tokens = min(
            (int(limit) for limit in limits if limit and limit < _NO_LIMIT), default=None
        )
        if self.max_tokens is not None and options.long == "truncate":
            self._backend.enable_truncation(self.max_tokens)
        has_template = options.template == "model" and tokenizer.chat_template is not None
        self._template = ChatTemplate(tokenizer) if has_template else None
        self._system = (
            self._template.probe_system_message(options.system) if self._template else "none"
        )
        self._system_message = options.system if self._system in ("used", "ignored") else None

    @classmethod
    def load(cls, model: ModelConfig, options: TokenizationConfig) -> Self:
        """Load a model's tokenizer; InvalidInput if it cannot be used."""
        config = load_config(model)
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                model.id, revision=model.revision, trust_remote_code=False
            )
        except (OSError, ValueError, ImportError) as error:
            raise InvalidInput(
                f"The tokenizer of the model {model.id} cannot be loaded: {one_line(error)}."
            ) from error
        return cls(tokenizer, config, options)

    @property
    def provenance(self) -> dict[str, str]:
        """What activations depend on from the tokenizer's side."""
        return {
            "tokenizer": self._digest,
            "template": self._template.digest if self._template else "none",
            "system": self._system,
            "system_message": self._system_message or "",
            "tokens": self._options.tokens,
            "max_tokens": "none" if self.max_tokens is None else str(self.max_tokens),
            "long": self._options.long,
        }

    def encode(self, prompts: Sequence[Prompt]) -> list[TokenizedPrompt]:
        """Tokenize prompts, in their order.

        Raises:
            RefusedPrompt: A prompt is over the limit under ``long: refuse``, the chat template
                refuses it, or none of its tokens counts. Its ``position`` is the prompt's.
        """
        rendered = [self._render(position, prompt) for position, prompt in enumerate(prompts)]
        encodings = self._backend.encode_batch(
            [text for text, _ in rendered], add_special_tokens=self._template is None
        )
        return [
            self._make_prompt(position, encoding, spans)
            for position, (encoding, (_, spans)) in enumerate(zip(encodings, rendered, strict=True))
        ]

    def _render(self, position: int, prompt: Prompt) -> tuple[str, list[tuple[int, int]]]:
        """The text to tokenize, and the spans of the user's words in it."""
        if self._template is None:
            contents = [prompt] if isinstance(prompt, str) else _list_user_contents(prompt)
            text = "\n\n".join(contents)
            return text, [(0, len(text))]
        if isinstance(prompt, str):
            messages = [Message(role="user", content=prompt)]
            if self._system_message is not None:
                messages.insert(0, Message(role="system", content=self._system_message))
        else:
            messages = list(prompt)
        spans = []
        try:
            text = self._template.render(messages)
            if self._options.tokens == "prompt":
                spans = self._template.find_user_spans(messages, text)
        except (TemplateError, ValueError) as error:
            raise RefusedPrompt(
                position,
                f"The prompt at position {position} does not fit the chat template: {error}.",
            ) from error
        return text, spans

    def _make_prompt(
        self, position: int, encoding: Encoding, spans: Sequence[tuple[int, int]]
    ) -> TokenizedPrompt:
        ids = tuple(encoding.ids)
        if self.max_tokens is not None and len(ids) > self.max_tokens:
            raise RefusedPrompt(
                position,
                f"The prompt at position {position} has {len(ids)} tokens, over the limit of "
                f"{self.max_tokens}.",
                "Shorten it, or set prompt.long to truncate.",
            )
        mask = self._mask_tokens(encoding, spans)
        if not any(mask):
            raise RefusedPrompt(
                position, f"The prompt at position {position} has no token that counts."
            )
        return TokenizedPrompt(ids, mask, truncated=bool(encoding.overflowing))

    def _mask_tokens(
        self, encoding: Encoding, spans: Sequence[tuple[int, int]]
    ) -> tuple[bool, ...]:
        length = len(encoding.ids)
        if self._options.tokens == "all":
            return (True,) * length
        if self._options.tokens == "last":
            return (False,) * (length - 1) + (True,) * min(length, 1)
        return tuple(
            stop > start and any(start < end and stop > begin for begin, end in spans)
            for start, stop in encoding.offsets
        )


def _list_user_contents(messages: Sequence[Message]) -> list[str]:
    return [message["content"] for message in messages if message["role"] == "user"]


class ChatTemplate:
    """A model's chat template with the generation prompt added and a fixed date.

    Some templates write today's date into the prompt, which would change the activations from day
    to day; here it is always 26 July 2024. ``digest`` is the SHA-256 of the template's text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        source = tokenizer.get_chat_template()
        self.digest = hashlib.sha256(source.encode()).hexdigest()
        self._source = _DATE_MACRO + source if "strftime_now" in source else source

    def render(self, messages: Sequence[Message]) -> str:
        """The text that the tokenizer reads; TemplateError if the template refuses the messages."""
        text = self._tokenizer.apply_chat_template(
            list(messages), chat_template=self._source, tokenize=False, add_generation_prompt=True
        )
        assert isinstance(text, str)
        return text

    def probe_system_message(self, system: str | None) -> str:
        """What the template does with a system message: ``used``, ``ignored`` or ``refused``.

        ``none`` where none is given. Nothing declares this, so the template is tried; InvalidInput
        if it refuses a single user message as well.
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
        contents = _list_user_contents(messages)
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
