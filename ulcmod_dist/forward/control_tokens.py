"""Read control tokens that a prompt spells, such as ``<|im_end|>``, as text.

A tokenizer finds its control tokens by their spelling, wherever it comes from. Here the ones that
a chat template writes are respelled with private characters, and a copy of the tokenizer knows
them by these names only. All else of the tokenizer works on the whole text as before.
"""

import json
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

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
        self, messages: Sequence[Message], render: Callable[[Sequence[Message]], str]
    ) -> tuple[str, Callable[[int], int]]:
        """The text of a chat for `literal_backend`, and where each position of the text is in it.

        Raises:
            ControlTokenError: The template treats texts differently for the marks that are put
                around control tokens, or the copy of the tokenizer does not read the template's
                own ones as the tokenizer does.
        """
        self._require_unreserved(messages)
        marked = render([self._mark(message) for message in messages])
        if marked.replace(_START, "").replace(_END, "") != render(messages):
            raise ControlTokenError("the chat template decides by them")
        # The same chat with words in place of what is spelled has to give equal tokens.
        words = self._marked.sub(lambda m: "x" if m[1] else m[2] or "", marked)
        named = self._marked.sub(lambda m: "x" if m[1] else self._names.get(m[2], ""), marked)
        self._require_equal(words, named)
        return self._name_own(marked)

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

    def _name_own(self, marked: str) -> tuple[str, Callable[[int], int]]:
        pieces: list[str] = []
        lengths: list[int] = []  # in the rendered text
        last = 0
        for match in self._marked.finditer(marked):
            written = match[1] or match[2] or ""
            name = self._names[match[2]] if match[2] else written
            pieces += [marked[last : match.start()], name]
            lengths += [match.start() - last, len(written)]
            last = match.end()
        pieces.append(marked[last:])
        lengths.append(len(marked) - last)
        ends = list(accumulate(lengths))

        def locate(position: int) -> int:
            before = 0
            for piece, end, length in zip(pieces, ends, lengths, strict=True):
                if position < end:
                    return before + min(position - (end - length), len(piece))
                before += len(piece)
            return before

        return "".join(pieces), locate

    def _mark(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._spelling.sub(f"{_START}\\g<0>{_END}", value)
        if isinstance(value, dict):
            return {self._mark(key): self._mark(part) for key, part in value.items()}
        return [self._mark(part) for part in value] if isinstance(value, list) else value

    def _keeps_id(self, renamed: Any, token: str, name: str) -> bool:
        encoded = renamed.encode(name, add_special_tokens=False)
        return bool(encoded.ids == [self._backend.token_to_id(token)])
