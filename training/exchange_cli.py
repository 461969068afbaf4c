"""`tierwise export` and `tierwise import`: data for other tools, and theirs."""

from contextlib import closing
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import click

from serving.errors import InputError
from serving.settings import read_settings


@click.command()
@click.argument("what", type=click.Choice(["events", "decisions", "traces"]))
@click.argument("out")
@click.option("--days", type=click.IntRange(1), help="Of the last days alone, today included, in UTC. Default: all.")
def export(what: str, out: str, days: int | None) -> None:
    """Write the ledger's events, or its decisions with what became of them, to OUT: .parquet or .csv.

    Or the decisions as MLflow's traces: to OUT.jsonl, or to experiment:NAME of MLflow's store.
    """
    from serving.ledger.sqlite.store import SqliteLedger
    from training.export import export_decisions, export_events
    from training.export_traces import export_traces

    home = read_settings().home
    path = home / "ledger.db"
    if not path.exists():
        raise InputError(f"{path}: there is no ledger")
    until = datetime.now(UTC) + timedelta(days=1)
    since = datetime(1970, 1, 1, tzinfo=UTC)
    if days is not None:
        since = datetime.combine(until.date() - timedelta(days=days), time(), UTC)
    with closing(SqliteLedger(path)) as ledger:
        if what == "traces":
            written = export_traces(ledger, out, home, since, until)
        else:
            written = (export_events if what == "events" else export_decisions)(ledger, Path(out), since, until)
    click.echo(f"{written:,} {what} in {out}")


@click.command("import")
@click.argument("form", metavar="FORMAT", type=click.Choice(["mlflow"]))
@click.argument("source", metavar="IN")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--outcome", default="acceptable", show_default=True, help="The assessment that says how an answer was.")
def import_(form: str, source: str, out: Path, outcome: str) -> None:  # noqa: ARG001 -- there is one so far
    """Write a log of another tool, FORMAT, as one that `train` reads: OUT.jsonl.

    mlflow: IN is a file of traces, one JSON a line, or experiment:NAME of MLflow's store.
    """
    from training.import_log import import_mlflow

    report = import_mlflow(source, out, read_settings().home, outcome)
    click.echo(f"{report}\nin {out}")
