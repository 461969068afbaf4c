"""python -m tests.stand_in: a provider that is none, on loopback, until it is interrupted.

Options say how slow it is and how often it fails; the rest is what `tests/stand_in/server.py` says.
"""

import argparse
from typing import get_args

from aiohttp import web

from tests.stand_in.faults import Fault, Plan
from tests.stand_in.server import StandIn


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.stand_in", description=__doc__)
    parser.add_argument("--port", type=int, default=3999)
    parser.add_argument("--models", nargs="+", default=list(StandIn.models), metavar="MODEL")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="until the first byte")
    parser.add_argument("--between", type=float, default=0.0, metavar="SECONDS", help="from event to event of a stream")
    parser.add_argument("--fail", type=float, default=0.0, metavar="SHARE", help="share of requests that go wrong")
    parser.add_argument("--faults", nargs="+", choices=get_args(Fault), default=list(Plan.drawn_from), metavar="FAULT")
    options = parser.parse_args()
    plan = Plan(share=options.fail, drawn_from=tuple(options.faults))
    stand_in = StandIn(tuple(options.models), options.latency, options.between, plan)
    print(f"a stand-in, no model: http://127.0.0.1:{options.port}/v1 with {', '.join(options.models)}", flush=True)
    web.run_app(stand_in.application(), host="127.0.0.1", port=options.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
