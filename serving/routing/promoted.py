"""Which router serves: the promoted one, verified before it is swapped in, or the last that was good.

A folder, `TIERWISE_HOME` or the model inside a bento, holds

    served/current.json           which bundle serves; replaced last and atomically by a promotion
    served/<folder>/              the bundle
    encoders/<digest>/            the encoder, once for all bundles
"""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from serving.attribution import Pin, pinned_elsewhere
from serving.classifier.bundle import Manifest, read_bundle
from serving.classifier.classifier import Classifier
from serving.classifier.encoder import EmbeddingMemo, Encoder, EncoderIdentity
from serving.errors import BundleError, ConfigurationError, EncoderError, TierwiseError
from serving.routing.costs import priced
from serving.routing.policy import DEFAULT_POLICY, Policy
from serving.routing.router import Router
from serving.tiers import Tier

logger = logging.getLogger(__name__)

BUILT_IN: Final = Path(__file__).parent.parent / "classifier" / "fallback"


class Pointer(BaseModel):
    """What `current.json` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    folder: str
    digest: str


def pointed_to(home: Path) -> Pointer:
    """What was promoted last. Raises BundleError when nothing was, or the pointer cannot be read."""
    path = home / "served" / "current.json"
    try:
        return Pointer.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise BundleError("no router is promoted; run: tierwise train --promote") from None
    except (OSError, ValidationError) as error:
        raise BundleError(f"{path} is not a pointer to a bundle: {error}; promote a version again") from None


def is_promoted(home: Path) -> bool:
    """Whether anything was promoted to `home`."""
    return (home / "served" / "current.json").exists()


def check_settings(
    manifest: Manifest, tiers: tuple[Tier, ...] | None, policy: Policy, pins: Sequence[Pin] = ()
) -> None:
    """Raises ConfigurationError when the settings do not fit a router, which the service would then refuse."""
    trained = [tier.name for tier in manifest.tiers]
    if tiers is not None and [tier.name for tier in tiers] != trained:
        given = ", ".join(tier.name for tier in tiers)
        raise ConfigurationError(f"tiers: the router was trained for {', '.join(trained)}, not for {given}")
    if wrong := pinned_elsewhere(pins, trained):
        raise ConfigurationError(f"pins: {wrong}")
    if policy.name == "value" and not priced(tiers or manifest.tiers):
        raise ConfigurationError(
            "policy: value needs a price for every tier, which this router lacks; train with --prices, or give "
            "usd_per_mtok_in and usd_per_mtok_out with the tiers in the settings"
        )
    targets = [threshold.target for threshold in manifest.thresholds]
    if policy.name == "quality" and not any(math.isclose(policy.parameter, target) for target in targets):
        offered = ", ".join(f"{target:g}" for target in targets)
        raise ConfigurationError(
            f"policy: the router was not calibrated for the target {policy.parameter:g}; it has {offered}"
        )


def promoted_manifest(home: Path) -> Manifest | None:
    """What the promoted router says of itself; None where that cannot be read, which is the workers' business."""
    pointer = pointed_to(home)
    try:
        return Manifest.model_validate_json((home / "served" / pointer.folder / "bundle.json").read_bytes())
    except (OSError, ValidationError):
        return None


_FileState = tuple[int, int, int] | None
_Signature = tuple[_FileState, _FileState]


def _stat(path: Path) -> _FileState:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


class PromotedRouter:
    """The router in service: the built-in fallback until the first `refresh`.

    `problem` says why the promoted router, or its encoder, is not in use; None when it is.
    """

    def __init__(
        self,
        home: Path,
        *,
        tiers: tuple[Tier, ...] | None = None,
        policy: Policy = DEFAULT_POLICY,
        pins: Sequence[Pin] = (),
        memo_size: int = 10_000,
    ) -> None:
        """A router that cannot follow `policy`, that of requests that name none, or the operator's pins is refused."""
        self.home = home
        self.problem: str | None = "the promoted router is not loaded yet"
        self._tiers = tiers
        self._policy = policy
        self._pins = pins
        self._memo_size = memo_size
        self._memo: EmbeddingMemo | None = None
        self._seen: _Signature | None = None
        built_in = Classifier(read_bundle(BUILT_IN), None)
        self.router = Router(built_in, "built-in", tiers=tiers, by_position=True)

    def refresh(self) -> bool | None:
        """Take over a new promotion: True taken, False refused with `problem` set, None nothing new."""
        signature = self._signature()
        if signature == self._seen:
            return None
        self._seen = signature
        try:
            self.router, self.problem = self._promoted()
        except TierwiseError as error:
            self.problem = str(error)
            logger.warning("promoted router refused, %s serves on: %s", self.router.name, error)
            return False
        logger.info("router %s serves", self.router.name)
        return True

    def _signature(self) -> _Signature:
        """Changes with a promotion, and with an encoder that is put where it was missing."""
        return _stat(self.home / "served" / "current.json"), _stat(self.home / "encoders")

    def _promoted(self) -> tuple[Router, str | None]:
        """The promoted router, and what is wrong with it that it can serve with."""
        pointer = pointed_to(self.home)
        bundle = read_bundle(self.home / "served" / pointer.folder)
        if bundle.digest != pointer.digest:
            raise BundleError(f"{pointer.folder} is not the bundle that was promoted; promote it again")
        try:
            memo = self._memo_for(bundle.manifest.encoder)
        except EncoderError as error:
            if self._memo is not None:  # a router with an encoder serves, and is better than one without
                raise
            return Router(Classifier(bundle, None), pointer.version, tiers=self._tiers), str(error)
        classifier = Classifier(bundle, memo)
        classifier.check_golden()
        router = Router(classifier, pointer.version, tiers=self._tiers)
        router.accepts(self._policy, self._pins)
        self._memo = memo
        return router, None

    def _memo_for(self, identity: EncoderIdentity | None) -> EmbeddingMemo | None:
        if identity is None:
            return None
        if self._memo is not None and self._memo.encoder.identity == identity:
            return self._memo
        encoder = Encoder.load(self.home / "encoders" / identity.digest, expected=identity)
        return EmbeddingMemo(encoder, self._memo_size)
