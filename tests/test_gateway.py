"""The official client through the service, and straight to the provider: the same answers, all of it written down."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import ValidationError

from serving.classifier.bundle import Bundle
from serving.ledger.events import Event
from serving.ledger.sqlite.store import SqliteLedger
from serving.settings import Settings
from tests.gateway import MODELS, client_of, gateway
from tests.stand_in.server import StandIn, running
from tests.test_stand_in import SAID, TOOL, Bill


def ask(through: OpenAI, **changes: Any) -> Any:
    return through.chat.completions.create(**{"model": "small", "messages": SAID, **changes})


def events(folder: Path) -> list[Event]:
    now = datetime.now(UTC)
    with closing(SqliteLedger(folder / "ledger.db")) as ledger:
        return list(ledger.events(now - timedelta(hours=1), now + timedelta(hours=1)))


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
ASKED: tuple[dict[str, Any], ...] = (
    {}, {"n": 2}, {"seed": 7, "temperature": 0}, {"logprobs": True, "top_logprobs": 0}, {"max_completion_tokens": 5},
    {"messages": [{"role": "user", "content": "use look_up"}], "tools": [TOOL]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, IMAGE]}]},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "bill", "schema": Bill.model_json_schema()}}},
    {"extra_body": {"a_field_of_tomorrow": {"x": [1, 2.5, None]}}},
)  # fmt: skip


@pytest.mark.parametrize("changes", ASKED)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_the_same_as_straight_from_the_provider(
    through: OpenAI, stand_in: StandIn, changes: dict[str, Any], stream: bool
) -> None:
    with running(StandIn(models=MODELS)) as straight, client_of(straight) as other:
        found, expected = ask(through, stream=stream, **changes), ask(other, stream=stream, **changes)
        if stream:
            found, expected = list(found), list(expected)
    assert dumped(found) == dumped(expected)
    (body,) = stand_in.asked
    assert body.get("a_field_of_tomorrow") == changes.get("extra_body", {}).get("a_field_of_tomorrow")


def dumped(found: Any) -> Any:
    """But for the id and the second it was made, which no two answers share."""
    if isinstance(found, list):
        return [dumped(one) for one in found]
    return found.model_dump(exclude={"id", "created"})


def test_auto_is_answered_by_a_model_of_the_ladder_and_the_headers_say_why(through: OpenAI, tmp_path: Path) -> None:
    raw = through.chat.completions.with_raw_response.create(
        model="auto",
        messages=SAID,
        metadata={"team": "search", "colour": "red"},  # type: ignore[arg-type]
    )
    found = raw.parse()
    assert found.model in MODELS
    assert raw.headers["x-tierwise-tier"] in ("economy", "standard", "premium")
    assert raw.headers["x-tierwise-router"].startswith("7@")
    assert raw.headers["x-tierwise-attempts"] == "1"
    (event,) = events(tmp_path)
    assert event.decision_id == raw.headers["x-tierwise-decision"]
    assert (event.team, event.model, event.tier, event.status) == (
        "search", found.model, raw.headers["x-tierwise-tier"], "ok",
    )  # fmt: skip
    assert found.usage is not None
    assert event.usage is not None
    assert event.usage.input_tokens == found.usage.prompt_tokens
    assert event.cost is not None
    assert float(raw.headers["x-tierwise-cost-usd"]) == event.cost.pico_usd / 1e12
    assert event.completion_id == found.id


def test_our_metadata_stays_here_and_the_rest_goes_on(through: OpenAI, stand_in: StandIn, tmp_path: Path) -> None:
    ask(through, metadata={"team": "search", "colour": "red"}, user="ann")
    ask(
        through, metadata={"feature": "chat"}, extra_headers={"x-tierwise-team": "legal", "x-tierwise-session-id": "s1"}
    )
    assert [body.get("metadata") for body in stand_in.asked] == [{"colour": "red"}, None]
    one, two = events(tmp_path)
    assert (one.team, one.user, two.team, two.feature, two.session_id) == ("search", "ann", "legal", "chat", "s1")


def test_a_policy_can_be_named_with_the_model(through: OpenAI) -> None:
    assert ask(through, model="auto:share:0").model != "large"
    with pytest.raises(openai.BadRequestError, match="policy"):
        ask(through, model="auto:cheap")


def test_usage_of_a_stream_is_asked_for_and_hidden_from_a_client_that_did_not(
    through: OpenAI, stand_in: StandIn, tmp_path: Path
) -> None:
    chunks = list(ask(through, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert stand_in.asked[0]["stream_options"] == {"include_usage": True}
    shown = list(ask(through, stream=True, stream_options={"include_usage": True}))
    for event in events(tmp_path):
        assert event.usage is not None
        assert (event.usage.output_tokens, event.usage_estimated) == (shown[-1].usage.completion_tokens, False)


def test_models_lists_auto_and_the_ladder(through: OpenAI) -> None:
    assert [model.id for model in through.models.list()] == ["auto", "small", "small-twin", "medium", "large"]


def test_the_responses_api_is_routed_and_booked(through: OpenAI, tmp_path: Path) -> None:
    whole = through.responses.create(model="auto", input="Is the invoice due?", instructions="Be brief.")
    with through.responses.stream(model="auto", input="Is the invoice due?") as stream:
        assert stream.get_final_response().output_text == whole.output_text
    one, two = events(tmp_path)
    assert one.usage is not None
    assert whole.usage is not None
    assert one.usage.output_tokens == whole.usage.output_tokens
    assert (two.status, two.usage_estimated, one.decision_id is None) == ("ok", False, False)


def test_embeddings_are_recorded_and_not_routed(through: OpenAI, tmp_path: Path) -> None:
    assert len(through.embeddings.create(model="other", input=["a", "b"]).data) == 2
    (event,) = events(tmp_path)
    assert (event.model, event.status, event.cost) == ("other", "ok", None)
    with pytest.raises(openai.BadRequestError, match="embeddings are not routed"):
        through.embeddings.create(model="auto", input="a")


REFUSED = (
    ({"model": ""}, openai.BadRequestError), ({"messages": []}, openai.BadRequestError),
    ({"model": "auto", "messages": "text"}, openai.BadRequestError), ({"temperature": 3}, openai.BadRequestError),
    ({"model": "absent"}, openai.NotFoundError), ({"metadata": "search"}, openai.BadRequestError),
    ({"metadata": False}, openai.BadRequestError), ({"metadata": []}, openai.BadRequestError),
)  # fmt: skip


@pytest.mark.parametrize(("changes", "error"), REFUSED)
def test_what_is_wrong_is_raised_as_the_client_has_it(
    through: OpenAI, stand_in: StandIn, changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        ask(through, **changes)
    assert stand_in.attempts.total() == 0 or changes.get("temperature") == 3


def test_a_header_counts_beside_metadata_that_is_empty(through: OpenAI, tmp_path: Path) -> None:
    for model in ("small", "auto"):
        ask(through, model=model, metadata={}, extra_headers={"x-tierwise-team": "legal"})
    assert [event.team for event in events(tmp_path)] == ["legal", "legal"]


def test_an_id_of_ones_own_is_kept_and_one_that_cannot_be_is_refused(
    through: OpenAI, stand_in: StandIn, tmp_path: Path
) -> None:
    for model in ("small", "auto"):
        ask(through, model=model, extra_headers={"x-tierwise-request-id": "ticket-1"})
        with pytest.raises(openai.BadRequestError, match="request_id"):
            ask(through, model=model, extra_headers={"x-tierwise-request-id": "r" * 257})
    assert [event.request_id for event in events(tmp_path)] == ["ticket-1", "ticket-1"]
    assert stand_in.attempts.total() == 2


def test_an_alias_stands_for_a_model_or_for_a_policy(tmp_path: Path, bundle: Bundle, stand_in: StandIn) -> None:
    aliases = {"best": "large", "thrifty": "auto:share:0"}
    with gateway(tmp_path, bundle, stand_in, aliases=aliases) as url, client_of(url) as through:
        assert ask(through, model="best").model == "large"
        assert ask(through, model="thrifty").model != "large"
        assert [model.id for model in through.models.list()][:3] == ["auto", "best", "thrifty"]
    one, two = events(tmp_path)
    assert (one.decision_id, two.decision_id is None) == (None, False)


def test_a_session_may_be_named_as_other_gateways_have_it(through: OpenAI, tmp_path: Path) -> None:
    ask(through, model="auto", extra_headers={"x-session-id": "s1"})
    ask(through, model="auto", extra_headers={"x-session-id": "s1", "x-tierwise-session-id": "s2"})
    assert [event.session_id for event in events(tmp_path)] == ["s1", "s2"]


@pytest.mark.parametrize("aliases", [{"auto": "large"}, {"auto:x": "large"}, {"a": "b", "b": "large"}, {"a": ""}])
def test_an_alias_that_cannot_be_is_refused(aliases: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="aliases"):
        Settings.model_validate({"aliases": aliases})
