"""What a router is trained or judged on: a log or table, the ladder of its models, and their prices."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from serving.errors import InputError
from serving.routing.promoted import is_promoted, promoted_manifest
from serving.settings import Settings
from training.logs.ladder import Ladder, read_ladder, read_prices
from training.logs.ladder_of_log import LadderCollector
from training.logs.outcome_table import table_name
from training.logs.readers import read_log
from training.logs.rejects import ReadReport, RejectFile, rejects_path

Say = Callable[[str], None]
Source = Literal["public", "logs", "ledger"]
DATASETS: Final = Path(__file__).parent.parent / "datasets"


@dataclass(frozen=True)
class Data:
    """source: the public outcomes at `path`, the `logs`, the first of which is at `path`, or the ledger there. licence:
    under which terms the data may be used. other_models: those with answers that are not on the ladder.
    """

    name: str
    path: Path
    ladder: Ladder
    source: Source
    licence: str
    logs: tuple[Path, ...] = ()
    other_models: tuple[str, ...] = ()


def public_data(ladder_file: Path | None = None) -> Data:
    """The outcomes in the box, on their own ladder or on another of the same models."""
    ladder = read_ladder(ladder_file or DATASETS / "public_ladder.json")
    licence = "MMLU-Pro Apache-2.0, LLMRouter and RouterBench MIT; sources in datasets/README.md"
    return Data("public outcomes", DATASETS / "public_outcomes.parquet", ladder, "public", licence)


def ladder_for(log: Path, file: Path) -> Ladder:
    """The ladder in a file, which may hold one for each of several tables."""
    return read_ladder(file, table_name(log))


def ledger_data(settings: Settings, *, ladder: Ladder | None = None, prices: Path | None = None) -> Data:
    """The decisions in the ledger, on the ladder given, or that of the settings, or of the router in service.

    Raises InputError when there is no ledger, or no ladder.
    """
    path = settings.home / "ledger.db"
    if not path.exists():
        raise InputError(f"{path}: there is no ledger yet; it begins with `tierwise serve`", where="--logs ledger")
    if ladder is None:
        manifest = promoted_manifest(settings.home) if is_promoted(settings.home) else None
        tiers = settings.ladder or (manifest.tiers if manifest is not None else None)
        if tiers is None:
            raise InputError("has no ladder: set tiers in tierwise.toml, or give --ladder", where="--logs ledger")
        ladder = Ladder(tiers=tiers)
    if prices is not None:
        ladder = ladder.with_prices(read_prices(prices))
    licence = "your own traffic; the router holds embeddings and hashes of its prompts, no text"
    return Data("ledger", path, ladder, "ledger", licence)


def log_data(
    paths: tuple[Path, ...],
    home: Path,
    *,
    say: Say,
    ladder: Ladder | None = None,
    prices: Path | None = None,
    strict: bool = False,
    rejects: Path | None = None,
) -> Data:
    """Reads logs once, to report what cannot be read and to learn the ladder and prices they show.

    ladder: what was given; prices: a CSV of list prices; rejects: where bad lines go, under `home` by default.
    Raises InputError as `read_log` does, and when no ladder is given and none can be told from the log.
    """
    collector, report = LadderCollector(), ReadReport()
    with RejectFile(rejects or rejects_path(home, paths[0].name)) as file:
        for request in read_log(paths, strict=strict, rejects=file, ladder=ladder, report=report):
            collector.see(request)
    say(f"{', '.join(map(str, paths))}: {report}")
    if report.rejected:
        say(f"rejects are in {file.path}")
    known = ladder or collector.ladder()
    if prices is not None:
        known = known.with_prices(read_prices(prices))
    known, estimates = collector.priced(known)
    for estimate in estimates:
        say(f"price of {estimate}")
    for tier in known.tiers:
        if not tier.priced:
            say(f"price of {tier.name}: unknown; costs are counted in steps of the ladder (--prices sets it)")
    name = " + ".join(path.name for path in paths)
    licence = "your own log; the router holds embeddings and hashes of its prompts, no text"
    return Data(name, paths[0], known, "logs", licence, paths, tuple(sorted(report.off_ladder)))
