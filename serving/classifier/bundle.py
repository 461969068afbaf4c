"""What a router is on disk: a folder of data, checked on the way in.

    bundle.json        the manifest: tiers, encoder identity, feature names, thresholds, metrics, file hashes
    heads.npz          heads with their prior and projection, features-only heads (arrays, never pickles)
    calibration.npz    predictions and outcomes the thresholds were chosen on, to choose again when prices change
    golden.jsonl       prompts → probabilities, compared at load on the machine that serves
    trained_on.npz     embeddings, features and labels of prompts it was fitted on, if it remembers any; no texts

A bundle without an encoder has only the features-only heads; Tierwise falls back on one of that kind.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.classifier.encoder import EncoderIdentity
from serving.classifier.features import FEATURE_NAMES, FEATURES_VERSION
from serving.classifier.heads import Heads
from serving.classifier.proba import FloatArray
from serving.classifier.trained_on import TrainedOn
from serving.errors import BundleError
from serving.tiers import Tier

FORMAT: Final = 2
_FILES: Final = ("heads.npz", "calibration.npz", "golden.jsonl")
_TRAINED_ON: Final = "trained_on.npz"


class Threshold(BaseModel):
    """The μ that holds a target of retained quality, or why there is none.

    mu: acceptable answers per unit of expected cost; None when the calibration logs cannot support the target.
    labels_needed: a rough count of labelled prompts that could, None when more would not help.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: float
    confidence: float
    mu: float | None
    refused: str | None = None
    labels_needed: int | None = None


class Golden(BaseModel):
    """A prompt and what the bundle gave for it where it was trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str
    proba: tuple[float, ...]


class Manifest(BaseModel):
    """What `bundle.json` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[2] = FORMAT
    created: datetime
    tiers: tuple[Tier, ...]
    encoder: EncoderIdentity | None
    features_version: int
    feature_names: tuple[str, ...]
    acceptable_from: float = 0.5
    thresholds: tuple[Threshold, ...]
    fallback_thresholds: tuple[Threshold, ...]
    metrics: dict[str, float]
    dataset_digest: str
    golden_tolerance: float
    files: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Predictions:
    """P(acceptable) and expected output tokens per tier, (n, k)."""

    proba: FloatArray
    output_tokens: FloatArray


@dataclass(frozen=True)
class CalibrationSet:
    """Held-out prompts: what the bundle predicted and what happened; n = prompts, k = tiers.

    predicted: by the heads; by the features-only heads in a bundle without an encoder. fallback: always by
    the features alone. input_tokens: float32 (n,). acceptable: float32 (n, k), share of acceptable answers,
    NaN where the tier was not tried. weight: float32 (n, k), inverse propensity clipped at max_weight, NaN where
    none was logged.
    """

    predicted: Predictions
    fallback: Predictions
    input_tokens: NDArray[np.float32]
    acceptable: NDArray[np.float32]
    weight: NDArray[np.float32]
    max_weight: float


@dataclass(frozen=True)
class Bundle:
    """A loaded router: heads and what is needed to turn their output into decisions."""

    manifest: Manifest
    digest: str
    heads: Heads | None
    fallback_heads: Heads
    calibration: CalibrationSet
    golden: tuple[Golden, ...]
    trained_on: TrainedOn | None = None

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """The ladder, cheapest first."""
        return self.manifest.tiers

    def predict(self, embeddings: FloatArray | None, features: FloatArray) -> Predictions:
        """Predictions for n prompts. embeddings: (n, d), or None to use the features alone. features: (n, f)."""
        if embeddings is None or self.heads is None:
            return Predictions(*self.fallback_heads.predict(None, features))
        return Predictions(*self.heads.predict(embeddings, features))


def read_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`.

    Raises BundleError when a file is missing or does not have the hash the manifest gives, when the format or
    the features are not this version's, or when shapes do not fit together.
    """
    try:
        raw = (folder / "bundle.json").read_bytes()
    except OSError as error:
        raise BundleError(f"{folder}: no bundle here ({error.strerror}); train one: tierwise train") from None
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BundleError(
            f"{folder}/bundle.json: {where}: {first['msg']}; this version reads format {FORMAT}"
        ) from None
    remembers = _TRAINED_ON in manifest.files and manifest.encoder is not None
    for name in (*_FILES, _TRAINED_ON) if remembers else _FILES:
        _check_hash(folder / name, manifest.files.get(name))
    if (manifest.features_version, manifest.feature_names) != (FEATURES_VERSION, FEATURE_NAMES):
        raise BundleError(f"{folder}: was trained with other features than this version computes; train it again")

    tiers, columns = len(manifest.tiers), len(FEATURE_NAMES)
    arrays = _arrays(folder / "heads.npz")
    heads = trained_on = None
    if manifest.encoder is not None:
        dimension = manifest.encoder.dimension
        heads = Heads.from_arrays(arrays, "heads", dimension=dimension, columns=columns, tiers=tiers)
        if remembers:
            remembered = _arrays(folder / _TRAINED_ON)
            trained_on = TrainedOn.from_arrays(remembered, dimension=dimension, columns=columns, tiers=tiers)
    return Bundle(
        manifest=manifest,
        digest=hashlib.sha256(raw).hexdigest(),
        heads=heads,
        fallback_heads=Heads.from_arrays(arrays, "fallback", dimension=0, columns=columns, tiers=tiers),
        calibration=_calibration(_arrays(folder / "calibration.npz"), tiers),
        golden=_golden(folder / "golden.jsonl", tiers),
        trained_on=trained_on,
    )


def write_bundle(folder: Path, bundle: Bundle) -> Bundle:
    """Write a bundle to `folder`, replacing what is there, and give it back as read from disk.

    Readers never see half of one. The file hashes and the digest are made here.
    """
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    arrays = bundle.fallback_heads.to_arrays("fallback")
    if bundle.heads is not None:
        arrays |= bundle.heads.to_arrays("heads")
    np.savez_compressed(draft / "heads.npz", **arrays)  # type: ignore[arg-type]
    np.savez_compressed(draft / "calibration.npz", **_calibration_arrays(bundle.calibration))  # type: ignore[arg-type]
    (draft / "golden.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in bundle.golden), "utf-8")
    names = list(_FILES)
    if bundle.trained_on is not None:  # not compressed: int8 embeddings hardly shrink, and every worker reads them
        np.savez(draft / _TRAINED_ON, **bundle.trained_on.to_arrays())  # type: ignore[arg-type]
        names.append(_TRAINED_ON)
    hashes = {name: _sha256(draft / name) for name in names}
    manifest = bundle.manifest.model_copy(update={"files": hashes})
    (draft / "bundle.json").write_text(manifest.model_dump_json(indent=1), "utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(draft, folder)
    return read_bundle(folder)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _check_hash(path: Path, expected: str | None) -> None:
    try:
        found = _sha256(path)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}; the bundle is incomplete") from None
    if found != expected:
        raise BundleError(
            f"{path}: sha256 is {found[:12]}…, the manifest says {str(expected)[:12]}…: it was changed or damaged"
        )


def _arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, OSError, KeyError, EOFError) as error:
        raise BundleError(f"{path}: cannot be read as arrays: {error}") from None


def _calibration_arrays(calibration: CalibrationSet) -> dict[str, NDArray[np.float32]]:
    arrays = {name: getattr(calibration, name) for name in ("input_tokens", "acceptable", "weight", "max_weight")}
    for source in ("predicted", "fallback"):
        arrays |= {f"{source}.{name}": array for name, array in vars(getattr(calibration, source)).items()}
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


def _calibration(arrays: dict[str, NDArray[np.generic]], tiers: int) -> CalibrationSet:
    rows = len(arrays.get("input_tokens", ()))

    def stored(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        if name not in arrays or arrays[name].shape != shape:
            raise BundleError(f"calibration.npz: {name} is not an array of shape {shape}; train the router again")
        return np.asarray(arrays[name], np.float32)

    def predictions(source: str) -> Predictions:
        return Predictions(*(stored(f"{source}.{name}", (rows, tiers)) for name in ("proba", "output_tokens")))

    return CalibrationSet(
        predicted=predictions("predicted"),
        fallback=predictions("fallback"),
        input_tokens=stored("input_tokens", (rows,)),
        acceptable=stored("acceptable", (rows, tiers)),
        weight=stored("weight", (rows, tiers)),
        max_weight=float(stored("max_weight", ())),
    )


def _golden(path: Path, tiers: int) -> tuple[Golden, ...]:
    try:
        rows = tuple(Golden.model_validate(json.loads(line)) for line in path.read_text("utf-8").splitlines())
    except (ValueError, ValidationError) as error:
        raise BundleError(f"{path}: not a golden file: {error}") from None
    if any(len(row.proba) != tiers for row in rows):
        raise BundleError(f"{path}: golden probabilities are not for {tiers} tiers")
    return rows
