"""Secrets: where they come from, and that nothing else may hold or show them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ourvidz.config import (
    ConfigError,
    check,
    check_bind,
    is_loopback,
    load,
    load_with_origins,
    show,
)

TOKEN = "tok-5f3a"


def token(path: Path, environ: dict[str, str]) -> str | None:
    found = load(path, environ).secrets.ourvidz_token
    return None if found is None else found.get_secret_value()


def failure(path: Path, environ: dict[str, str], **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, environ, **options)
    return str(caught.value)


def test_credential_file_then_named_file_then_variable(write: Any, tmp_path: Path) -> None:
    config = write()
    folder = tmp_path / "credentials"
    folder.mkdir()
    named = tmp_path / "token.txt"
    named.write_text("from the named file\n")
    environ = {"OURVIDZ_TOKEN": "from the variable"}
    assert token(config, {}) is None
    assert token(config, environ) == "from the variable"
    environ["OURVIDZ_TOKEN_FILE"] = str(named)
    assert token(config, environ) == "from the named file"
    environ["CREDENTIALS_DIRECTORY"] = str(folder)
    assert token(config, environ) == "from the named file", "the folder holds no such credential"
    (folder / "ourvidz_token").write_text("  from the credential\r\n")
    loaded = load_with_origins(config, environ)
    assert loaded.settings.secrets.ourvidz_token is not None
    assert loaded.settings.secrets.ourvidz_token.get_secret_value() == "from the credential"
    assert loaded.origins["secrets.ourvidz_token"] == "credential ourvidz_token"


@pytest.mark.parametrize(
    "name", ["SUPABASE_SERVICE_KEY", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEY"]
)
@pytest.mark.parametrize("kind", ["variable", "file", "credential"])
def test_the_service_key_goes_by_three_names(
    write: Any, tmp_path: Path, name: str, kind: str
) -> None:
    (tmp_path / name).write_text("k")
    environ = {
        "variable": {name: "k"},
        "file": {f"{name}_FILE": str(tmp_path / name)},
        "credential": {"CREDENTIALS_DIRECTORY": str(tmp_path)},
    }[kind]
    found = load(write(), environ).secrets.supabase_service_key
    assert found is not None
    assert found.get_secret_value() == "k"


def test_an_empty_variable_counts_as_absent(write: Any) -> None:
    assert token(write(), {"OURVIDZ_TOKEN": "", "OURVIDZ_TOKEN_FILE": ""}) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "must not be empty"),
        (b" \n", "must not be empty"),
        (b"\xff\xfe", "must be UTF-8"),
        (b"a\nb", "one line of printable"),
        (b"x" * 70_000, "at most 65536 bytes"),
    ],
)
def test_a_bad_secret_file_is_named_and_not_quoted(
    write: Any, tmp_path: Path, content: bytes, says: str
) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    text = failure(write(), {"OURVIDZ_TOKEN_FILE": str(file), "OURVIDZ_TOKEN": "unused"})
    assert text.startswith("environment variable OURVIDZ_TOKEN_FILE: ")
    assert says in text
    assert "xxx" not in text


def test_a_missing_or_unreadable_secret_file_is_no_reason_to_look_further(
    write: Any, tmp_path: Path
) -> None:
    environ = {"OURVIDZ_TOKEN_FILE": str(tmp_path / "gone"), "OURVIDZ_TOKEN": TOKEN}
    assert "cannot be read: No such file" in failure(write(), environ)
    (tmp_path / "ourvidz_token").mkdir()
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "OURVIDZ_TOKEN": TOKEN}
    assert "credential ourvidz_token: " in failure(write(), environ)


@pytest.mark.parametrize(
    ("put", "key", "line"),
    [
        ("[secrets]\nourvidz_token = 'tok-5f3a'\n[http]", "secrets.ourvidz_token", 9),
        ("[secrets]\nother = 'tok-5f3a'\n[http]", "secrets.other", 9),
        ("[http]\nourvidz_token = 'tok-5f3a'", "http.ourvidz_token", 9),
        ("[http]\nOURVIDZ_TOKEN = 'tok-5f3a'", "http.OURVIDZ_TOKEN", 9),
        ("[http]\nSUPABASE_SECRET_KEY = 'tok-5f3a'", "http.SUPABASE_SECRET_KEY", 9),
    ],
)
def test_a_secret_in_the_file_is_an_error_that_says_where_it_belongs(
    write: Any, put: str, key: str, line: int
) -> None:
    (problem,) = check(write(("[http]", put)))
    assert (problem.key_path, problem.line) == (key, line)
    assert "it belongs in" in problem.message
    if "other" not in key:
        assert "$CREDENTIALS_DIRECTORY/" in problem.message
    assert TOKEN not in repr(problem)
    assert TOKEN not in str(problem)


def test_an_unknown_key_that_sounds_like_a_secret_is_not_quoted(write: Any) -> None:
    (problem,) = check(write(("port = 7860", "api_token = 'tok-5f3a'")))
    assert "unknown key" in problem.message
    assert TOKEN not in repr(problem)


@pytest.mark.parametrize("where", ["environ", "flags"])
def test_a_secret_under_the_prefix_or_as_a_flag_is_refused(write: Any, where: str) -> None:
    if where == "environ":
        text = failure(write(), {"OURVIDZ__SECRETS__OURVIDZ_TOKEN": TOKEN})
    else:
        text = failure(write(), {}, flags={"secrets.ourvidz_token": TOKEN})
    assert "it belongs in $CREDENTIALS_DIRECTORY/ourvidz_token" in text
    assert TOKEN not in text


def test_callbacks_need_their_secret_only_where_they_are_sent(write: Any) -> None:
    config = write(("[http]", '[callback]\nurl = "https://h/x"\n[http]'))
    text = failure(config, {})
    assert text == (
        f'{config}:9: callback.url = "https://h/x": needs a secret: $CREDENTIALS_DIRECTORY/'
        "job_callback_secret, JOB_CALLBACK_SECRET_FILE or JOB_CALLBACK_SECRET"
    )
    assert load(config, {"JOB_CALLBACK_SECRET": "s"}).callback.url == "https://h/x"
    assert load(config, {}, require_secrets=False).callback.url == "https://h/x"
    assert check(config) == []


@pytest.mark.parametrize("secret", ["whsec_", "whsec_%%%", "whsec_abc"])
def test_a_secret_that_claims_to_be_encoded_must_be(write: Any, secret: str) -> None:
    config = write(("[http]", '[callback]\nurl = "https://h/x"\n[http]'))
    text = failure(config, {"JOB_CALLBACK_SECRET": secret})
    assert "callback.url" in text
    assert "needs base64 behind whsec_ in the secret: $CREDENTIALS_DIRECTORY/" in text
    good = {"JOB_CALLBACK_SECRET": "whsec_c2VjcmV0"}
    assert load(config, good).callback.url == "https://h/x"
    assert load(write(), {"JOB_CALLBACK_SECRET": secret}).callback.url == "", "nobody signs"
    presigned = '[store]\nkind = "presigned"\npresign_url = "https://h/x"\n[http]'
    assert "store.kind" in failure(write(("[http]", presigned)), {"JOB_CALLBACK_SECRET": secret})


S3 = ("[http]", '[store]\nkind = "s3"\nendpoint = "https://h/s3"\n[http]')
KEYS = {"S3_ACCESS_KEY_ID": "id", "S3_SECRET_ACCESS_KEY": "s3-5f3a"}


def test_an_s3_store_needs_both_keys(write: Any) -> None:
    config = write(S3)
    for name in KEYS:
        text = failure(config, {**KEYS, name: ""})
        places = f"$CREDENTIALS_DIRECTORY/{name.lower()}, {name}_FILE or {name}"
        assert text == f'{config}:9: store.kind = "s3": needs a secret: {places}'
    assert failure(config, {}).count("needs a secret") == 2
    assert load(config, KEYS).store.endpoint == "https://h/s3"
    assert load(config, {}, require_secrets=False).store.kind == "s3"
    assert "s3-5f3a" not in show(load(config, KEYS))


@pytest.mark.parametrize("prefix", ["S3_", "AWS_"])
def test_the_keys_of_s3_go_by_two_names(write: Any, prefix: str) -> None:
    names = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")
    secrets = load(write(S3), {f"{prefix}{name}": name for name in names}).secrets
    found = (secrets.s3_access_key_id, secrets.s3_secret_access_key, secrets.s3_session_token)
    assert [secret and secret.get_secret_value() for secret in found] == list(names)


def test_a_presigned_store_needs_the_callbacks_secret(write: Any) -> None:
    text = '[store]\nkind = "presigned"\npresign_url = "https://h/x"\n[http]'
    config = write(("[http]", text))
    assert "store.kind" in failure(config, {})
    assert "JOB_CALLBACK_SECRET" in failure(config, {})
    assert load(config, {"JOB_CALLBACK_SECRET": "s"}).store.presign_url == "https://h/x"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("localhost.example.org", False),
        ("127.1", False),
        ("", False),
    ],
)
def test_which_hosts_count_as_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_an_open_bind_needs_a_token(write: Any) -> None:
    config = write(("port = 7860", 'port = 7860\nhost = "0.0.0.0"'))
    assert failure(config, {}).startswith(f'{config}:10: http.host = "0.0.0.0": must be a loopback')
    open_settings = load(config, {}, require_secrets=False)
    with pytest.raises(ConfigError, match="OURVIDZ_TOKEN"):
        check_bind(open_settings)
    check_bind(load(config, {"OURVIDZ_TOKEN": TOKEN}))
    check_bind(load(config, {"OURVIDZ__HTTP__ENABLED": "false"}))


def test_show_redacts_every_secret(write: Any) -> None:
    environ = {
        "OURVIDZ_TOKEN": TOKEN,
        "JOB_CALLBACK_SECRET": "whsec-abc",
        "SUPABASE_SERVICE_KEY": "eyJhbGciOi",
        "OURVIDZ__CALLBACK__URL": "https://user:pa@ss@h.example/x?apikey=kkk&y=1",
    }
    text = show(load(write(), environ))
    assert not [s for s in (TOKEN, "whsec-abc", "eyJhbGciOi", "pa@ss", "kkk") if s in text]
    assert 'ourvidz_token = "**redacted**"' in text
    assert 'url = "https://**redacted**@h.example/x?apikey=**redacted**&y=1"' in text
    assert TOKEN not in repr(load(write(), environ))
