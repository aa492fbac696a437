"""Texts of foreign origin, made fit for every output."""

from __future__ import annotations

import unicodedata

# Control characters, halves of characters (of file names that are no UTF-8), ends of lines and paragraphs.
UNFIT = ("Cc", "Cs", "Zl", "Zp")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def is_unfit(character: str) -> bool:
    """Whether a character cannot be shown or encoded."""
    return character == REPLACEMENT or unicodedata.category(character) in UNFIT


def readable(text: str, limit: int | None = None) -> str:
    """A text in one line that can be shown and encoded.

    Args:
        text: of a header, a file name, a message.
        limit: characters that are kept; None keeps all.
    """
    line = " ".join(str(text).split())
    line = "".join(REPLACEMENT if is_unfit(each) else each for each in line)
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"
