"""Which fields of a chat's messages reach the text that a chat template makes of them.

Nothing declares what a template reads, so it is tried: every text of the messages gets a marker at
its end, and the markers are looked for in the rendered text.
"""

import re
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias

from ulcmod_dist.corpus.chats import REASONING_FIELDS, Message, list_texts

Render: TypeAlias = Callable[[Sequence[Message]], str]
"""A template: from messages to text; raises `TemplateRefusal`."""

# Roles that a template may tell from others by nothing but its `else`.
_COMMON_ROLES = {"system", "user", "assistant"}
_MAX_NAMED = 5
_CALLS = ("tool_calls", "function_call")
# Texts that must be shown. Of a tool call these are name and arguments: ids and types vary.
_MEANINGFUL = re.compile(
    rf"content(?!.*\.type$)|(?:{'|'.join(_CALLS)})\b.*\.(?:name$|arguments)"
    rf"|(?:{'|'.join(REASONING_FIELDS)})$"
)


class TemplateRefusal(ValueError):
    """Messages that a chat template cannot take; says which field of which message where it can."""


def get_shape(value: Any) -> Hashable:
    """Fields, roles and types of messages, without their words: what a template decides by."""
    if isinstance(value, dict):
        return tuple(
            (key, part if key in ("role", "type") and isinstance(part, str) else get_shape(part))
            for key, part in value.items()
        )
    if isinstance(value, list | tuple):
        return tuple(map(get_shape, value))
    blank = isinstance(value, str) and (not value or value.isspace())
    return not blank if isinstance(value, str) else (type(value).__name__, bool(value))


def find_omitted(render: Render, messages: Sequence[Message]) -> frozenset[str]:
    """Fields that the template does not show, where that is no fault.

    These are fields beside the words, such as ``name`` or a timestamp, and the reasoning of earlier
    turns in templates that show it only in the last one.

    Raises:
        TemplateRefusal: The template raises an error, leaves out content, a tool call or reasoning,
            prints a list in Python's notation, or takes a role for any other.
    """
    try:
        text = render(messages)
    except TemplateRefusal as error:
        raise TemplateRefusal(explain_refusal(render, messages, str(error))) from error
    _check_parts(messages)
    _check_roles(render, messages, text)
    marked, leaves = _mark(messages)
    try:
        marked_text = render(marked).casefold()
        missing = [leaves[marker] for marker in leaves if marker.casefold() not in marked_text]
    except TemplateRefusal:
        # Some text may have no other form, such as a name that is checked against a list.
        missing = [leaf for leaf in leaves.values() if leaf[2].strip() not in text]
    _check_notation(messages, text)
    shown = {(number, path) for number, path, _ in leaves.values()}
    shown -= {(number, path) for number, path, _ in missing}
    omitted = set()
    for number, path, _ in missing:
        if path in REASONING_FIELDS:
            if any((number, name) in shown for name in REASONING_FIELDS):
                continue
            if _shows_reasoning(render, messages[number], path):
                omitted.add(path)
                continue
        raise TemplateRefusal(f"it leaves out {path} of message {number}")
    others = {name for m in messages for name in m if name != "role"}
    others -= {"content", "id", "tool_call_id", *_CALLS, *REASONING_FIELDS}
    return frozenset(
        omitted | {name for name in others if _is_unread(render, messages, text, name)}
    )


def explain_refusal(render: Render, messages: Sequence[Message], reason: str) -> str:
    """Why a template refuses messages, with the field without which it takes them."""
    unusual = []
    for number, message in enumerate(messages):
        for name in dict.fromkeys(("role", "content", *message)):
            changes = _list_changes(message, name)
            if changes and name in message:
                unusual.append(f"{name} of message {number}")
            for changed in changes:
                try:
                    render([*messages[:number], changed, *messages[number + 1 :]])
                except TemplateRefusal:
                    continue
                value = f" {message[name]!r}" if name == "role" else ""
                absence = "" if name in message else "missing "
                return f"it does not take the {absence}{name}{value} of message {number} ({reason})"
    return f"{reason}; it was given {', '.join(unusual[:_MAX_NAMED])}" if unusual else reason


def _list_changes(message: Message, name: str) -> list[Message]:
    """The message without what is unusual in a field; none where nothing is."""
    if name == "role":
        usual = message["role"] in _COMMON_ROLES
        return [] if usual else [{**message, "role": role} for role in ("user", "assistant")]
    if name == "content":
        usual = isinstance(message.get("content"), str)
        return [] if usual else [{**message, "content": "\n".join(list_texts(message))}]
    return [{key: value for key, value in message.items() if key != name}]


def _check_parts(messages: Sequence[Message]) -> None:
    """Refuse parts such as images, of which a template prints a placeholder at most."""
    for number, message in enumerate(messages):
        for position, part in enumerate(_as_list(message.get("content", ""))):
            values = part.items() if isinstance(part, dict) else [("text", part)]
            if not any(isinstance(value, str) for name, value in values if name != "type"):
                raise TemplateRefusal(f"content[{position}] of message {number} has no text")


def _check_roles(render: Render, messages: Sequence[Message], text: str) -> None:
    for number, message in enumerate(messages):
        if message["role"] in _COMMON_ROLES:
            continue
        changed = [*messages]
        changed[number] = {**message, "role": "qzq"}
        try:
            is_known = render(changed) != text
        except TemplateRefusal:
            is_known = True
        if not is_known:
            raise TemplateRefusal(f"it knows no role {message['role']!r}, of message {number}")


def _check_notation(messages: Sequence[Message], text: str) -> None:
    """Refuse lists and mappings that were printed as Python shows them, not as JSON or text."""
    for number, message in enumerate(messages):
        calls = [call for name in _CALLS for call in _as_list(message.get(name))]
        calls = [call.get("function", call) for call in calls if isinstance(call, dict)]
        values = {"content": [message.get("content")], "arguments": []}
        values["arguments"] = [call.get("arguments") for call in calls if isinstance(call, dict)]
        for name, found in values.items():
            if any(isinstance(v, list | dict) and v and str(v) in text for v in found):
                raise TemplateRefusal(
                    f"it prints {name} of message {number} in Python's notation, and takes text"
                )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _mark(
    messages: Sequence[Message],
) -> tuple[list[Message], dict[str, tuple[int, str, str]]]:
    """Messages with a marker at the end of each text, and the message and path of each marker."""
    leaves: dict[str, tuple[int, str, str]] = {}

    def mark(value: Any, number: int, path: str) -> Any:
        if isinstance(value, dict):
            return {key: mark(part, number, f"{path}.{key}") for key, part in value.items()}
        if isinstance(value, list):
            return [mark(part, number, f"{path}[{i}]") for i, part in enumerate(value)]
        if not isinstance(value, str) or not value.strip() or not _MEANINGFUL.match(path):
            return value
        marker = f"Qz{len(leaves)}zQ"
        leaves[marker] = (number, path, value)
        return value + marker

    marked = [
        {name: mark(value, number, name) for name, value in message.items()}
        for number, message in enumerate(messages)
    ]
    return marked, leaves


def _shows_reasoning(render: Render, message: Message, name: str) -> bool:
    """Whether the template shows reasoning in a last turn, and so omits it earlier by choice."""
    last = {"role": message["role"], "content": "x", name: "Qz0zQ"}
    try:
        return "qz0zq" in render([{"role": "user", "content": "x"}, last]).casefold()
    except TemplateRefusal:
        return False


def _is_unread(render: Render, messages: Sequence[Message], text: str, name: str) -> bool:
    without = [{key: v for key, v in message.items() if key != name} for message in messages]
    try:
        return render(without) == text
    except TemplateRefusal:
        return False
