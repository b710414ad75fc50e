"""Time `import faster_smolvlm` in fresh processes, beside an empty one and `import transformers`.

python -m benches.bench_import [--rounds N]
"""

from __future__ import annotations

import argparse
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


if __name__ == "__main__":
    main()
