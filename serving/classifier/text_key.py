"""By what a prompt is known where its text is not kept."""

import hashlib


def text_key(text: str) -> bytes:
    """sha256 of a text, in hex: what its embedding is kept by, and what a data set or the request log says instead."""
    return hashlib.sha256(text.encode()).hexdigest().encode()
