"""Chats: the messages of a sample, as they are given to a chat template."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any, TypeAlias

from ulcmod_dist.corpus.columns import parse_json
from ulcmod_dist.runtime.rundir import fingerprint

Message: TypeAlias = dict[str, Any]
"""One turn of a chat: its ``role``, mostly ``content``, and any further fields, JSON values."""

Prompt: TypeAlias = str | tuple[Message, ...]
"""A text, or the messages of a chat."""

REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Names that data sets give to a message's reasoning; transformers takes each for the first."""

ANSWERING_ROLES = frozenset(("assistant", "model"))
"""Roles of turns after which a chat is complete."""

# Templates may print these objects, and models learn the order in which APIs write their keys.
_KEY_ORDER = {key: n for n, key in enumerate(("id", "type", "function", "name", "arguments"))}
# Spelling of the data sets that were shared by users of ShareGPT.
_SHARED_ROLES = {"human": "user", "gpt": "assistant"}


def parse_chat(encoded: str | None) -> tuple[Message, ...]:
    """The messages of a chat given as JSON: a list of ``{role, content}`` or ``{from, value}``.

    Fields of a message other than these stay as they are. A field that is null counts as absent,
    at any depth: a Parquet file cannot tell the two apart, and a chat is the same prompt in every
    format. Nulls in a list stay. Keys below the fields have one order, but those of the arguments
    of a tool call keep theirs, which templates print.

    Raises:
        ValueError: The value is no chat; the message names the turn and the field.
    """
    try:
        turns = parse_json(encoded or "null")
    except ValueError as error:
        raise ValueError(f"no JSON that can be read: {error}") from error
    if not isinstance(turns, list):
        raise ValueError("not a list of messages")
    messages = tuple(_parse_message(number, turn) for number, turn in enumerate(turns))
    if not any(text.strip() for message in messages for text in list_texts(message)):
        raise ValueError("no message has text")
    return messages


def encode_chat(messages: Sequence[Message]) -> str:
    """JSON from which `json.loads` gives the messages back; ValueError for what JSON lacks."""
    return _dump(messages)


def digest_prompt(prompt: Prompt, reading: Sequence[str] = ()) -> bytes:
    """SHA-256 of a prompt, and of how it is read where that is not the usual way.

    Objects in a message are told apart by the order of their keys as well: a template may print
    them, and equal digests mean equal tokens.
    """
    if isinstance(prompt, str) and not reading:
        # What `fingerprint` returns, without making an encoder for each of millions of prompts.
        return hashlib.sha256(encode_basestring(prompt).encode()).digest()
    value: Any = prompt
    if not isinstance(prompt, str):
        value = [
            {name: v if isinstance(v, str) else {"json": _dump(v)} for name, v in message.items()}
            for message in prompt
        ]
    marked = {"prompt": value, "reading": list(reading)} if reading else value
    return bytes.fromhex(fingerprint(marked))


def list_texts(message: Mapping[str, Any]) -> list[str]:
    """The content of a message: one text, or one for each of its text parts."""
    content = message.get("content", "")
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return [text for text in texts if isinstance(text, str)]


def list_user_messages(messages: Sequence[Message]) -> list[int]:
    """Numbers of the user's messages; of all messages in a chat where the user says nothing."""
    users = [number for number, message in enumerate(messages) if message["role"] == "user"]
    said = any(text.strip() for number in users for text in list_texts(messages[number]))
    return users if said else list(range(len(messages)))


def list_user_texts(messages: Sequence[Message]) -> list[str]:
    """The texts of these messages."""
    return [text for n in list_user_messages(messages) for text in list_texts(messages[n])]


def _parse_message(number: int, turn: Any) -> Message:
    if not isinstance(turn, dict):
        raise ValueError(f"message {number} is no object")
    message: Message = _drop_nulls(turn)
    if "role" not in message and "from" in message:
        role = message.pop("from")
        message["role"] = _SHARED_ROLES.get(role, role) if isinstance(role, str) else role
    if "content" not in message and "value" in message:
        message["content"] = message.pop("value")
    role = message.get("role")
    if not isinstance(role, str) or not role.strip():
        raise ValueError(f"message {number} has no role")
    if not isinstance(message.get("content", ""), str | list | dict):
        kind = type(message["content"]).__name__
        raise ValueError(f"the content of message {number} is of type {kind}")
    says = any(name in message for name in ("content", *REASONING_FIELDS))
    if not says and not any(isinstance(value, list | dict) for value in message.values()):
        raise ValueError(f"message {number} has neither content nor tool_calls")
    return {name: _sort_keys(message[name]) for name in sorted(message)}


def _sort_keys(value: Any) -> Any:
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (_KEY_ORDER.get(key, len(_KEY_ORDER)), key))
        return {key: value[key] if key == "arguments" else _sort_keys(value[key]) for key in keys}
    return list(map(_sort_keys, value)) if isinstance(value, list) else value


def _drop_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _drop_nulls(part) for key, part in value.items() if part is not None}
    return [_drop_nulls(part) for part in value] if isinstance(value, list) else value


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
