"""What counts as a secret, by its name and inside a text."""

from __future__ import annotations

import pytest

from ourvidz.redact import names_secret, redact


@pytest.mark.parametrize(
    "name",
    [
        "token", "OURVIDZ_TOKEN", "Authorization", "apikey", "api_key", "X-Api-Key", "secret",
        "job_callback_secret", "X-Callback-Signature", "webhook-signature", "password",
        "Set-Cookie", "supabase_service_key", "accessKey",
        "sessionToken", "secret_key", "credentials",
    ],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert names_secret(name)


@pytest.mark.parametrize(
    "name",
    ["max_tokens", "tokens", "prompt_tokens", "key", "keys", "monkey", "id", "secretary", ""],
)
def test_names_of_other_things(name: str) -> None:
    assert not names_secret(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://u:p@h/x", "https://**redacted**@h/x"),
        ("redis://:p@ss@h:6379/0", "redis://**redacted**@h:6379/0"),
        ("GET /a?token=abc&x=1", "GET /a?token=**redacted**&x=1"),
        ("/a?x=1&X-Amz-Signature=ff&y", "/a?x=1&X-Amz-Signature=**redacted**&y"),
        ("Authorization: Bearer abc", "Authorization: **redacted**"),
        ("{'authorization': 'Basic abc='}", "{'authorization': '**redacted**'}"),
        ("sent Bearer abcdefghijklmnop", "sent Bearer **redacted**"),
        ("key sb_secret_abc_def end", "key **redacted** end"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.x-y_z", "**redacted**"),
        ("mail a@b.example, 3 tokens, https://h/a@b", "mail a@b.example, 3 tokens, https://h/a@b"),
        ("a bearer came; basic rules", "a bearer came; basic rules"),
    ],
)  # fmt: skip
def test_secrets_inside_texts(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown
