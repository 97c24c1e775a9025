"""The command line's entry: ``ourvidz`` and ``python -m ourvidz``."""

from ourvidz.cli.exits import guarded
from ourvidz.cli.main import app


def main() -> None:
    """Run the command line. Always exits, with a code of ``ourvidz.cli.exits``."""
    guarded(app)


if __name__ == "__main__":
    main()
