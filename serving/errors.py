"""Every error Tierwise raises on purpose.

    TierwiseError
    ├── InputError            what a client or a user handed over is wrong; says where and what to do
    │   └── UnknownModelError nobody serves the model that was asked for
    ├── ConfigurationError    a setting or configuration file is wrong
    ├── EncoderError          the encoder is missing, or not the one that was promised
    ├── BundleError           a bundle cannot be used: format, hash, shapes, golden predictions
    ├── LabelError            the labels of a log do not support a router
    ├── LedgerError           the ledger cannot be written or read
    ├── BudgetError           a hard budget cannot bear another call
    ├── UpstreamError         a provider gave no answer, or one that is none
    ├── AccessError           a key is missing, or does not open what was asked
    └── RegistryError         a version, alias or promotion that cannot be

Each message states what was wrong, the value, and what to do about it.
"""


class TierwiseError(Exception):
    """The root: catch it to catch whatever Tierwise raises on purpose."""


class InputError(TierwiseError):
    """What was handed over is wrong. `where` is the path of the offending field, such as `messages[2].content`."""

    def __init__(self, message: str, *, where: str | None = None) -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.where = where


class UnknownModelError(InputError):
    """Nobody serves the model that was asked for."""


class ConfigurationError(TierwiseError):
    """A setting or a configuration file is wrong."""


class EncoderError(TierwiseError):
    """The encoder is missing, or is not the one that was promised."""


class BundleError(TierwiseError):
    """A bundle cannot be used."""


class LabelError(TierwiseError):
    """The labels of a log do not support a router."""


class LedgerError(TierwiseError):
    """The ledger cannot be written or read."""


class BudgetError(TierwiseError):
    """A hard budget cannot bear another call. `retry_after_s`: until it begins anew."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UpstreamError(TierwiseError):
    """A provider gave no answer, or one that is none. Trying again may help.

    code: unreachable, timeout, connection, rate_limited, status or malformed; unavailable where none was asked. status,
    body: what it answered, if it did, body as JSON. retry_after_s: how long it asks to wait.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        body: bytes | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.body = body
        self.retry_after_s = retry_after_s


class AccessError(TierwiseError):
    """A key is missing, or does not open what was asked.

    code: invalid_api_key, not_allowed, model_not_allowed or rate_limit_exceeded. retry_after_s: of the last one.
    """

    def __init__(self, code: str, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s


class RegistryError(TierwiseError):
    """A version, an alias or a promotion that cannot be."""
