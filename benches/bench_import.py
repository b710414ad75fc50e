"""Time `import faster_smolvlm` in fresh processes, beside an empty one and `import transformers`.

What the integration adds to a process that has imported Transformers is timed inside that process.

python -m benches.bench_import [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from benches.timing import alternate, machine, table

STATEMENTS = {
    "nothing": "pass",
    "import faster_smolvlm": "import faster_smolvlm",
    "from faster_smolvlm import SmolVLM": "from faster_smolvlm import SmolVLM",
    "from transformers import AutoProcessor": "from transformers import AutoProcessor",
    "from transformers import SmolVLMForConditionalGeneration": (
        "from transformers import SmolVLMForConditionalGeneration"
    ),
}

INTEGRATION = """
import time, transformers
start = time.perf_counter()
from faster_smolvlm.integrations.transformers import accelerate, enable
print(time.perf_counter() - start)
"""


def integration(rounds: int) -> str:
    """Return what the integration costs after Transformers is imported."""
    run = [sys.executable, "-c", INTEGRATION]
    seconds = [float(subprocess.run(run, check=True, capture_output=True).stdout) for _ in range(rounds)]
    low, high = min(seconds) * 1e3, max(seconds) * 1e3
    return f"{statistics.median(seconds) * 1e3:.1f} ms ({low:.1f}–{high:.1f})"


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()

    def process(statement: str) -> None:
        subprocess.run([sys.executable, "-c", statement], check=True)

    sides = {name: (lambda statement=statement: process(statement)) for name, statement in STATEMENTS.items()}
    timings = alternate(sides, rounds=options.rounds, warm_up=1)
    empty = timings["nothing"].median
    rows = [[name, str(timing), f"{(timing.median - empty) * 1e3:.0f} ms"] for name, timing in timings.items()]
    print(machine("torch", "transformers") + "\n")
    print(table(["statement", "process", "above an empty one"], rows))
    print(f"\nfaster_smolvlm.integrations.transformers, after importing transformers: {integration(options.rounds)}")


if __name__ == "__main__":
    main()
