"""``ourvidz demo``: the main job, end to end, on the embedded default."""

from ourvidz.cli.demo.run import demo

__all__ = ["demo"]
