"""Prompts to tokens: chat template, length limit, and which tokens count towards the mean."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from jinja2.exceptions import TemplateError
from tokenizers import Encoding
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from ulcmod_dist.config.schema import ModelConfig, TokenizationConfig
from ulcmod_dist.corpus.prompts import Message, Prompt
from ulcmod_dist.errors import InvalidInput, one_line
from ulcmod_dist.forward.batches import RefusedPrompt, TokenizedPrompt
from ulcmod_dist.forward.loading import load_config
from ulcmod_dist.forward.templates import ChatTemplate

# Tokenizers without a limit of their own say 1e30.
_NO_LIMIT = 10**12


class PromptTokenizer:
    """Turns prompts into tokens by one rule.

    A prompt of text becomes [system, user] in the model's chat template with the generation prompt
    added; the template brings its own special tokens, so none are added a second time. A template
    that refuses a system message gets none. Without a template the plain text is encoded with the
    tokenizer's special tokens; of messages, the user's words are taken, joined by blank lines.

    Attributes:
        max_tokens: The length limit in force, or None: the least of the tokenizer's maximum, the
            configuration's positions and the rule's.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, rule: TokenizationConfig
    ) -> None:
        """Prepare a loaded tokenizer; ``Encoder.load`` also loads it.

        Raises:
            InvalidInput: The tokenizer or its template cannot serve the rule.
        """
        if not tokenizer.is_fast:
            raise InvalidInput(
                f"The tokenizer {type(tokenizer).__name__} gives no offsets into the text.",
                "Save the model with a tokenizer.json.",
            )
        self._rule = rule
        self._backend: Any = tokenizer.backend_tokenizer
        self._backend.no_padding()
        self._backend.no_truncation()
        self._digest = hashlib.sha256(self._backend.to_str().encode()).hexdigest()
        self.max_tokens = _limit(tokenizer, config, rule)
        if self.max_tokens is not None and rule.long == "truncate":
            self._backend.enable_truncation(self.max_tokens)
        has_template = rule.template == "model" and tokenizer.chat_template is not None
        self._template = ChatTemplate(tokenizer) if has_template else None
        self._system = "none" if not self._template else self._template.use_of_system(rule.system)

    @classmethod
    def load(cls, spec: ModelConfig, rule: TokenizationConfig) -> PromptTokenizer:
        """Load a model's tokenizer and prepare it for a rule.

        Raises:
            InvalidInput: The model or its tokenizer cannot be used.
        """
        config = load_config(spec)
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                spec.id, revision=spec.revision, trust_remote_code=False
            )
        except (OSError, ValueError, ImportError) as error:
            raise InvalidInput(
                f"The tokenizer of the model {spec.id} cannot be loaded: {one_line(error)}."
            ) from error
        return cls(tokenizer, config, rule)

    @property
    def record(self) -> dict[str, str]:
        """What a row depends on from the tokens' side."""
        return {
            "tokenizer": self._digest,
            "template": self._template.digest if self._template else "none",
            "system": self._system,
            "system_message": self._given_system() or "",
            "tokens": self._rule.tokens,
            "max_tokens": "none" if self.max_tokens is None else str(self.max_tokens),
            "long": self._rule.long,
        }

    def encode(self, prompts: Sequence[Prompt]) -> list[TokenizedPrompt]:
        """Encode prompts, each by itself; the order is kept.

        Raises:
            RefusedPrompt: A prompt is over the limit under ``long: refuse``, the chat template
                refuses it, or none of its tokens counts; it bears the prompt's position.
        """
        texts, spans = [], []
        for position, prompt in enumerate(prompts):
            text, own = self._text(position, prompt)
            texts.append(text)
            spans.append(own)
        encodings = self._backend.encode_batch(texts, add_special_tokens=self._template is None)
        return [
            self._encoded(position, encoding, own)
            for position, (encoding, own) in enumerate(zip(encodings, spans, strict=True))
        ]

    def _text(self, position: int, prompt: Prompt) -> tuple[str, list[tuple[int, int]]]:
        """The text to encode, and where the prompt's own words stand in it."""
        if self._template is None:
            text = prompt if isinstance(prompt, str) else _words_of_user(prompt)
            return text, [(0, len(text))]
        messages = self._messages(prompt)
        try:
            text = self._template.render(messages)
            own = self._template.own_text(messages, text) if self._rule.tokens == "prompt" else []
        except (TemplateError, ValueError) as error:
            raise RefusedPrompt(
                position,
                f"The prompt at position {position} does not fit the chat template: {error}.",
            ) from error
        return text, own

    def _messages(self, prompt: Prompt) -> list[Message]:
        if not isinstance(prompt, str):
            return list(prompt)
        user = Message(role="user", content=prompt)
        system = self._given_system()
        return [user] if system is None else [Message(role="system", content=system), user]

    def _given_system(self) -> str | None:
        return self._rule.system if self._system in ("used", "ignored") else None

    def _encoded(
        self, position: int, encoding: Encoding, own: Sequence[tuple[int, int]]
    ) -> TokenizedPrompt:
        ids = tuple(encoding.ids)
        if self.max_tokens is not None and len(ids) > self.max_tokens:
            raise RefusedPrompt(
                position,
                f"The prompt at position {position} has {len(ids)} tokens, over the limit of "
                f"{self.max_tokens}.",
                "Shorten it, or set prompt.long to truncate.",
            )
        counted = self._counted(encoding, own)
        if not any(counted):
            raise RefusedPrompt(
                position, f"The prompt at position {position} has no token that counts."
            )
        return TokenizedPrompt(ids, counted, truncated=bool(encoding.overflowing))

    def _counted(self, encoding: Encoding, own: Sequence[tuple[int, int]]) -> tuple[bool, ...]:
        length = len(encoding.ids)
        if self._rule.tokens == "all":
            return (True,) * length
        if self._rule.tokens == "last":
            return (False,) * (length - 1) + (True,) * min(length, 1)
        return tuple(
            stop > start and any(start < end and stop > begin for begin, end in own)
            for start, stop in encoding.offsets
        )


def _words_of_user(messages: Sequence[Message]) -> str:
    return "\n\n".join(message["content"] for message in messages if message["role"] == "user")


def _limit(
    tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, rule: TokenizationConfig
) -> int | None:
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    limits = [tokenizer.model_max_length, positions, rule.max_tokens]
    return min((int(limit) for limit in limits if limit and limit < _NO_LIMIT), default=None)
