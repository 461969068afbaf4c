"""LangChain's and LiteLLM's clients through the service, unchanged: the same as straight at the provider.

CLIENTS_PYTHON is the interpreter of an environment that has them; `make soak` makes one.
"""

import os
import subprocess
from pathlib import Path

from serving.classifier.bundle import Bundle
from tests.gateway import MODELS, gateway
from tests.stand_in.server import StandIn, running

HERE = Path(__file__).parents[2]


def test_other_clients_get_what_the_provider_says(tmp_path: Path, bundle: Bundle) -> None:
    stand_in = StandIn(models=MODELS)
    with gateway(tmp_path, bundle, stand_in) as through, running(StandIn(models=MODELS)) as straight:
        found = subprocess.run(
            [os.environ["CLIENTS_PYTHON"], "-m", "tests.soak.clients", through, straight],
            cwd=HERE,
            env=os.environ | {"NO_PROXY": "127.0.0.1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    print(found.stdout)
    assert found.returncode == 0, found.stdout + found.stderr
