"""What the pipelines are asked for is what the service's work says."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from support.bench import IMAGES, TEXT, VIDEO

from ourvidz.adapters.requests import request_of
from ourvidz.jobs import Work
from pipelines.request import ImageRequest

MARKS = [(True, True), (True, False), (False, True), (False, False)]


@pytest.mark.parametrize("work", [IMAGES, TEXT], ids=["image", "text"])
@pytest.mark.parametrize(("seeded", "reproducible"), MARKS)
def test_only_what_need_not_be_repeated_shares_its_steps(
    work: Any, seeded: bool, reproducible: bool
) -> None:
    request: Any = request_of(replace(work, seeded=seeded, reproducible=reproducible), {})
    assert request.shareable is (not seeded and not reproducible)


def test_works_that_do_not_say_it_are_repeated() -> None:
    images: Any = request_of(IMAGES, {})
    assert not images.shareable


@pytest.mark.parametrize("reproducible", [True, False])
def test_a_reproducible_image_is_denoised_bit_by_bit(reproducible: bool) -> None:
    request = request_of(replace(IMAGES, reproducible=reproducible), {})
    assert isinstance(request, ImageRequest)
    assert request.bitwise is reproducible


@pytest.mark.parametrize("work", [IMAGES, VIDEO, TEXT], ids=["image", "video", "text"])
def test_every_field_that_both_name_is_taken_over(work: Work) -> None:
    request = request_of(work, {})
    named = {field.name for field in fields(request)} & {field.name for field in fields(work)}
    assert {"seed"} <= named
    for name in named - {"messages"}:
        assert getattr(request, name) == getattr(work, name), name
