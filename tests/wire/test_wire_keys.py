"""Only parsed UUIDs and integers reach a storage key."""

from uuid import UUID

import pytest

from ourvidz.wire import asset_key, event_id, thumbnail_key

USER = UUID("99999999-8888-4777-8666-555555555555")
JOB = UUID("11111111-2222-4333-8444-555555555555")


def test_keys():
    assert asset_key(USER, JOB, 0, "png") == f"{USER}/{JOB}/0.png"
    assert asset_key(USER, JOB, 999, "mp4") == f"{USER}/{JOB}/999.mp4"
    assert thumbnail_key(USER, JOB, 5) == f"{USER}/{JOB}/5.thumb.webp"


def test_event_ids():
    assert event_id(JOB, "completed") == f"{JOB}.completed"
    assert event_id("job-17", "failed") == "job-17.failed"


@pytest.mark.parametrize("bad", ["..", str(USER), None, 5, b"x"])
def test_text_reaches_no_key(bad):
    for make in (lambda u, j: asset_key(u, j, 0, "png"), lambda u, j: thumbnail_key(u, j, 0)):
        with pytest.raises(TypeError, match="user_id: a parsed UUID is needed"):
            make(bad, JOB)
        with pytest.raises(TypeError, match="job_id: a parsed UUID is needed"):
            make(USER, bad)


@pytest.mark.parametrize(
    ("index", "error"),
    [
        ("0", TypeError),
        (True, TypeError),
        (1.0, TypeError),
        (None, TypeError),
        (-1, ValueError),
        (1000, ValueError),
    ],
)
def test_indices(index, error):
    with pytest.raises(error, match="index: "):
        asset_key(USER, JOB, index, "png")
    with pytest.raises(error, match="index: "):
        thumbnail_key(USER, JOB, index)


@pytest.mark.parametrize("ext", ["../x", "PNG", "", "jpg", None])
def test_extensions(ext):
    with pytest.raises(ValueError, match="allowed png, mp4"):
        asset_key(USER, JOB, 0, ext)
