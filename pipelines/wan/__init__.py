"""WAN 2.1: text to video, with reference images where the checkpoint knows them."""

from pipelines.wan.open import open_wan
from pipelines.wan.pipeline import Wan

__all__ = ["Wan", "open_wan"]
