"""How is JSON read without losing a digit of money, and without a bad text ending the run?"""

import json
import math
from typing import Self

from serving.errors import InputError


class JsonNumber(float):
    """A number of a JSON text that remembers how it was written.

    Money is read from `text`, so no float touches it; everything else, such as the numbers in a tool's
    schema, stays a plain number that can be written as JSON again, which a Decimal cannot.
    """

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, text)
        if not math.isfinite(number):
            raise ValueError("holds a number too large for JSON readers")
        number.text = text
        return number


def parse_json(text: str, *, where: str | None = None) -> object:
    """The value in `text`, its fractional numbers as JsonNumber.

    Raises InputError, which never quotes the text, if it is not JSON (NaN and Infinity are not) or is nested
    deeper than Python's recursion limit.
    """
    try:
        return json.loads(text, parse_float=JsonNumber, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise InputError(
            f"is not JSON: {error.msg.removesuffix(' at')} at character {error.pos + 1}", where=where
        ) from None
    except RecursionError:
        raise InputError("is nested too deeply to be read", where=where) from None
    except ValueError as error:  # _refuse_constant, JsonNumber, and integers of more than 4300 digits
        raise InputError(str(error), where=where) from None


def _refuse_constant(name: str) -> object:
    raise ValueError(f"holds {name}, which is not JSON; leave the field out")
