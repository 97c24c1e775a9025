"""Hypothesis strategies for the domain's types, within what the border lets through."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ourvidz.jobs import (
    Asset,
    ChatMessage,
    ErrorCode,
    ImageWork,
    InvalidJob,
    JobError,
    JobResult,
    JobSpec,
    JobType,
    Reference,
    TextResult,
    TextWork,
    VideoWork,
)

# Any text that can be stored: the border replaces lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)
counts = st.integers(0, 2**31 - 1)
shares = st.floats(0, 1)
seconds = st.floats(0, 1e9)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(-1e300, 1e300) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(texts, json_values, max_size=3)

references = st.lists(
    st.builds(Reference, st.sampled_from(["image", "start", "end"]), texts), max_size=2
).map(tuple)
_errors: dict[str, Any] = {
    "code": st.sampled_from(ErrorCode),
    "message": texts,
    "retryable": st.booleans(),
    "hint": st.none() | texts,
    "field": st.none() | texts,
}
errors = st.builds(JobError, **_errors)
image_works = st.builds(
    ImageWork,
    prompt=texts,
    negative_prompt=texts,
    width=counts,
    height=counts,
    images=st.integers(1, 6),
    steps=counts,
    guidance_scale=shares,
    seed=counts,
    strength=st.none() | shares,
    references=references,
    seeded=st.booleans(),
    reproducible=st.booleans(),
)
video_works = st.builds(
    VideoWork,
    prompt=texts,
    negative_prompt=texts,
    width=counts,
    height=counts,
    frames=counts,
    fps=counts,
    steps=counts,
    guidance_scale=shares,
    flow_shift=shares,
    seed=counts,
    mode=st.sampled_from(["none", "single", "start", "end", "both"]),
    references=references,
    seeded=st.booleans(),
    reproducible=st.booleans(),
)
text_works = st.builds(
    TextWork,
    purpose=st.sampled_from(["enhance", "chat"]),
    model=st.sampled_from(["base", "instruct"]),
    messages=st.lists(
        st.builds(ChatMessage, st.sampled_from(["system", "user", "assistant"]), texts), max_size=3
    ).map(tuple),
    max_tokens=counts,
    temperature=shares,
    top_p=shares,
    seed=counts,
    seeded=st.booleans(),
    reproducible=st.booleans(),
)
works = image_works | video_works | text_works
specs = st.builds(
    JobSpec,
    id=st.uuids(),
    type=st.sampled_from(JobType),
    requested_type=names,
    user_id=st.uuids(),
    job_class=names,
    works=st.lists(works, min_size=1, max_size=2).map(tuple),
    digest=names,
    original_prompt=texts,
    warnings=st.lists(texts, max_size=2).map(tuple),
    extras=objects,
    deadline_seconds=st.none() | seconds,
)
assets = st.builds(
    Asset,
    index=st.integers(0, 5),
    kind=st.sampled_from(["image", "video"]),
    key=names,
    path=names,
    mime=names,
    sha256=names,
    size_bytes=counts,
    width=counts,
    height=counts,
    frames=counts,
    metadata=objects,
    thumbnail_key=st.none() | names,
    thumbnail_path=st.none() | names,
)


def results(*statuses: str) -> st.SearchStrategy[JobResult]:
    return st.builds(
        JobResult,
        status=st.sampled_from(statuses),
        assets=st.lists(assets, max_size=2).map(tuple),
        text=st.none() | st.builds(TextResult, texts, counts, counts, names),
        error=st.none() | errors,
        final_prompt=st.none() | texts,
        warnings=st.lists(texts, max_size=2).map(tuple),
        failed=st.dictionaries(st.integers(0, 5), errors, max_size=2),
        generation_seconds=seconds,
        metrics=objects,
    )


invalid_jobs = st.builds(
    InvalidJob,
    id=names,
    requested_type=st.none() | names,
    user_id=st.none() | names,
    digest=names,
    error=errors,
)
