"""Secrets, from ``$CREDENTIALS_DIRECTORY/<name>``, ``<NAME>_FILE`` or ``<NAME>``, in that order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ourvidz.config.schema import SECRET_NAMES
from ourvidz.errors import Problem

_BYTES_MAX = 64 * 1024
# Every name that is in use for a secret, the usual one first.
_ALIASES = {
    "supabase_service_key": (
        "SUPABASE_SERVICE_KEY",
        "SUPABASE_SERVICE_ROLE_KEY",
        "SUPABASE_SECRET_KEY",
    ),
    "s3_access_key_id": ("S3_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"),
    "s3_secret_access_key": ("S3_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"),
    "s3_session_token": ("S3_SESSION_TOKEN", "AWS_SESSION_TOKEN"),
}


@dataclass(frozen=True, slots=True)
class Found:
    """A secret and the place that it came from, in words."""

    value: str
    origin: str


def variables(name: str) -> tuple[str, ...]:
    """The environment's names for the secret ``name``."""
    return _ALIASES.get(name, (name.upper(),))


def belongs(name: str) -> str:
    """Where the secret is to be put, for a message."""
    variable = variables(name)[0]
    return f"$CREDENTIALS_DIRECTORY/{name}, {variable}_FILE or {variable}"


def secret_called(key: str) -> str | None:
    """The secret that a key in the wrong place means, by any of its names."""
    for name in SECRET_NAMES:
        if key.lower() == name or key.upper() in variables(name):
            return name
    return None


def read_secrets(environ: Mapping[str, str]) -> tuple[dict[str, Found], list[Problem]]:
    """The secrets that are there. An empty variable counts as absent; an empty file is an error."""
    found: dict[str, Found] = {}
    problems: list[Problem] = []
    for name in SECRET_NAMES:
        try:
            if (secret := _first(name, environ)) is not None:
                found[name] = secret
        except _BadSecret as error:
            problems.append(Problem(error.origin, None, "", None, error.message))
    return found, problems


class _BadSecret(Exception):
    def __init__(self, origin: str, message: str) -> None:
        super().__init__(message)
        self.origin = origin
        self.message = message


def _first(name: str, environ: Mapping[str, str]) -> Found | None:
    for origin, path in _files(name, environ):
        return Found(_checked(_file_text(path, origin), origin), origin)
    for variable in variables(name):
        if environ.get(variable):
            origin = f"environment variable {variable}"
            return Found(_checked(environ[variable], origin), origin)
    return None


def _files(name: str, environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    if directory := environ.get("CREDENTIALS_DIRECTORY"):
        for spelled in (name, *variables(name)):
            path = Path(directory) / spelled
            if path.exists():
                yield f"credential {spelled}", path
    for variable in variables(name):
        if path_text := environ.get(f"{variable}_FILE"):
            yield f"environment variable {variable}_FILE", Path(path_text)


def _file_text(path: Path, origin: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_BYTES_MAX + 1)
        if len(raw) > _BYTES_MAX:
            raise _BadSecret(origin, f"{path} must be at most {_BYTES_MAX} bytes")
        return raw.decode()
    except UnicodeDecodeError:
        raise _BadSecret(origin, f"{path} must be UTF-8 text") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _BadSecret(origin, f"{path} cannot be read: {reason}") from error


def _checked(text: str, origin: str) -> str:
    secret = text.strip()
    if not secret:
        raise _BadSecret(origin, "must not be empty")
    # A secret travels in a header; a line break in it would end the header.
    if not secret.isprintable():
        raise _BadSecret(origin, "must be one line of printable characters")
    return secret
