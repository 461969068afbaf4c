"""Traces in an experiment of MLflow's tracking store, local or a server's."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from mlflow import MlflowClient
from mlflow.entities import Trace
from mlflow.exceptions import MlflowException
from mlflow.tracing.client import TracingClient

from serving.errors import InputError, RegistryError
from training.registry import Registry

PREFIX: Final = "experiment:"
"""What tells an experiment's name from a file's, where either is taken."""
_PAGE: Final = 100


@contextmanager
def _as_ours(registry: Registry) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        said = str(error).splitlines()[0][:300]
        raise RegistryError(f"MLflow's store {registry.uri} does not do it: {said}") from None


def stored_traces(registry: Registry, experiment: str) -> Iterator[Trace]:
    """The traces of an experiment, oldest first.

    Raises InputError when there is none of that name, and RegistryError what MLflow's store has to say.
    """
    with _as_ours(registry):
        yield from _stored(registry, experiment)


def _stored(registry: Registry, experiment: str) -> Iterator[Trace]:
    client = MlflowClient(registry.uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        names = ", ".join(sorted(one.name for one in client.search_experiments()))
        raise InputError(f"there is no such experiment in {registry.uri}, which has {names}", where=experiment)
    token = None
    while True:
        page = client.search_traces(
            [found.experiment_id], max_results=_PAGE, order_by=["timestamp_ms ASC"], page_token=token
        )
        yield from page
        if not (token := page.token):
            return


def store_traces(registry: Registry, experiment: str, make: Callable[[str], Iterable[Trace]]) -> int:
    """Write traces to an experiment, which is made if it is not there, and say how many; one that is there already gets
    what is new. make: gives the traces for the experiment's id. Raises RegistryError as `stored_traces`.
    """
    if not experiment:
        raise InputError("names no experiment", where=PREFIX)
    with _as_ours(registry):
        experiment_id = registry.experiment_id(experiment)
        client, written = TracingClient(registry.uri), 0
        for trace in make(experiment_id):
            client.start_trace(trace.info)
            client.log_spans(experiment_id, trace.data.spans)
            written += 1
    return written
