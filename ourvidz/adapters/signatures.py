"""How a callback is signed: the backend's own header and Standard Webhooks, one secret for both."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime

from standardwebhooks import Webhook, WebhookVerificationError
from standardwebhooks.webhooks import EmptyWebhookSecretError

from ourvidz.config.checks import ENCODED_KEY

SIGNATURE_HEADER = "X-Callback-Signature"


class CallbackSigner:
    """``X-Callback-Signature`` uses the secret's UTF-8 bytes as they stand.

    So does Standard Webhooks, unless the secret starts with ``whsec_``: then its key is the base64
    behind the prefix, as that standard says. A receiver whose library takes encoded keys only is
    given ``whsec_`` + base64(secret). Raises ``ValueError`` for an unusable secret.
    """

    def __init__(self, secret: str) -> None:
        if not secret.strip():
            raise ValueError("the callback secret is empty")
        self._key = secret.encode()
        try:
            self._webhook = Webhook(secret if secret.startswith(ENCODED_KEY) else self._key)
        except (ValueError, EmptyWebhookSecretError) as error:
            raise ValueError("the callback secret starts with whsec_ but is no base64") from error

    def headers(self, event_id: str, body: bytes, timestamp: int) -> dict[str, str]:
        """``timestamp`` is Unix time. ``event_id`` must be ASCII and ``body`` UTF-8."""
        moment = datetime.fromtimestamp(timestamp, UTC)
        return {
            SIGNATURE_HEADER: self._digest(body),
            "webhook-id": event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": self._webhook.sign(event_id, moment, body.decode()),
        }

    def verify(self, headers: dict[str, str], body: bytes) -> bool:
        """Whether both signatures hold; names of ``headers`` in lower case. A timestamp more than
        five minutes from now counts as false."""
        given = headers.get(SIGNATURE_HEADER.lower(), "")
        if not hmac.compare_digest(given.encode(), self._digest(body).encode()):
            return False
        try:
            self._webhook.verify(body, headers, json_parse=False)
        except (ValueError, WebhookVerificationError):
            return False
        return True

    def _digest(self, body: bytes) -> str:
        return f"sha256={hmac.new(self._key, body, hashlib.sha256).hexdigest()}"
