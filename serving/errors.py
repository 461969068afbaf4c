"""Every error Tierwise raises on purpose.

    TierwiseError
    ├── InputError            what a client or a user handed over is wrong; says where and what to do
    ├── ConfigurationError    a setting or configuration file is wrong
    ├── EncoderError          the encoder is missing, or not the one that was promised
    ├── BundleError           a bundle cannot be used: format, hash, shapes, golden predictions
    ├── LabelError            the labels of a log do not support a router
    ├── LedgerError           the ledger cannot be written or read
    ├── BudgetError           a hard budget cannot bear another call
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


class RegistryError(TierwiseError):
    """A version, an alias or a promotion that cannot be."""
