"""A run that is paused, evicted, interleaved or cancelled in between ends with the same bits."""

import accelerate
import numpy as np
import pytest
import torch
from support.states import dump

from pipelines.base import CancelToken, RunCancelled
from pipelines.component import NotResident
from pipelines.state import restore

pytestmark = pytest.mark.slow

CASES = [("t2v", "none"), ("vace", "none"), ("vace", "single"), ("vace", "both")]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request, ask, play):
    """A pipeline, a request with every phase in several steps, and its undisturbed pixels."""
    name, mode = request.param
    pipeline = request.getfixturevalue(name)
    wanted = ask(mode=mode)
    return pipeline, wanted, play(pipeline, wanted)


def evict_all(pipeline):
    for component in pipeline.components.values():
        if component.tier == "resident":
            component.evict()


def load_all(pipeline):
    for component in pipeline.components.values():
        if component.tier == "staged":
            component.load()


class Countdown(CancelToken):
    """Cancels at the n-th time it is asked; ``asked`` counts."""

    def __init__(self, at=None):
        super().__init__()
        self.at, self.asked = at, 0

    def check(self):
        self.asked += 1
        if self.asked == self.at:
            self.cancel()
        super().check()


def test_written_and_read_back_before_every_step(case, play, device):
    pipeline, request, undisturbed = case
    made = play(pipeline, request, lambda state: restore(dump(state), device.torch))
    np.testing.assert_array_equal(made, undisturbed)


def test_evicted_and_poisoned_between_steps(case, play):
    """Only the components that the phase names are brought back."""
    pipeline, request, undisturbed = case
    needed = {phase.name: phase.components for phase in pipeline.plan(request)}

    def move(state):
        evict_all(pipeline)
        for name in needed[state.phase]:
            pipeline.components[name].load()
        return state

    try:
        np.testing.assert_array_equal(play(pipeline, request, move), undisturbed)
    finally:
        load_all(pipeline)


def test_a_step_without_its_component_is_refused(t2v, ask):
    evict_all(t2v)
    try:
        with pytest.raises(NotResident, match=r"wan\.text_encoder is staged"):
            t2v.step(t2v.begin(ask()), CancelToken())
    finally:
        load_all(t2v)


@pytest.mark.parametrize("name", ["t2v", "vace"])
def test_two_runs_take_turns(request, ask, play, device, name):
    pipeline = request.getfixturevalue(name)
    other_mode = "both" if name == "vace" else "none"
    requests = [
        ask(steps=4),
        ask(mode=other_mode, frames=5, width=32, steps=2, flow_shift=8.0, prompt="a ship", seed=3),
    ]
    alone = [play(pipeline, wanted) for wanted in requests]
    states = [pipeline.begin(wanted) for wanted in requests]
    frames = {}
    while any(state.phase != "done" for state in states):
        for i, state in enumerate(states):
            if state.phase != "done":
                for output in pipeline.step(state, CancelToken()):
                    frames[i] = output.frames
                if state.step % 2:
                    states[i] = restore(dump(state), device.torch)
    for i, expected in enumerate(alone):
        np.testing.assert_array_equal(frames[i], expected)


def test_cancelled_inside_a_step_of_every_phase(case, play, device):
    """Before each phase's last step a state is kept; from it the step is cancelled early, in the
    middle and late, and after each of these the run still ends with the same pixels."""
    pipeline, request, undisturbed = case
    kept = {}

    def keep(state):
        kept[state.phase] = dump(state)
        return state

    play(pipeline, request, keep)
    for phase, written in kept.items():
        counter = Countdown()
        pipeline.step(restore(written, device.torch), counter)
        assert counter.asked >= 5, f"{phase} can be cancelled at {counter.asked} places only"
        for at in (1, counter.asked):
            with pytest.raises(RunCancelled):
                pipeline.step(restore(written, device.torch), Countdown(at))
    np.testing.assert_array_equal(play(pipeline, request), undisturbed)


def test_cancelled_before_a_step(t2v, ask):
    token = CancelToken()
    token.cancel()
    state = t2v.begin(ask())
    with pytest.raises(RunCancelled):
        t2v.step(state, token)
    assert (state.phase, state.step) == ("encode", 0)


def test_a_load_in_another_thread_changes_nothing(case, play):
    """While they load, the libraries set torch's default dtype and patch module construction for
    the whole process."""
    pipeline, request, undisturbed = case
    torch.set_default_dtype(torch.bfloat16)
    try:
        with accelerate.init_empty_weights():
            made = play(pipeline, request)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(made, undisturbed)


def test_the_modules_keep_nothing_of_a_run(case, play):
    """The VAE's own feature cache stays unused, and every weight is as it was."""
    pipeline, request, _ = case
    vae = pipeline.components["wan.vae"].module
    before = {
        name: [t.clone() for t in component.module.state_dict().values()]
        for name, component in pipeline.components.items()
    }
    attributes = set(vars(vae))
    play(pipeline, request)
    assert set(vars(vae)) == attributes
    assert not {"_feat_map", "_enc_feat_map"} & attributes
    for name, tensors in before.items():
        after = pipeline.components[name].module.state_dict().values()
        assert all(torch.equal(a, b) for a, b in zip(tensors, after, strict=True)), name


def test_a_state_is_small_where_a_run_is_paused(vace, ask, device):
    """No activations stay behind: while denoising a state is embeddings, control and latents."""
    request = ask(mode="both")
    state = vace.begin(request)
    while (state.phase, state.step) != ("denoise", 2):
        vace.step(state, CancelToken())
    names = {"latents", "control", "prompt_embeds", "negative_prompt_embeds", "rng.0"}
    history = {"unipc.last_sample", "unipc.model_outputs.0", "unipc.model_outputs.1"}
    assert set(state.tensors) == names | history
    latents = state.tensors["latents"]
    assert latents.shape == (1, 16, 3, 4, 6)
    assert state.values["unipc"] == {
        "step_index": 2,
        "lower_order_nums": 2,
        "this_order": 2,
        "timesteps": [0, 1],
    }
    back = restore(dump(state), device.torch)
    assert back.values == state.values
    assert back.tensors.keys() == state.tensors.keys()
    vace.step(state, CancelToken())
    assert (state.phase, state.step) == ("decode", 0)
    assert set(state.tensors) == {"latents"}
    assert state.device_bytes == state.tensors["latents"].nbytes


def test_every_step_is_taken_alone(t2v, ask, play):
    request = ask()
    assert {phase.sharing for phase in t2v.plan(request)} == {None}
    state, token, outputs = t2v.begin(request), CancelToken(), []
    while state.phase != "done":
        (made,) = t2v.step_together([state], [token])
        outputs += made
    np.testing.assert_array_equal(outputs[0].frames, play(t2v, request))
    token.cancel()
    assert t2v.step_together([t2v.begin(request)], [token]) == [None]
    with pytest.raises(ValueError, match="2 runs in phase 'encode', which runs alone"):
        t2v.step_together([t2v.begin(request), t2v.begin(request)], [CancelToken()] * 2)
