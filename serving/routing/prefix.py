"""How much of a conversation was sent to a model before, and by what is that known again?

What is before the last assistant's turn was sent for that turn, and providers keep it for some minutes.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from serving.chat import Conversation, Turn


class Prefixes(NamedTuple):
    """so_far: hash of tools and messages. before: that of the request which the last assistant's turn answered; None
    where no assistant has spoken."""

    before: str | None
    so_far: str


def prefixes(conversation: Conversation) -> Prefixes:
    """By which a conversation is known, if its messages come again as they were.

    Takes 25 µs at 8 KB, 1.4 ms at a megabyte.
    """
    answered = _answered(conversation.turns)
    hashed = hashlib.blake2b(conversation.tools_json, digest_size=16)
    _add(hashed, conversation.turns[:answered])
    before = hashed.hexdigest() if answered else None
    _add(hashed, conversation.turns[answered:])
    return Prefixes(before, hashed.hexdigest())


def sent_share(conversation: Conversation) -> float:
    """The part of it that was sent before, by bytes: in [0, 1), 0 where no assistant has spoken."""
    answered = conversation.turns[: _answered(conversation.turns)]
    if not answered:
        return 0.0
    sent = sum(turn.bytes for turn in answered) + len(conversation.tools_json)
    return sent / max(conversation.total_bytes, sent, 1)


def _answered(turns: Sequence[Turn]) -> int:
    """How many there are before the last assistant's."""
    return next((i for i in range(len(turns) - 1, -1, -1) if turns[i].role == "assistant"), 0)


def _add(hashed: "hashlib.blake2b", turns: Sequence[Turn]) -> None:
    """All text; what is no text counts by its size."""
    for turn in turns:
        hashed.update(f"\0{turn.role} {len(turn.text)} {turn.bytes}\0{turn.text}".encode())
