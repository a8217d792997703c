"""Tokenize prompts: chat template, length limit, and which tokens enter the mean."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Encoding
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from ulcmod_dist.config.schema import ModelConfig, TokenizationConfig
from ulcmod_dist.corpus.chats import Message, Prompt, digest_prompt, list_user_texts
from ulcmod_dist.errors import InvalidInput, describe_error
from ulcmod_dist.forward.batches import RefusedPrompt, TokenizedPrompt
from ulcmod_dist.forward.checkpoints import locate
from ulcmod_dist.forward.control_tokens import (
    ControlTokenError,
    ControlTokens,
    list_control_tokens,
)
from ulcmod_dist.forward.loading import load_config
from ulcmod_dist.forward.messages import TemplateRefusal
from ulcmod_dist.forward.templates import ChatTemplate
from ulcmod_dist.runtime.files import reject_lfs_pointer

# transformers sets model_max_length to 1e30 where a tokenizer has no limit.
_NO_LIMIT = 10**12
# Of a local model. A template that is a pointer of Git LFS would be valid, and the same text for
# every prompt.
_FILES = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
    "chat_template.*", "additional_chat_templates/*",
)  # fmt: skip
_AS_TEXT = "control tokens as text"
_NO_OPENING = "no generation prompt after an assistant's turn"


@dataclass(frozen=True)
class _Rendered:
    """A prompt as the text to encode, and the spans of the user's words in it."""

    text: str
    spans: tuple[tuple[int, int], ...]
    literal: bool = False  # whether control tokens that it spells are text


@dataclass(frozen=True)
class Reading:
    """How a prompt is read.

    Attributes:
        digest: SHA-256 of the prompt, and of how it is read where that is not the usual way.
        spells_control_tokens: Whether its own words spell control tokens.
        omitted: Fields of its messages that the template does not show, see `find_omitted`.
    """

    digest: bytes
    spells_control_tokens: bool
    omitted: frozenset[str]


class PromptTokenizer:
    """Tokenizes prompts as a job's ``prompt`` section asks.

    A prompt of text becomes [system, user] in the model's chat template with the generation prompt
    added; the template brings its own special tokens, so none are added a second time. A template
    that refuses a system message gets none. Messages reach the template as they are, see
    `ChatTemplate`. Without a template the plain text is encoded with the tokenizer's special
    tokens; of messages, the user's contents are taken, joined by blank lines. Control tokens that
    the words of a prompt spell are read as the job says. The limit ``max_tokens`` is the least of
    the tokenizer's, the model's positions and the job's.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        config: PretrainedConfig,
        options: TokenizationConfig,
        declared: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Take a loaded tokenizer and what its tokenizer_config.json ``declared``.

        Raises:
            InvalidInput: The tokenizer does not support the options.
        """
        if not tokenizer.is_fast:
            raise InvalidInput(
                f"The tokenizer {type(tokenizer).__name__} gives no offsets into the text.",
                "Save the model with a tokenizer.json.",
            )
        self._options = options
        self._declared = declared
        self._bos, self._eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        # The Rust tokenizer itself: its encodings carry offsets into the text and what truncation
        # cut off. The padding and truncation that it was saved with are no part of its digest.
        self._backend: Any = tokenizer.backend_tokenizer
        self._backend.no_padding()
        self._backend.no_truncation()
        self._digest = hashlib.sha256(self._backend.to_str().encode()).hexdigest()
        positions = getattr(config.get_text_config(), "max_position_embeddings", None)
        limits = [tokenizer.model_max_length, positions, options.max_tokens]
        self.max_tokens = min(
            (int(n) for n in limits if isinstance(n, int | float) and 0 < n < _NO_LIMIT),
            default=None,
        )
        if self.max_tokens is not None and options.long == "truncate":
            self._backend.enable_truncation(self.max_tokens)
        self._template = _load_template(tokenizer, options)
        self._control = ControlTokens(self._backend, list_control_tokens(tokenizer))
        self._system = (
            self._template.probe_system_message(options.system) if self._template else "none"
        )
        self._system_message = options.system if self._system in ("used", "ignored") else None

    @classmethod
    def load(cls, model: ModelConfig, options: TokenizationConfig) -> Self:
        """Load a model's tokenizer; InvalidInput if it cannot be used."""
        config = load_config(model)
        for pattern in _FILES:
            for path in sorted(Path(model.id).glob(pattern)):
                reject_lfs_pointer(path)
        try:
            source = locate(model)
            tokenizer = AutoTokenizer.from_pretrained(**source)
            declared = {} if "gguf_file" in source else get_tokenizer_config(**source)
        except Exception as error:  # of damaged files: KeyError, the Rust library's own and others
            raise InvalidInput(
                f"The tokenizer of the model {model.id} cannot be loaded: {describe_error(error)}."
            ) from error
        return cls(tokenizer, config, options, declared)

    @property
    def provenance(self) -> dict[str, str]:
        """What activations depend on from the tokenizer's side."""
        arguments = ""
        if self._template and self._template.arguments:
            arguments = json.dumps(self._template.arguments, ensure_ascii=False)
        return {
            "tokenizer": self._digest,
            "template": self._template.digest if self._template else "none",
            **({"template_arguments": arguments} if arguments else {}),
            "system": self._system,
            "system_message": self._system_message or "",
            "tokens": self._options.tokens,
            "max_tokens": "none" if self.max_tokens is None else str(self.max_tokens),
            "long": self._options.long,
            # As text they are part of the digests of the prompts concerned.
            **({"control_tokens": "tokens"} if self._options.control_tokens == "tokens" else {}),
        }

    def encode(self, prompts: Sequence[Prompt]) -> list[TokenizedPrompt]:
        """Tokenize prompts, in their order.

        Raises:
            RefusedPrompt: A prompt is over the limit under ``long: refuse``, the chat template
                refuses it, or none of its tokens counts. Its ``position`` is the prompt's.
        """
        rendered = [self._render(position, prompt) for position, prompt in enumerate(prompts)]
        encodings: dict[int, Encoding] = {}
        for literal in (False, True):
            chosen = [n for n, each in enumerate(rendered) if each.literal == literal]
            if chosen:
                backend = self._control.literal_backend if literal else self._backend
                texts = [rendered[n].text for n in chosen]
                batch = backend.encode_batch(texts, add_special_tokens=self._template is None)
                encodings |= zip(chosen, batch, strict=True)
        return [
            self._make_prompt(position, encodings[position], each.spans)
            for position, each in enumerate(rendered)
        ]

    def append_answers(
        self, prompts: Sequence[TokenizedPrompt], answers: Sequence[str | None]
    ) -> list[TokenizedPrompt]:
        """Prompts with the tokens of their expected answers at the end; None leaves one as it is.

        The tokens of the prompts stay, so that an answer is what follows what was extracted. It is
        cut at ``max_tokens``, also under ``long: refuse``; control tokens are read as in prompts.

        Raises:
            RefusedPrompt: An answer spells control tokens that cannot be read as text.
        """
        appended = []
        for position, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            room = None if self.max_tokens is None else max(0, self.max_tokens - len(prompt.ids))
            ids = [] if answer is None else self._encode_answer(position, answer)[:room]
            mask = prompt.token_mask + (False,) * len(ids)
            longer = replace(prompt, ids=(*prompt.ids, *ids), token_mask=mask, num_answer=len(ids))
            appended.append(longer)
        return appended

    def _encode_answer(self, position: int, answer: str) -> list[int]:
        backend = self._backend
        if self._options.control_tokens == "text" and self._control.list_spelled(answer):
            try:
                self._control.check_text(answer)
            except ControlTokenError as error:
                raise RefusedPrompt(
                    position,
                    f"The answer at position {position} spells control tokens, which cannot be "
                    f"read as text: {error}.",
                    "Set prompt.control_tokens to tokens, or remove them from the answer.",
                ) from error
            backend = self._control.literal_backend
        return list(backend.encode(answer, add_special_tokens=False).ids)

    def read(self, prompt: Prompt) -> Reading:
        """How a prompt is read; TemplateRefusal if the template cannot take its messages."""
        messages = self._list_messages(prompt)
        spelled = self._control.list_spelled(messages)
        differences = []
        if spelled and self._options.control_tokens == "text":
            differences = [_AS_TEXT, *sorted(set(spelled))]
        omitted: frozenset[str] = frozenset()
        if self._template and not isinstance(prompt, str):
            omitted = self._template.check(messages)
            if not self._template.is_opened(messages):
                differences.append(_NO_OPENING)
        return Reading(digest_prompt(prompt, differences), bool(spelled), omitted)

    def find_spelling(self, texts: pa.ChunkedArray) -> NDArray[np.int64]:
        """Rows of prompts of text whose words spell control tokens."""
        if self._control.list_spelled(self._list_messages("")):
            # The system message does, so that every prompt has to be read by itself.
            return np.arange(len(texts))
        return self._control.find_spelling(texts)

    def is_control(self, token: int) -> bool:
        """Whether a token is a control token."""
        return token in self._control.ids

    def encode_words(self, text: str) -> list[int]:
        """The tokens of a text by itself: no template and no special tokens around it."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, control tokens included."""
        return str(self._backend.decode(list(ids), skip_special_tokens=False))

    def find_faults(self, ids: Sequence[int]) -> list[str]:
        """Sentences about what the tokens of a prompt have or lack, probably against intention."""
        faults = []
        if self._template is None and self._options.template == "model":
            faults.append(
                "The model has no chat template: prompts are encoded as plain text, and of chats "
                "only the user's words."
            )
        # transformers ignores these two where there is a tokenizer.json.
        ends = {"bos": (self._bos, ids[0], "begins")}
        if self._template is None:
            ends["eos"] = (self._eos, ids[-1], "ends")
        for name, (token, found, verb) in ends.items():
            if self._declared.get(f"add_{name}_token") and token not in (None, found):
                faults.append(
                    f"tokenizer_config.json says add_{name}_token: true, but no "
                    f"{self.decode([token])} {verb} the prompts: neither tokenizer.json nor "
                    "the chat template adds it."
                )
        if self._bos is not None and list(ids[:2]) == [self._bos] * 2:
            faults.append(f"The prompts begin with {self.decode([self._bos])} twice.")
        return faults

    def _list_messages(self, prompt: Prompt) -> list[Message]:
        """The messages of a prompt; without a template one with all its text."""
        if self._template is None:
            texts = [prompt] if isinstance(prompt, str) else list_user_texts(prompt)
            return [Message(role="user", content="\n\n".join(texts))]
        if not isinstance(prompt, str):
            return list(prompt)
        user = Message(role="user", content=prompt)
        if self._system_message is None:
            return [user]
        return [Message(role="system", content=self._system_message), user]

    def _render(self, position: int, prompt: Prompt) -> _Rendered:
        messages = self._list_messages(prompt)
        literal = self._options.control_tokens == "text"
        literal = literal and bool(self._control.list_spelled(messages))
        try:
            if self._template is None:
                text = messages[0]["content"]
                if literal:
                    self._control.check_text(text)
                return _Rendered(text, ((0, len(text)),), literal)
            if not isinstance(prompt, str):
                self._template.check(messages)
            text, spans = self._template.render(messages), []
            if self._options.tokens == "prompt":
                spans = self._template.find_user_spans(messages, text)
            if literal:
                text, locate = self._control.respell(messages, text, self._template.render)
                spans = [(locate(start), locate(stop)) for start, stop in spans]
            return _Rendered(text, tuple(spans), literal)
        except TemplateRefusal as error:
            raise RefusedPrompt(
                position,
                f"The prompt at position {position} does not fit the chat template: {error}.",
            ) from error
        except ControlTokenError as error:
            raise RefusedPrompt(
                position,
                f"The prompt at position {position} spells control tokens, which cannot be read "
                f"as text: {error}.",
                "Set prompt.control_tokens to tokens, or remove them from the prompt.",
            ) from error

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


def _load_template(
    tokenizer: PreTrainedTokenizerBase, options: TokenizationConfig
) -> ChatTemplate | None:
    """The template that the job asks for; None for plain text."""
    if options.template == "none":
        return None
    if tokenizer.chat_template is None:
        if options.template != "model" or options.template_arguments:
            key = "template_arguments" if options.template == "model" else "template"
            raise InvalidInput(
                f"The model has no chat template, and the job sets prompt.{key}.",
                f"Remove prompt.{key}: the prompts are then encoded as plain text.",
            )
        return None
    return ChatTemplate(tokenizer, options.template, options.template_arguments)
