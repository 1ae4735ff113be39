"""Runs the library state machine (state_machine.py) for hours, and prints the seed of each round.

    python tests/support/state_machine_loop.py [--hours 8] [--seed N]

--seed repeats the one round of that seed. A round that fails prints the steps that led there, and exits with 1.
"""

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import hypothesis
from hypothesis.stateful import run_state_machine_as_test
from tests.support.state_machine import LibraryStateMachine, ScanOnlyStateMachine, run_settings

ROUND = run_settings(examples=50, steps=50)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--seed", type=int)
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.hours * 3600
    while time.monotonic() < end:
        seed = arguments.seed if arguments.seed is not None else random.randrange(1 << 32)
        for machine in (LibraryStateMachine, ScanOnlyStateMachine):
            print(f"{machine.__name__}, seed {seed}", flush=True)
            run_state_machine_as_test(hypothesis.seed(seed)(machine), settings=ROUND)
        print(
            f"{LibraryStateMachine.done['checks'] + ScanOnlyStateMachine.done['checks']} checks so far, all passed",
            flush=True,
        )
        if arguments.seed is not None:
            break


if __name__ == "__main__":
    main()
