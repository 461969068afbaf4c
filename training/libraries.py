"""How the libraries of training are told to behave, before any of them is imported."""

import os


def prepare_libraries() -> None:
    """No telemetry, no progress bars but our own, no spinning threads. What the user's environment says stands."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # on a busy machine threads that spin take each other's time
