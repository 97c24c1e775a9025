"""Which jobs a caller can expect to give the same bits again: what they say of their seed."""

import pytest

from ourvidz.jobs import may_share
from ourvidz.wire.common import derived_seed

TYPES = ["sdxl_generate", "wan_generate", "enhance_base", "enhance_instruct", "chat"]


def works(read, job_type, **fields):
    return read(job_type, prompt="a cat", **fields).works


@pytest.mark.parametrize("job_type", TYPES)
@pytest.mark.parametrize(
    ("fields", "seeded"),
    [
        ({}, False),
        ({"seed": None}, False),
        ({"seed": 0}, False),
        ({"seed": "0"}, False),
        ({"config": {"seed": 0}}, False),
        ({"seed": 0, "config": {"seed": 4}}, False),
        ({"seed": 4}, True),
        ({"seed": "4"}, True),
        ({"config": {"seed": 4}}, True),
        ({"metadata": {"seed": 4}}, True),
        ({"seed": 4, "config": {"seed": 0}}, True),
    ],
)
def test_a_seed_is_the_callers_or_derived(job_type, fields, seeded, read):
    (work,) = works(read, job_type, **fields)
    assert work.seeded is seeded
    assert may_share(work) is not seeded
    assert (work.seed == 4) is seeded


def test_the_seed_that_a_derived_one_happens_to_be_is_the_callers(read):
    (work,) = works(read, "chat")
    spec = read("chat", prompt="a cat", seed=derived_seed(read("chat", prompt="x").id))
    assert spec.final.seed == work.seed
    assert spec.final.seeded


@pytest.mark.parametrize("job_type", TYPES)
@pytest.mark.parametrize("fields", [{"reproducible": True}, {"config": {"reproducible": "1"}}])
def test_every_type_can_be_marked(job_type, fields, read):
    spec = read(job_type, prompt="a cat", target_model="sdxl", **fields)
    assert (spec.final.reproducible, spec.final.seeded) == (True, False)
    assert not may_share(spec.final)
    assert not any("reproducible" in warning for warning in spec.warnings)
    assert not read(job_type, prompt="a cat", reproducible=False).final.reproducible


@pytest.mark.parametrize("job_type", TYPES)
def test_a_mark_that_is_none_is_named(job_type, refuse):
    assert refuse(job_type, prompt="a cat", reproducible="often").field == "reproducible"


@pytest.mark.parametrize("final", ["sdxl_generate", "wan_generate"])
def test_both_parts_of_a_chain_say_it(final, read):
    for fields, expected in (
        ({"seed": 4}, (True, False)),
        ({"reproducible": True}, (False, True)),
        ({}, (False, False)),
    ):
        parts = works(read, final, enhance="instruct", **fields)
        assert [(w.seeded, w.reproducible) for w in parts] == [expected] * 2


def test_an_exact_copy_takes_the_originals_seed_as_given(read):
    copied = {"reference_image": "k", "exact_copy_mode": True}
    for original, seeded in ((77, True), (0, False)):
        (work,) = works(read, "sdxl_generate", **copied, metadata={"originalSeed": original})
        assert (work.seed == 77, work.seeded) == (seeded, seeded)
