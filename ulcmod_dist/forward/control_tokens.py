"""Read control tokens that a prompt spells, such as ``<|im_end|>``, as text.

A tokenizer finds its control tokens by their spelling, wherever it comes from. Here the ones that
a chat template writes are respelled with private characters, and a copy of the tokenizer knows
them by these names only. All else of the tokenizer works on the whole text as before.
"""

import json
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerBase

from ulcmod_dist.corpus.chats import Message
from ulcmod_dist.forward.templates import list_literals

# Characters of private use: they have no meaning, and no tokenizer or template expects them.
_START, _END = "\U000f0000", "\U000f0001"
_FIRST_NAME = 0x100000
_RESERVED = re.compile(f"[{_START}{_END}\U00100000-\U0010ffff]")
# Added tokens that are not declared special but are no words either, as in Qwen and DeepSeek.
_BARRED = re.compile("<[|\uff5c][^<>\\s]*[|\uff5c]>")

Span: TypeAlias = tuple[int, int]
"""Start and stop in a text."""


class ControlTokenError(ValueError):
    """A tokenizer or a template that does not let control tokens be read as text."""


def list_control_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Tokens that structure a prompt: special ones, and added ones that a chat template writes.

    Other added tokens, such as runs of blanks, tags of HTML or terms, are words. The option
    `sanitize_control_tokens` of transformers draws the same line; it gives no offsets, and
    tokenizes in pieces, which differ at their borders.
    """
    templates = tokenizer.chat_template
    sources = templates.values() if isinstance(templates, dict) else [templates or ""]
    # Joined by a character that is in no token.
    written = "\0".join(text for source in sources for text in list_literals(str(source)))
    declared = getattr(tokenizer, "chat_control_tokens", None) or ()

    def is_control(token: AddedToken) -> bool:
        name = token.content
        if token.special or name in declared or _BARRED.fullmatch(name):
            return not name.isspace()
        return name in written and not name.isspace() and not name[0].isalnum()

    return tuple(t.content for t in tokenizer.added_tokens_decoder.values() if is_control(t))


class ControlTokens:
    """The control tokens of a tokenizer, and how to read their spelling as text."""

    def __init__(self, backend: Any, tokens: Sequence[str]) -> None:
        self._backend = backend
        self._names = {token: chr(_FIRST_NAME + n) for n, token in enumerate(tokens)}
        # The longest first: a token takes precedence over those it begins with.
        spellings = "|".join(re.escape(t) for t in sorted(tokens, key=len, reverse=True)) or "(?!)"
        self._spelling = re.compile(spellings)
        self._marked = re.compile(f"{_START}({spellings}){_END}|[{_START}{_END}]|({spellings})")
        self.ids = frozenset(backend.token_to_id(token) for token in tokens)

    def list_spelled(self, value: Any) -> list[str]:
        """The control tokens that a text spells, or the texts in messages."""
        if isinstance(value, str):
            return self._spelling.findall(value)
        parts = value if isinstance(value, list | tuple) else []
        if isinstance(value, dict):
            parts = [part for item in value.items() for part in item]
        return [token for part in parts for token in self.list_spelled(part)]

    def find_spelling(self, texts: pa.ChunkedArray) -> NDArray[np.int64]:
        """The rows of a column of texts that spell a control token."""
        # RE2 reads a gigabyte in seconds, where a call of `re` a prompt takes minutes. It has no
        # pattern that matches nothing.
        if not self._names:
            return np.zeros(0, np.int64)
        return np.flatnonzero(pc.match_substring_regex(texts, self._spelling.pattern).to_numpy())

    @cached_property
    def literal_backend(self) -> Any:
        """The tokenizer that knows its control tokens by their private names only.

        Raises:
            ControlTokenError: The tokenizer does not load with other names.
        """
        spec = json.loads(self._backend.to_str())
        for token in spec["added_tokens"]:
            if token["content"] in self._names:
                # A normalizer may change or drop private characters.
                token |= {"content": self._names[token["content"]], "normalized": False}
        model = spec["model"]
        vocabulary = model.get("vocab", {})
        if isinstance(vocabulary, dict):
            model["vocab"] = {self._names.get(key, key): n for key, n in vocabulary.items()}
        else:
            model["vocab"] = [[self._names.get(key, key), score] for key, score in vocabulary]
        if "merges" in model:
            # Pairs, or texts of two parts; none may lead to a control token or from it.
            pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
            model["merges"] = [p for p in pairs if not self._names.keys() & {*p, "".join(p)}]
        if isinstance(model.get("unk_token"), str):
            model["unk_token"] = self._names.get(model["unk_token"], model["unk_token"])
        try:
            renamed = Tokenizer.from_str(json.dumps(spec))
        except Exception as error:  # the Rust library raises nothing more specific
            raise ControlTokenError("the tokenizer needs them in its vocabulary") from error
        renamed.encode_special_tokens = self._backend.encode_special_tokens
        moved = [t for t, name in self._names.items() if not self._keeps_id(renamed, t, name)]
        if moved:
            raise ControlTokenError(f"the tokenizer does not let {moved[0]} be named otherwise")
        return renamed

    def respell(
        self,
        messages: Sequence[Message],
        text: str,
        render: Callable[[Sequence[Message]], str],
    ) -> tuple[str, Callable[[int], int]]:
        """The ``text`` of a chat for `literal_backend`, and where each of its positions is then.

        Raises:
            ControlTokenError: The template treats words differently for the marks that are put
                around control tokens, or the copy of the tokenizer does not read the template's
                own ones as the tokenizer does.
        """
        self._require_unreserved(messages)
        own, spelled = self._locate_tokens(text, render([self._mark(m) for m in messages]))
        # The same chat with a word in place of what is spelled has to give equal tokens.
        words = [(start, stop, "x") for start, stop in spelled]
        named = [(start, stop, self._names[text[start:stop]]) for start, stop in own]
        self._require_equal(_replace(text, words), _replace(text, sorted(words + named)))

        def locate(position: int) -> int:
            shorter = sum(stop - start - 1 for start, stop in own if stop <= position)
            return position - shorter

        return _replace(text, named), locate

    def _locate_tokens(self, text: str, marked: str) -> tuple[list[Span], list[Span]]:
        """Spans of the template's own control tokens, and of those that the words spell."""
        # Templates that strip whitespace do not reach beyond the marks, so it is not compared.
        bare = marked.replace(_START, "").replace(_END, "")
        if _squeeze(bare) != _squeeze(text):
            raise ControlTokenError("the chat template decides by them")
        places = [position for position, char in enumerate(text) if not char.isspace()]
        own: list[Span] = []
        spelled: list[Span] = []
        seen = last = 0
        for match in self._marked.finditer(marked):
            seen += len(_squeeze(marked[last : match.start()]))
            last = match.end()
            if token := match[1] or match[2]:
                start = places[seen]
                if not text.startswith(token, start):
                    raise ControlTokenError("the chat template decides by them")
                (spelled if match[1] else own).append((start, start + len(token)))
                seen += len(_squeeze(token))
        return own, spelled

    def check_text(self, text: str) -> None:
        """Raise `ControlTokenError` if `literal_backend` cannot read a text without a template."""
        self._require_unreserved(text)
        words = self._spelling.sub("x", text)
        self._require_equal(words, words)

    def _require_equal(self, text: str, named: str) -> None:
        expected = self._backend.encode(text, add_special_tokens=False).ids
        if self.literal_backend.encode(named, add_special_tokens=False).ids != expected:
            raise ControlTokenError("the tokenizer depends on what surrounds them")

    def _require_unreserved(self, value: Any) -> None:
        if _RESERVED.search(json.dumps(value, ensure_ascii=False)):
            raise ControlTokenError("the prompt contains characters of private use as well")

    def _mark(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._spelling.sub(f"{_START}\\g<0>{_END}", value)
        if isinstance(value, dict):
            return {self._mark(key): self._mark(part) for key, part in value.items()}
        return [self._mark(part) for part in value] if isinstance(value, list) else value

    def _keeps_id(self, renamed: Any, token: str, name: str) -> bool:
        encoded = renamed.encode(name, add_special_tokens=False)
        return bool(encoded.ids == [self._backend.token_to_id(token)])


def _squeeze(text: str) -> str:
    """A text without whitespace."""
    return "".join(text.split())


def _replace(text: str, changes: Sequence[tuple[int, int, str]]) -> str:
    """A text with other words in place of spans, which are in order."""
    parts, last = [], 0
    for start, stop, words in changes:
        parts += [text[last:start], words]
        last = stop
    return "".join([*parts, text[last:]])
