"""What a client may ask of a decision: a policy and its parameter, checked against what the router can keep."""

from dataclasses import dataclass
from typing import Final, Literal, Self

from serving.errors import InputError

PolicyName = Literal["quality", "share", "value"]
_PARAMETERS: Final[dict[str, str]] = {"quality": "target", "share": "max_share", "value": "usd"}
_MEANING: Final[dict[str, str]] = {
    "quality": "target is retained quality, such as 0.95",
    "share": "max_share is the largest share of calls that may go to the top tier, 0 to 1",
    "value": "usd is what an acceptable answer is worth, at least a pico-dollar",
}


@dataclass(frozen=True, slots=True)
class Policy:
    """`quality` keeps a target of retained quality, `share` caps calls to the top tier, `value` weighs dollars."""

    name: PolicyName
    parameter: float

    @classmethod
    def parse(cls, value: object, *, default: Self) -> Self:
        """The policy a request names: null, `"share:0.3"`, or `{"name": "share", "max_share": 0.3}`.

        The name of the default policy alone takes the default's parameter.
        Raises InputError saying what is wrong and what is accepted.
        """
        if value is None:
            return default
        if isinstance(value, str):
            name, _, parameter = value.partition(":")
            return cls._checked(name, parameter or None, default)
        if isinstance(value, dict):
            fields = dict(value)
            named = fields.pop("name", None)
            key = _PARAMETERS.get(named) if isinstance(named, str) else None
            given = fields.pop(key, None) if key else None
            if key and fields:
                raise InputError(f"has an unknown field {str(min(fields))[:40]!r}; {_accepted()}", where="policy")
            return cls._checked(named, given, default)
        raise InputError(f"must be a name or an object; {_accepted()}", where="policy")

    def __str__(self) -> str:
        """As a request may name it: `quality:0.95`."""
        return f"{self.name}:{self.parameter:g}"

    @classmethod
    def _checked(cls, name: object, parameter: object, default: Self) -> Self:
        if name not in ("quality", "share", "value"):
            raise InputError(f"{str(name)[:40]!r} is not a policy; {_accepted()}", where="policy")
        if parameter is None:
            if name == default.name:
                return default
            raise InputError(f"{name} needs {_PARAMETERS[name]}; {_MEANING[name]}", where="policy")
        number = _number(parameter)
        in_range = 1e-12 <= number < float("inf") if name == "value" else 0 <= number <= 1
        if not in_range:
            where = f"policy.{_PARAMETERS[name]}"
            raise InputError(f"{str(parameter)[:40]!r} does not fit: {_MEANING[name]}", where=where)
        return cls(name, number)


DEFAULT_POLICY: Final = Policy("quality", 0.95)


def _number(value: object) -> float:
    """nan for whatever is not a number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return float("nan")
    try:
        return float(value)
    except (ValueError, OverflowError):
        return float("nan")


def _accepted() -> str:
    return "use " + ", ".join(f"{name}:{parameter.upper()}" for name, parameter in _PARAMETERS.items())
