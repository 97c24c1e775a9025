"""Text that a person writes with figures in it that a program does.

Between ``<!-- figures:NAME -->`` and ``<!-- /figures:NAME -->`` the program writes; all else is
kept to the letter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_BLOCK = re.compile(
    r"(?P<begin><!-- figures:(?P<name>[\w-]+) -->\n).*?(?P<end><!-- /figures:(?P=name) -->)",
    re.DOTALL,
)


def fill(text: str, blocks: Mapping[str, str]) -> str:
    """The text with each block's content replaced. Raises ``ValueError`` unless the text has each
    of these blocks, and no other, exactly once."""
    names = [found["name"] for found in _BLOCK.finditer(text)]
    if sorted(names) != sorted(blocks):
        raise ValueError(f"the text has figures {sorted(names)}, allowed: {sorted(blocks)}")
    return _BLOCK.sub(lambda m: f"{m['begin']}{blocks[m['name']]}\n{m['end']}", text)
