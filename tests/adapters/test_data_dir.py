"""Where the journal may lie: a directory that can be written, on a disk of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ourvidz.adapters.database import Database, filesystem_type, prepare_data_dir
from ourvidz.errors import DataDirError

MOUNTS = r"""22 28 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
28 1 252:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 28 0:40 / /srv/nfs rw shared:2 master:3 - nfs4 server:/export rw,vers=4.2
31 30 252:2 / /srv/nfs/local rw - xfs /dev/vdb rw
32 28 0:41 / /mnt/with\040space\134and\011tab rw - fuse.sshfs me@host:/ rw
33 28 0:42 / /workspace rw - fuse mfs\043eu.example:9421 rw
34 28 0:43 / /plain rw - fuse gvfs rw
35 28 0:44 / /twice rw - autofs systemd-1 rw
36 35 0:45 / /twice rw - cifs //host/share rw
37 28 0:46 / /srv/nf rw - tmpfs tmpfs rw
38 28 0:47 /sub /bind - rw - 9p host rw
39 28 0:48 / /mnt/ünï rw - lustre mgs@tcp:/fs rw
short line
40 28 0:49 / /broken rw shared:9
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/home/user/data", "ext4"),
        ("/srv/nfs", "nfs4"),
        ("/srv/nfs/data", "nfs4"),
        ("/srv/nfsx/data", "ext4"),
        ("/srv/nfs/local/data", "xfs"),
        ("/srv/nf/data", "tmpfs"),
        ("/mnt/with space\\and\ttab/data", "fuse.sshfs"),
        ("/mnt/with", "ext4"),
        ("/workspace/data", "fuse.mfs"),
        ("/plain/data", "fuse"),
        ("/twice/data", "cifs"),
        ("/mnt/ünï/data", "lustre"),
        ("/broken", "ext4"),
    ],
)
def test_the_file_system_of_a_path(path: str, kind: str) -> None:
    assert filesystem_type(Path(path), MOUNTS) == kind


def test_without_mounts_nothing_is_known() -> None:
    assert filesystem_type(Path("/data"), "") == "unknown"


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs", "fuse mfs#host:1"])
def test_a_network_file_system_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    described = kind if " " in kind else f"{kind} source"
    line = f"1 0 0:1 / {tmp_path} rw - {described} rw\n"
    read = Path.read_text

    def mounts(self: Path, *args: Any, **options: Any) -> str:
        return line if str(self) == "/proc/self/mountinfo" else read(self, *args, **options)

    monkeypatch.setattr(Path, "read_text", mounts)
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(tmp_path)
    name = "fuse.mfs" if "#" in kind else kind
    for path in (tmp_path / "data", link / "data"):
        with pytest.raises(DataDirError, match=f"lies on {name}, a network file system"):
            prepare_data_dir(path)


@pytest.mark.anyio
async def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(DataDirError, match=r"service\.data_dir"):
        await Database(tmp_path / "file" / "test.db").open()
    (tmp_path / "d" / "test.db.lock").mkdir(parents=True)
    with pytest.raises(DataDirError, match=r"service\.data_dir"):
        await Database(tmp_path / "d" / "test.db").open()
