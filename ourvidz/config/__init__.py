"""The configuration: one commented file, layers over it, and what is wrong with them."""

from ourvidz.config.checks import check_bind, is_loopback
from ourvidz.config.load import Loaded, check, load, load_with_origins
from ourvidz.config.settings import Settings
from ourvidz.config.show import show
from ourvidz.errors import EX_CONFIG, ConfigError, Problem

__all__ = [
    "EX_CONFIG",
    "ConfigError",
    "Loaded",
    "Problem",
    "Settings",
    "check",
    "check_bind",
    "is_loopback",
    "load",
    "load_with_origins",
    "show",
]
