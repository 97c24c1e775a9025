"""The command line's entry: ``ourvidz`` and ``python -m ourvidz``."""

import io
import sys

from ourvidz.cli.exits import guarded
from ourvidz.cli.main import app


def main() -> None:
    """Run the command line. Always exits, with a code of ``ourvidz.cli.exits``."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What others wrote must be printable on a terminal of any encoding.
        sys.stdout.reconfigure(errors="backslashreplace")
    guarded(app)


if __name__ == "__main__":
    main()
