"""``python -m faster_smolvlm`` is the command ``faster-smolvlm``."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
