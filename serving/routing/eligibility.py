"""Which tiers can take a conversation at all: tools, images, JSON mode, and room for it in the context window.

Tokens are bounded, not counted: every provider counts with a tokenizer of its own. Those of GPT-4, GPT-4o, Llama 3,
Gemma 2, Mistral, Qwen 3, DeepSeek V3 and Kimi K2 make .12 tokens a byte of UTF-8 (Hindi) to .46 (Chinese). Measured
2026-11-25 on prompts of the public outcomes, PAWS-X in English, German, French and Chinese, Python and JSON files of
common packages, and a paragraph each in Hindi, Thai, Russian, Arabic, Korean and Japanese. What goes beyond .5: tables
of numbers and hexadecimal (to 1.0), base64 (to .82), scripts that a vocabulary hardly knows (Arabic with Mistral's .51,
Amharic with GPT-4's .93).
"""

from collections.abc import Sequence
from typing import Final

from serving.chat import Conversation
from serving.errors import InputError
from serving.tiers import Tier

_MOST_BYTES_PER_TOKEN: Final = 10
_FEWEST_BYTES_PER_TOKEN: Final = 2
_MESSAGE_TOKENS: Final = 8  # marks of role and end; 4 in OpenAI's chat format
_IMAGE_TOKENS: Final = 1600  # of the largest image after resizing: GPT-4o 1,445, GPT-4.1 1,536, Claude 3 some 1,600
_NAMES: Final = {"tools": "tools", "vision": "vision", "json_mode": "JSON mode"}


def eligible_tiers(tiers: Sequence[Tier], conversation: Conversation) -> tuple[bool, ...]:
    """For each tier, whether it can take the conversation and surely has room for it.

    Where none surely has room, the widest of those that can take it: its provider counts better than we do.
    Raises InputError, with what is needed and what each tier lacks, when no tier can take it or the widest surely
    has no room.
    """
    needs = _capabilities_needed(conversation)
    least, most = token_bounds(conversation)
    able = [not _missing(tier, needs) for tier in tiers]
    roomy = [can and _has_room(tier, most) for tier, can in zip(tiers, able, strict=True)]
    if any(roomy):
        return tuple(roomy)
    windows = [tier.context_window or 0 if can else 0 for tier, can in zip(tiers, able, strict=True)]
    widest = max(windows)
    if any(able) and widest >= least:
        return tuple(can and window == widest for can, window in zip(able, windows, strict=True))
    raise InputError(_refusal(tiers, needs, least), where="request")


def token_bounds(conversation: Conversation) -> tuple[int, int]:
    """The fewest and the most tokens of context that the request and its answer may take.

    The answer counts with `max_tokens` where the request gives it, otherwise not: providers then let it fill what is
    left.
    """
    answer = conversation.max_output_tokens or 0
    most = (
        -(-conversation.total_bytes // _FEWEST_BYTES_PER_TOKEN)
        + _MESSAGE_TOKENS * conversation.messages
        + _IMAGE_TOKENS * conversation.images
    )
    return conversation.total_bytes // _MOST_BYTES_PER_TOKEN + answer, most + answer


def _capabilities_needed(conversation: Conversation) -> list[str]:
    """Names of fields of Tier."""
    needed = {"tools": conversation.tools, "vision": conversation.images, "json_mode": conversation.wants_json}
    return [name for name, needs in needed.items() if needs]


def _missing(tier: Tier, needs: Sequence[str]) -> list[str]:
    return [name for name in needs if getattr(tier, name) is False]


def _has_room(tier: Tier, tokens: int) -> bool:
    return tier.context_window is None or tier.context_window >= tokens


def _refusal(tiers: Sequence[Tier], needs: Sequence[str], tokens: int) -> str:
    """What the request needs and each tier lacks; room only where some tier has too little."""
    wanted, lacks = [_NAMES[name] for name in needs], []
    if not all(_has_room(tier, tokens) for tier in tiers):
        wanted.append(f"at least {tokens:,} tokens of context")
    for tier in tiers:
        lacking = [_NAMES[name] for name in _missing(tier, needs)]
        if not _has_room(tier, tokens):
            lacking.append(f"room, with {tier.context_window:,} tokens")
        lacks.append(f"{tier.name} lacks {' and '.join(lacking)}")
    return f"no tier can take it: it needs {' and '.join(wanted)}; {'; '.join(lacks)}"
