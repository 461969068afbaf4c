"""Does a service that has answered a request hold any library that only training needs?"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.benchmarks.figures import Figure

FORBIDDEN: Final = (
    "matplotlib", "mlflow", "onnx", "pandas", "pyarrow", "sentence_transformers", "sklearn", "torch", "training",
)  # fmt: skip
_PROGRAM: Final = """
import json, sys, time
import serving.service
cpu_s = time.process_time()
from pathlib import Path
from serving.chat import read_conversation
from serving.routing.promoted import PromotedRouter
promoted = PromotedRouter(Path(sys.argv[1]))
assert promoted.refresh() and promoted.problem is None, promoted.problem
promoted.router.decide(read_conversation(prompt="Which tier is enough for this?"))
print(json.dumps({"cpu_s": cpu_s, "modules": sorted({name.split(".")[0] for name in sys.modules})}))
"""


def measure(home: Path) -> Iterator[Figure]:
    """Import the service in a fresh process and take one decision of the promoted router."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(home)],
        cwd=home,
        env=os.environ | {"TIERWISE_HOME": str(home), "BENTOML_HOME": str(home / "bentoml")},
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    )
    said = json.loads(done.stdout)
    found = [name for name in FORBIDDEN if name in said["modules"]]
    named = f" ({', '.join(found)})" if found else ""
    yield Figure("imports", f"libraries of training in the service{named}", len(found), "", bar=0)
    yield Figure("imports", "CPU time of importing the service", said["cpu_s"], "s")
