"""Images that are made without those of their request which are there already: the same bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.states import dump

from pipelines.base import CancelToken, ImageOutput, UnsupportedRequest
from pipelines.request import ImageRequest
from pipelines.sdxl import SdxlPipeline
from pipelines.state import restore

pytestmark = pytest.mark.slow

MISSING = [(2,), (0, 2), (1,), (0, 1, 2)]


def made(
    pipeline: SdxlPipeline, request: ImageRequest, between: Callable[[Any], Any] = lambda s: s
) -> dict[int, np.ndarray]:
    state, found = pipeline.begin(request), {}
    while state.phase != "done":
        state = between(state)
        for output in pipeline.step(state, CancelToken()):
            assert isinstance(output, ImageOutput)
            assert output.index not in found
            found[output.index] = output.pixels
    return found


@pytest.mark.parametrize("only", MISSING, ids=str)
@pytest.mark.parametrize("bitwise", [False, True], ids=["batch", "bitwise"])
@pytest.mark.parametrize("img2img", [False, True], ids=["txt2img", "img2img"])
def test_the_missing_ones_have_the_bits_of_a_whole_run(
    sdxl: SdxlPipeline,
    request_for: Callable[..., ImageRequest],
    reference_path: Path,
    only: tuple[int, ...],
    bitwise: bool,
    img2img: bool,
) -> None:
    request = request_for(images=3, bitwise=bitwise)
    if img2img:
        request = replace(request, strength=0.7, image_path=str(reference_path))
    whole = made(sdxl, request)
    part = made(sdxl, replace(request, only=only))
    assert list(part) == list(only)
    for index, pixels in part.items():
        assert np.array_equal(pixels, whole[index]), index


def test_a_state_of_missing_ones_is_written_and_read(
    sdxl: SdxlPipeline, request_for: Callable[..., ImageRequest]
) -> None:
    request = request_for(images=3, only=(1, 2))

    def written(state: Any) -> Any:
        return restore(dump(state), sdxl._device.torch)

    once, again = made(sdxl, request), made(sdxl, request, written)
    assert [np.array_equal(once[i], again[i]) for i in (1, 2)] == [True, True]


def test_what_is_planned_for_them(
    sdxl: SdxlPipeline, request_for: Callable[..., ImageRequest]
) -> None:
    """Bits that depend on the batch keep it; others are denoised without the rest of it."""
    for fields, denoise in (({}, 3), ({"bitwise": True}, 3 * 2), ({"shareable": True}, 3)):
        plan = {p.name: p for p in sdxl.plan(request_for(images=4, only=(0, 3), **fields))}
        assert (plan["denoise"].steps, plan["decode"].steps) == (denoise, 2)
    sharing = plan["denoise"].sharing
    assert sharing is not None
    assert sharing.units == 2


@pytest.mark.parametrize("only", [(3,), (-1,), (1, 0), (1, 1)])
def test_what_is_no_part_of_the_request_is_refused(
    sdxl: SdxlPipeline, request_for: Callable[..., ImageRequest], only: tuple[int, ...]
) -> None:
    with pytest.raises(UnsupportedRequest):
        sdxl.plan(request_for(images=3, only=only))
