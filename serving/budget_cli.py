"""`tierwise budget`: what may be spent, by whom."""

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Concatenate, ParamSpec

import click
from pydantic import ValidationError

from serving.attribution import DEFAULT_TENANT
from serving.errors import InputError
from serving.ledger.budgets import Budget, BudgetStatus, Period, Scope
from serving.ledger.report import usd
from serving.ledger.sqlite.store import SqliteLedger
from serving.settings import read_settings
from serving.tiers import PICO_PER_USD

P = ParamSpec("P")


@click.group()
def budget() -> None:
    """What may be spent, by a team, feature, user, key or by all of a tenant."""


_WHOSE = [
    click.option("--team", help="Of a team."),
    click.option("--feature", help="Of a feature."),
    click.option("--user", help="Of a user."),
    click.option("--key", help="Of a key, by its id."),
    click.option("--all", "everybody", is_flag=True, help="Of everybody together."),
    click.option("--tenant", help="Whose team, feature, user or everybody it is.  [default: the one without keys]"),
    click.option("--per", "period", type=click.Choice(["day", "month"]), required=True),
]


@dataclass(frozen=True)
class _Whose:
    """The options that say it."""

    team: str | None
    feature: str | None
    user: str | None
    key: str | None
    everybody: bool
    tenant: str | None

    def of(self, ledger: SqliteLedger) -> tuple[str, Scope, str]:
        """Tenant, scope and value. Raises UsageError where they are not one, InputError for a key that is not there."""
        tenant = self.tenant or DEFAULT_TENANT
        named: dict[Scope, str | None] = {
            "tenant": tenant if self.everybody else None, "team": self.team, "feature": self.feature,
            "user": self.user, "api_key": self.key,
        }  # fmt: skip
        given = [(scope, value) for scope, value in named.items() if value]
        if len(given) != 1:
            raise click.UsageError("give one of --team, --feature, --user, --key and --all")
        ((scope, value),) = given
        if scope == "api_key":
            tenant = self._tenant_of_key(value, ledger)
        return tenant, scope, value

    def _tenant_of_key(self, id_: str, ledger: SqliteLedger) -> str:
        found = next((key.tenant for key in ledger.keys().values() if key.id == id_), None)
        if found is None:
            raise InputError(f"there is no key {id_!r}; see: tierwise keys list")
        if self.tenant not in (None, found):
            raise InputError(f"key {id_!r} is of tenant {found!r}, not {self.tenant!r}")
        return found


def _whose(command: Callable[Concatenate[_Whose, P], None]) -> Callable[..., None]:
    """Options of whose budget it is, as the first argument of a command."""

    @functools.wraps(command)
    def with_options(
        team: str | None, feature: str | None, user: str | None, key: str | None, everybody: bool, tenant: str | None,
        *args: P.args, **rest: P.kwargs,
    ) -> None:  # fmt: skip
        command(_Whose(team, feature, user, key, everybody, tenant), *args, **rest)

    for option in reversed(_WHOSE):
        with_options = option(with_options)
    return with_options


@budget.command("set")
@_whose
@click.option("--usd", "limit", type=str, required=True, help="Dollars for a period.")
@click.option("--zone", default="UTC", show_default=True, help="Time zone in which days and months begin.")
@click.option("--hard", is_flag=True, help="Refuse what would pass it. Without: tell, and go on.")
@click.option("--alert-at", type=float, default=0.8, show_default=True, help="Share of it from which it is told.")
def set_budget(whose: _Whose, period: Period, limit: str, zone: str, hard: bool, alert_at: float) -> None:
    """Set a budget, or change it; a running service follows within two seconds. What was spent in the period counts."""
    try:
        pico = Decimal(limit) * PICO_PER_USD
        if not pico.is_finite() or pico != pico.to_integral_value():
            raise ValueError
    except (ArithmeticError, ValueError):
        raise click.BadParameter(f"{limit!r} is not a number of dollars", param_hint="--usd") from None
    with _ledger(made=True) as ledger:
        tenant, scope, value = whose.of(ledger)
        try:
            new = Budget(tenant=tenant, scope=scope, value=value, period=period, zone=zone, limit_pico_usd=int(pico),
                         hard=hard, alert_at=alert_at)  # fmt: skip
        except ValidationError as error:
            raise click.UsageError(_wrong(error)) from None
        ledger.set_budget(new)
    click.echo(f"{new}: {usd(new.limit_pico_usd)} USD")


@budget.command()
@_whose
def remove(whose: _Whose, period: Period) -> None:
    """Take a budget away."""
    with _ledger() as ledger:
        tenant, scope, value = whose.of(ledger)
        same = Budget(tenant=tenant, scope=scope, value=value, period=period, limit_pico_usd=0)
        if not ledger.remove_budget(same):
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


def _wrong(error: ValidationError) -> str:
    first = error.errors()[0]
    name = {"limit_pico_usd": "usd"}.get(str(first["loc"][0]), str(first["loc"][0])).replace("_", "-")
    return f"--{name}: {first['msg'].removeprefix('Value error, ')}"


@contextmanager
def _ledger(*, made: bool = False) -> Iterator[SqliteLedger]:
    """made: where there is none. Raises InputError otherwise: to look at budgets makes no ledger."""
    path = read_settings().home / "ledger.db"
    if not made and not path.exists():
        raise InputError(f"{path}: there is no ledger, and no budget")
    with closing(SqliteLedger(path)) as ledger:
        yield ledger


def _as_json(one: Budget) -> dict[str, object]:
    return one.model_dump(exclude={"limit_pico_usd"}) | {"limit_usd": str(usd(one.limit_pico_usd))}


def _status_json(one: BudgetStatus) -> dict[str, object]:
    return _as_json(one.budget) | {
        "spent_usd": str(usd(one.spent_pico_usd)),
        "reserved_usd": str(usd(one.reserved_pico_usd)),
        "left_usd": str(usd(one.left_pico_usd)),
        "resets_at": one.resets_at.isoformat(),
    }
