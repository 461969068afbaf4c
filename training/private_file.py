"""Files that hold prompts: for their owner's eyes only, and in place only when they are whole."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from serving.errors import InputError


@contextmanager
def private_file(path: Path) -> Iterator[IO[str]]:
    """Text to be written, which takes the place of `path` at the end of the block; without one, nothing changes.

    Raises InputError when it cannot be written there.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # its mode is 0600
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(path)) from None
    part = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(path)) from None
    finally:
        part.unlink(missing_ok=True)
