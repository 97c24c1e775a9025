"""How a location is shown: without what must stay secret, on one line."""

from pathlib import Path

import pytest

from ourvidz.adapters.references import GuardedReferences, describe_location
from ourvidz.adapters.store_folder import FolderStore
from ourvidz.config.settings import References
from ourvidz.jobs import Reference
from ourvidz.ports import ReferenceFailed


@pytest.mark.anyio
@pytest.mark.parametrize(
    "location",
    [
        "https://good.test/sign/a.png?token=SECRET",
        "https://user:SECRET@good.test/a.png",
        "https:\\\\user:SECRET@good.test/a.png",
        "https://user:SECRET@good.test//a.png",
        "https://u:SECRET@good.test@good.test/a.png",
        "https://good.test/a.png#SECRET",
        "data:image/png;base64,SECRET",
        "Data:SECRET",
        "https://good.test/" + "a" * 130 + "SECRET",
    ],
)
async def test_secrets_of_a_location_are_not_shown(tmp_path: Path, location: str) -> None:
    assert "SECRET" not in describe_location(location)
    fetcher = GuardedReferences(FolderStore(tmp_path), References())
    with pytest.raises(ReferenceFailed) as caught:
        await fetcher.fetch(Reference("image", location), tmp_path / "out")
    assert "SECRET" not in str(caught.value)
    assert "SECRET" not in repr(caught.value.error)


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("workspace-temp/u/j/0.png", "'workspace-temp/u/j/0.png'"),
        ("https://good.test/a.png?x=y", "'https://good.test/a.png'"),
        ("a\nb\x1b[31m\ud800", "'a\\nb\\x1b[31m\\ud800'"),
        ("", "''"),
    ],
)
def test_what_is_shown(location: str, shown: str) -> None:
    assert describe_location(location) == shown
