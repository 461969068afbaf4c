"""The `tierwise` command: training and the registry, plus the commands of `serving.cli`."""

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

import serving.cli
import training.exchange_cli
from serving.errors import InputError, TierwiseError
from serving.settings import read_settings
from training.libraries import prepare_libraries

if TYPE_CHECKING:
    from serving.classifier.bundle import Manifest
    from training.encoders.parity import Precision
    from training.registry import Registry

_LEDGER: Final = "ledger"
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


class _LogOrLedger(click.Path):
    """A file, or the word `ledger`; a file of that name is `./ledger`."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        if value == _LEDGER:
            return _LEDGER
        return Path(super().convert(value, param, ctx))  # type: ignore[arg-type]


_LOG: Final = _LogOrLedger(exists=True, dir_okay=False, path_type=Path)


class _Tierwise(click.Group):
    """Turns the errors raised on purpose into a message and exit status 1."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except TierwiseError as error:
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:
            library = (error.name or "").split(".")[0]
            if library in ("serving", "training"):
                raise
            raise click.ClickException(
                f"{library} is not installed, and this command needs it: pip install 'tierwise[training]'"
            ) from error


@click.group(cls=_Tierwise)
@click.version_option(package_name="tierwise")
def tierwise() -> None:
    """Learns from your own LLM logs which model tier is enough for each prompt, and serves that decision."""


@tierwise.command()
@click.option(
    "--logs",
    multiple=True,
    type=_LOG,
    help="Logs or an outcome table; repeat for more. Or `ledger`. Default: the public outcomes.",
)
@click.option("--ladder", "ladder_file", type=_FILE, help="Which models make which tier (docs/log-format.md).")
@click.option("--prices", type=_FILE, help="CSV of list prices: model, usd_per_mtok_in, usd_per_mtok_out.")
@click.option("--config", "config_file", type=_FILE, help="TOML with a [training] section.")
@click.option("--promote", is_flag=True, help="Make it the champion unless it is worse on held-out prompts.")
@click.option("--force", is_flag=True, help="With --promote: even if it is worse. Recorded.")
@click.option("--strict", is_flag=True, help="End at the first bad line instead of setting it aside.")
@click.option(
    "--rejects",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where bad lines go. Default: under TIERWISE_HOME.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.argument("more_logs", nargs=-1, type=_LOG)
def train(
    logs: Sequence[Path | str],
    more_logs: Sequence[Path | str],
    ladder_file: Path | None,
    prices: Path | None,
    config_file: Path | None,
    promote: bool,
    force: bool,
    strict: bool,
    rejects: Path | None,
    as_json: bool,
) -> None:
    """Train a router and register it as a new version."""
    from training.config import read_config
    from training.data import ladder_for, ledger_data, log_data, public_data
    from training.pipeline import train as run
    from training.report import trained_json, trained_text

    if force and not promote:
        raise click.UsageError("--force goes with --promote")
    if not (logs or more_logs) and (prices or strict or rejects):
        raise click.UsageError("--prices, --strict and --rejects go with --logs")
    config, settings = read_config(config_file), read_settings()
    home = settings.home
    paths = [log for log in (*logs, *more_logs) if isinstance(log, Path)]
    if _LEDGER in (*logs, *more_logs):
        if paths or strict or rejects:
            raise click.UsageError("--logs ledger stands alone: no other log, --strict or --rejects goes with it")
        data = ledger_data(
            settings, ladder=ladder_for(Path(_LEDGER), ladder_file) if ladder_file else None, prices=prices
        )
    elif paths:
        ladder = ladder_for(paths[0], ladder_file) if ladder_file else None
        data = log_data(tuple(paths), home, say=_say, ladder=ladder, prices=prices, strict=strict, rejects=rejects)
    else:
        data = public_data(ladder_file)
    trained = run(data, home, config, promote=promote, force=force, say=_say)
    click.echo(json.dumps(trained_json(trained)) if as_json else trained_text(trained))


@tierwise.command()
@click.option("--router", "reference", required=True, help="A bundle's folder, a version, champion or challenger.")
@click.option("--outcomes", required=True, type=_FILE, help="An outcome table, or a log with outcomes.")
@click.option("--split", help="Only the prompts of this split of the table.")
@click.option("--weak", help="Judge as a pair: the model that stands for the lowest tier.")
@click.option("--strong", help="The model that stands for the top tier.")
@click.option("--ladder", "ladder_file", type=_FILE, help="Which models make which tier; default: the router's own.")
@click.option("--prices", type=_FILE, help="CSV of list prices: model, usd_per_mtok_in, usd_per_mtok_out.")
@click.option("--baselines", "names", help="Names with commas between, or none. Default: all.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def evaluate(
    reference: str,
    outcomes: Path,
    split: str | None,
    weak: str | None,
    strong: str | None,
    ladder_file: Path | None,
    prices: Path | None,
    names: str | None,
    as_json: bool,
) -> None:
    """Judge a router on outcomes it was not trained on, beside the baselines."""
    from training.evaluate import Outcomes, evaluate_router
    from training.evaluation.baselines.catalogue import chosen
    from training.evaluation.report import report_json
    from training.evaluation.text import report_text

    if (weak is None) != (strong is None):
        raise click.UsageError("--weak and --strong go together")
    if weak is not None and ladder_file is not None:
        raise click.UsageError("--ladder does not go with --weak and --strong")
    if weak is not None and weak == strong:
        raise click.UsageError(f"--weak and --strong are the same model, {weak!r}")
    pair = (weak, strong) if weak is not None and strong is not None else None
    asked = Outcomes(outcomes, split=split, pair=pair, ladder_file=ladder_file, prices=prices)
    try:
        wanted = chosen(names)
    except InputError as error:
        raise click.UsageError(str(error)) from None
    evaluation, subject = evaluate_router(reference, asked, read_settings().home, wanted=wanted, say=_say)
    if as_json:
        click.echo(json.dumps(report_json(evaluation, subject), allow_nan=False))
    else:
        click.echo(report_text(evaluation, subject))


@tierwise.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def routers(as_json: bool) -> None:
    """List the versions and their figures on held-out prompts."""
    from training.report import version_json, versions_text

    registry = _registry()
    versions = registry.versions()
    if as_json:
        click.echo(json.dumps({"routers": [version_json(version) for version in versions]}))
    elif versions:
        click.echo(versions_text(versions))
    else:
        click.echo(f"no router yet in {registry.home}; run: tierwise train", err=True)


@tierwise.command()
@click.argument("version")
def promote(version: str) -> None:
    """Make VERSION the champion; a running service follows within two seconds."""
    from serving.routing.policy import DEFAULT_POLICY, Policy
    from training.report import WITHOUT_TARGET

    registry = _registry()
    number = registry.resolve(version)
    manifest = registry.promote(number, fits=_fits_settings)
    click.echo(f"version {number} is the champion")
    policy = Policy.parse(read_settings().policy, default=DEFAULT_POLICY)
    refused = [t for t in manifest.thresholds if t.target == policy.parameter and t.mu is None]
    if policy.name == "quality" and refused:
        _say(f"its logs do not carry the target {policy.parameter:g}: {refused[0].refused}. {WITHOUT_TARGET}")


@tierwise.command()
def rollback() -> None:
    """Make the champion before this one the champion again."""
    click.echo(f"version {_registry().rollback(fits=_fits_settings)} is the champion again")


@tierwise.group()
def encoder() -> None:
    """What embeds the prompts."""


@encoder.command("export")
@click.argument("model")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="A new folder, or an encoder's to replace. Default: under TIERWISE_HOME, by its digest.",
)
@click.option("--name", help="What to call it. Default: as MODEL is called.")
@click.option("--prompt", help="What goes before every text, such as 'query: '. Default: what the model says.")
@click.option(
    "--precision", type=click.Choice(["int8", "fp32"]), default="int8", show_default=True, help="Of its dense layers."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def encoder_export(
    model: str, out: Path | None, name: str | None, prompt: str | None, precision: "Precision", as_json: bool
) -> None:
    """Make an encoder of MODEL, the name or folder of a sentence-transformers model.

    Written only if it embeds texts as the model does (docs/encoders.md).
    """
    from training.encoders.export import export_encoder
    from training.report import exported_json, exported_text

    encoders = read_settings().home / "encoders"
    exported = export_encoder(model, encoders, out=out, name=name, prompt=prompt, precision=precision)
    click.echo(json.dumps(exported_json(exported)) if as_json else exported_text(exported))


@tierwise.group()
def dataset() -> None:
    """The data in the box."""


@dataset.command("build")
@click.argument("tables", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Default: where training looks for them.")
@click.option(
    "--encoder",
    "setting",
    default="default",
    help="As `encoder` in [training]: default, multilingual, a name, a digest.",
)
def dataset_build(tables: Path, out: Path | None, setting: str) -> None:
    """Build the public outcomes from the folder TABLES; no text goes into them."""
    from training.data import DATASETS
    from training.encoders import chosen_encoder
    from training.fitting.embeddings import EmbeddingStore
    from training.public_outcomes import build_public_outcomes

    home = read_settings().home
    encoder = chosen_encoder(home, setting)
    out = out or DATASETS / "public_outcomes.parquet"
    prompts = build_public_outcomes(tables, out, encoder, EmbeddingStore(home / "embeddings", encoder))
    click.echo(f"{prompts:,} prompts in {out}, {out.stat().st_size / 1e6:.1f} MB")


@dataset.command("fallback")
@click.argument("reference")
def dataset_fallback(reference: str) -> None:
    """Make the features-only heads of a version the built-in router that serves before any is promoted."""
    from serving.classifier.bundle import write_bundle
    from serving.routing.promoted import BUILT_IN
    from training.fitting.router import without_encoder

    registry = _registry()
    with registry.bundle(registry.resolve(reference)) as (_, bundle):
        write_bundle(BUILT_IN, without_encoder(bundle))
    click.echo(f"{BUILT_IN} written")


for command in (*serving.cli.COMMANDS, training.exchange_cli.export, training.exchange_cli.import_):
    tierwise.add_command(command)


def main() -> None:
    """The console script."""
    prepare_libraries()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    tierwise()


def _fits_settings(manifest: "Manifest") -> None:
    """Raises ConfigurationError when the service would refuse the version."""
    from serving.routing.policy import DEFAULT_POLICY, Policy
    from serving.routing.promoted import check_settings

    settings = read_settings()
    check_settings(manifest, settings.ladder, Policy.parse(settings.policy, default=DEFAULT_POLICY), settings.pins)


def _registry() -> "Registry":
    from training.registry import Registry

    return Registry(read_settings().home)


def _say(line: str) -> None:
    click.echo(line, err=True)
