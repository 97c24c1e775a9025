"""Who signs URLs for a worker that holds no key: what the edge function of docs/storage.md does."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import botocore.session
import orjson
from botocore.config import Config
from support.raw_http import Reply, Request
from support.rclone import KEY_ID, SECRET_KEY

from ourvidz.adapters.signatures import CallbackSigner
from ourvidz.config import settings

SECRET = "test-secret"


@dataclass(slots=True)
class UrlSigner:
    """``planned`` answers come first, in order; ``None`` means the usual one."""

    endpoint: str
    expires_seconds: int = 60
    questions: list[dict[str, Any]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    planned: deque[Reply | None] = field(default_factory=deque)
    _client: Any = None

    def __post_init__(self) -> None:
        self._client = botocore.session.Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET_KEY,
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )

    def config(self, url: str, **fields: object) -> settings.Store:
        base = {"kind": "presigned", "presign_url": f"{url}/functions/v1/presign"}
        return settings.Store.model_validate({**base, **fields})

    async def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        if request.method != "POST" or request.path != "/functions/v1/presign":
            return Reply(404)
        if not CallbackSigner(SECRET).verify(dict(request.headers), request.body):
            return Reply(401, {"Date": formatdate(usegmt=True)})
        question = orjson.loads(request.body)
        self.questions.append(question)
        if self.planned and (planned := self.planned.popleft()) is not None:
            return planned
        return Reply(200, {}, orjson.dumps(self._signed(question)))

    def _signed(self, question: dict[str, Any]) -> dict[str, Any]:
        params = {"Bucket": question["bucket"], "Key": question["key"]}
        if question["method"] == "PUT":
            params["ContentType"] = question["content_type"]
        operation = {"PUT": "put_object", "GET": "get_object"}[question["method"]]
        url = self._client.generate_presigned_url(operation, params, self.expires_seconds)
        return {"url": url, "headers": {"x-upsert": "true"}}
