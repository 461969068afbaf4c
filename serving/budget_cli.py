"""`tierwise budget`: what may be spent, by whom."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal

import click
from pydantic import ValidationError

from serving.ledger.budgets import SCOPES, Budget, BudgetStatus, Period, Scope
from serving.ledger.report import usd
from serving.ledger.sqlite.store import SqliteLedger
from serving.settings import read_settings
from serving.tiers import PICO_PER_USD


@click.group()
def budget() -> None:
    """What may be spent, by a team, feature, user or by all."""


_WHOSE = [
    click.option("--team", help="Of a team."),
    click.option("--feature", help="Of a feature."),
    click.option("--user", help="Of a user."),
    click.option("--all", "everybody", is_flag=True, help="Of everybody together."),
    click.option("--per", "period", type=click.Choice(["day", "month"]), required=True),
]


def _whose(command: "click.decorators.FC") -> "click.decorators.FC":
    for option in reversed(_WHOSE):
        command = option(command)
    return command


@budget.command("set")
@_whose
@click.option("--usd", "limit", type=str, required=True, help="Dollars for a period.")
@click.option("--zone", default="UTC", show_default=True, help="Time zone in which days and months begin.")
@click.option("--hard", is_flag=True, help="Refuse what would pass it. Without: tell, and go on.")
@click.option("--alert-at", type=float, default=0.8, show_default=True, help="Share of it from which it is told.")
def set_budget(
    team: str | None, feature: str | None, user: str | None, everybody: bool, period: Period, limit: str, zone: str,
    hard: bool, alert_at: float,
) -> None:  # fmt: skip
    """Set a budget, or change it; a running service follows within two seconds. What was spent in the period counts."""
    scope, value = _scope(team, feature, user, everybody)
    try:
        pico = Decimal(limit) * PICO_PER_USD
        if not pico.is_finite() or pico != pico.to_integral_value():
            raise ValueError
    except (ArithmeticError, ValueError):
        raise click.BadParameter(f"{limit!r} is not a number of dollars", param_hint="--usd") from None
    try:
        new = Budget(scope=scope, value=value, period=period, zone=zone, limit_pico_usd=int(pico), hard=hard,
                     alert_at=alert_at)  # fmt: skip
    except ValidationError as error:
        first = error.errors()[0]
        raise click.UsageError(f"{first['loc'][0]}: {first['msg']}") from None
    with _ledger() as ledger:
        ledger.set_budget(new)
    click.echo(f"{new}: {usd(new.limit_pico_usd)} USD")


@budget.command()
@_whose
def remove(team: str | None, feature: str | None, user: str | None, everybody: bool, period: Period) -> None:
    """Take a budget away."""
    scope, value = _scope(team, feature, user, everybody)
    with _ledger() as ledger:
        if not ledger.remove_budget(Budget(scope=scope, value=value, period=period, limit_pico_usd=0)):
            raise click.ClickException(
                f"there is no budget of {scope} {value!r} for a {period}; see: tierwise budget list"
            )
    click.echo("removed")


@budget.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def list_budgets(as_json: bool) -> None:
    """The budgets."""
    with _ledger() as ledger:
        found = ledger.budgets()
    if as_json:
        click.echo(json.dumps({"budgets": [_as_json(one) for one in found]}))
        return
    for one in found:
        click.echo(f"{one} ({one.zone}): {usd(one.limit_pico_usd)} USD, told from {one.alert_at:.0%}")
    if not found:
        click.echo("no budget is set; see: tierwise budget set --help", err=True)


@budget.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(as_json: bool) -> None:
    """What is spent of each budget in its present period, and what is left."""
    with _ledger() as ledger:
        found = ledger.budget_status(datetime.now(UTC))
    if as_json:
        click.echo(json.dumps({"budgets": [_status_json(one) for one in found]}))
        return
    for one in found:
        click.echo(
            f"{one.budget}: {usd(one.spent_pico_usd)} of {usd(one.budget.limit_pico_usd)} USD spent, "
            f"{usd(one.reserved_pico_usd)} held, {usd(one.left_pico_usd)} left until {one.resets_at.isoformat()}"
        )
    if not found:
        click.echo("no budget is set; see: tierwise budget set --help", err=True)


def _scope(team: str | None, feature: str | None, user: str | None, everybody: bool) -> tuple[Scope, str]:
    named = {"tenant": "default" if everybody else None, "team": team, "feature": feature, "user": user}
    given = [(scope, value) for scope in SCOPES if (value := named[scope])]
    if len(given) != 1:
        raise click.UsageError("give one of --team, --feature, --user and --all")
    return given[0]


@contextmanager
def _ledger() -> Iterator[SqliteLedger]:
    ledger = SqliteLedger(read_settings().home / "ledger.db")
    try:
        yield ledger
    finally:
        ledger.close()


def _as_json(one: Budget) -> dict[str, object]:
    return one.model_dump(exclude={"limit_pico_usd"}) | {"limit_usd": str(usd(one.limit_pico_usd))}


def _status_json(one: BudgetStatus) -> dict[str, object]:
    return _as_json(one.budget) | {
        "spent_usd": str(usd(one.spent_pico_usd)),
        "reserved_usd": str(usd(one.reserved_pico_usd)),
        "left_usd": str(usd(one.left_pico_usd)),
        "resets_at": one.resets_at.isoformat(),
    }
