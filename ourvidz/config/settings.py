"""The shape of ``config.toml``: one class a table, units in the names, bounds on every value.

What a value means is written once, in ``config.toml``. The defaults here are what holds where a
file leaves a key out; a test keeps them and the embedded file the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from ourvidz.config.fields import (
    Bandwidth,
    Bucket,
    Bytes,
    CurrentType,
    Factor,
    FilePath,
    HostName,
    LongSeconds,
    Name,
    OptionalPath,
    OptionalUrl,
    Port,
    QueueName,
    Seconds,
    ServerUrl,
    Share,
    UuidText,
)
from ourvidz.config.jobs import Defaults, Enhancement, LegacyType, Limits
from ourvidz.config.table import Table, require
from scheduler.types import PolicySettings

_POLICY = PolicySettings()


class Service(Table):
    """The process and its data directory."""

    data_dir: FilePath = Path("data")
    worker_id: str = Field(
        default="worker-0",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="1 to 64 letters, digits, dots, _ or -",
    )
    drain_seconds: Seconds = 10.0
    heartbeat_seconds: Seconds = 0.1
    inbox_events: int = Field(default=1024, ge=16, le=1_000_000)


class Logging(Table):
    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    log_prompts: bool = False


class Http(Table):
    enabled: bool = True
    host: str = Field(
        default="127.0.0.1",
        pattern=r"^[A-Za-z0-9:.%_-]{1,253}$",
        description="an address or a host name, without scheme or port",
    )
    port: Port = 7860
    body_bytes_max: Bytes = 1_000_000
    wait_seconds_max: Seconds = 90.0
    sse_ping_seconds: Seconds = 15.0
    default_user_id: UuidText = "00000000-0000-0000-0000-000000000000"


class Device(Table):
    """The device that runs inference and the bytes the ledger may give out on it."""

    kind: Literal["cpu", "cuda"] = "cpu"
    index: int = Field(default=0, ge=0, le=63)
    budget_bytes: Bytes = 640_000_000
    host_budget_bytes: Bytes = 64_000_000
    reserve_bytes: Bytes = 0
    threads: int = Field(default=2, ge=1, le=256)
    poison_evicted: bool = True
    working_bytes_factor: float = Field(default=1.25, ge=1, le=10)
    stall_seconds: Seconds = 300.0
    stall_factor: float = Field(default=20.0, ge=1, le=10**6)
    save_state_seconds: float = Field(default=60.0, ge=0, le=10**6)

    @model_validator(mode="after")
    def _reserve_below_budget(self) -> Self:
        allowed = f"must be less than budget_bytes ({self.budget_bytes})"
        return require(self, self.reserve_bytes < self.budget_bytes, "reserve_bytes", allowed)


class Links(Table):
    disk_to_host_bytes_per_second: Bandwidth = 3e9
    host_to_device_bytes_per_second: Bandwidth = 22e9
    fixed_seconds: float = Field(default=0.02, ge=0, le=3600)


class Model(Table):
    """One checkpoint. ``path`` is a folder in the library's layout or one safetensors file."""

    family: Literal["sdxl", "wan", "qwen"]
    path: FilePath
    config_path: OptionalPath = None
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    label: str = Field(default="unnamed", min_length=1, max_length=200)
    step_seconds: Seconds = 0.05


class Deadlines(Table):
    """For jobs that name none, by kind."""

    text: Seconds = 15.0
    image: Seconds = 30.0
    video: Seconds = 600.0


class Scheduler(Table):
    """In which order jobs run; ``scheduler.policy_priced`` says how these work together. Where
    ``PolicySettings`` has a setting too, its default holds."""

    late_ageing: Factor = _POLICY.late_ageing
    ageing_seconds: LongSeconds = _POLICY.ageing_seconds
    wait_seconds_max: LongSeconds = _POLICY.wait_seconds_max
    margin_seconds: Factor = _POLICY.margin_seconds
    discount: Share = _POLICY.discount
    discount_seconds_max: Factor = _POLICY.discount_seconds_max
    hysteresis_seconds: Factor = _POLICY.hysteresis_seconds
    turn_seconds: Factor = _POLICY.turn_seconds
    share_floor: Share = _POLICY.share_floor
    share_seconds: LongSeconds = _POLICY.share_seconds
    price_set_ups: bool = _POLICY.price_set_ups
    preempt: bool = _POLICY.preempt
    prefetch: bool = _POLICY.prefetch
    share_texts: bool = _POLICY.share_texts
    share_images: bool = _POLICY.share_images
    deadline_seconds: Deadlines = Deadlines()
    class_weights: dict[Name, Annotated[float, Field(gt=0, le=10**6)]] = Field(
        default_factory=lambda: {"fast": 2.0, "normal": 1.0}
    )
    waiting_jobs_max: int = Field(default=64, ge=1, le=100_000)
    load_attempts_max: int = Field(default=3, ge=1, le=100)
    load_retry_seconds: Seconds = 5.0
    follow_seconds: Factor = 0.25


class Recorder(Table):
    """``path`` empty: nothing is recorded."""

    path: OptionalPath = None
    bytes_max: int = Field(default=64_000_000, ge=10_000, le=10**12)
    files_max: int = Field(default=16, ge=1, le=100_000)
    hash_users: bool = True


class Queue(Table):
    pop_side: Literal["left", "right"] = "left"
    types: tuple[CurrentType, ...] = ()
    claims_max: int = Field(default=16, ge=1, le=10_000)


class QueueServer(Table):
    """Where the queues lie. ``url`` gives way to the secret of the same meaning."""

    kind: Literal["embedded", "redis", "upstash"] = "embedded"
    url: ServerUrl = ""
    timeout_seconds: Seconds = 10.0
    events: bool = True
    look_seconds_min: Seconds = 0.05
    look_seconds_max: Seconds = 15.0

    @model_validator(mode="after")
    def _looks_in_order(self) -> Self:
        allowed = f"must not exceed look_seconds_max ({self.look_seconds_max:g})"
        in_order = self.look_seconds_min <= self.look_seconds_max
        return require(self, in_order, "look_seconds_min", allowed)


class Intake(Table):
    lease_seconds: Seconds = 60.0
    renew_seconds: Seconds = 20.0
    poll_seconds: Seconds = 30.0
    attempts_max: int = Field(default=3, ge=1, le=100)

    @model_validator(mode="after")
    def _renewed_in_time(self) -> Self:
        allowed = f"must be less than lease_seconds ({self.lease_seconds:g})"
        return require(self, self.renew_seconds < self.lease_seconds, "renew_seconds", allowed)


class Spool(Table):
    """Soft limits: no more jobs are claimed beyond them."""

    bytes_max: int = Field(default=50 * 10**9, ge=1, le=10**15)
    free_bytes_min: Bytes = 10**9


class References(Table):
    hosts: tuple[HostName, ...] = ()
    bytes_max: Bytes = 20 * 1024 * 1024
    pixels_max: int = Field(default=33_554_432, ge=1, le=10**9)
    seconds_max: Seconds = 10.0
    attempts_max: int = Field(default=4, ge=1, le=100)
    concurrent_max: int = Field(default=4, ge=1, le=64)
    buckets: tuple[Bucket, ...] = ("workspace-temp", "user-library")


class Store(Table):
    """``endpoint`` and ``region`` are for an S3 store, ``presign_url`` for a presigned one."""

    kind: Literal["folder", "s3", "presigned"] = "folder"
    bucket: Bucket = "workspace-temp"
    dir: FilePath = Path("data/store")
    endpoint: OptionalUrl = ""
    region: str = Field(
        default="us-east-1",
        pattern=r"^[a-z0-9-]{1,64}$",
        description="1 to 64 lower-case letters, digits and -",
    )
    presign_url: OptionalUrl = ""
    cache_control: str = Field(
        default="max-age=3600",
        pattern=r"^[\x20-\x7e]{1,200}$",
        description="1 to 200 printable ASCII characters",
    )
    multipart_bytes: int = Field(default=16 * 1024 * 1024, ge=5 * 1024 * 1024, le=5 * 1024**3)
    part_bytes: int = Field(default=8 * 1024 * 1024, ge=5 * 1024 * 1024, le=5 * 1024**3)
    timeout_seconds: Seconds = 120.0
    concurrent_max: int = Field(default=4, ge=1, le=64)

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        needed = {"s3": "endpoint", "presigned": "presign_url"}.get(self.kind)
        given = needed is None or bool(getattr(self, needed))
        return require(self, given, needed or "kind", f'must be set where kind is "{self.kind}"')


class Callback(Table):
    """``url`` empty: no callbacks are sent."""

    url: OptionalUrl = ""
    shape: Literal["job-callback", "generation-complete"] = "job-callback"
    timeout_seconds: Seconds = 30.0
    attempts_max: int = Field(default=300, ge=1, le=100_000)
    retry_seconds_min: Seconds = 0.5
    retry_seconds_max: Seconds = 300.0
    undelivered_max: int = Field(default=1000, ge=1, le=1_000_000)
    progress: bool = True
    progress_seconds: Seconds = 1.0

    @model_validator(mode="after")
    def _retry_in_order(self) -> Self:
        allowed = f"must not exceed retry_seconds_max ({self.retry_seconds_max:g})"
        return require(
            self, self.retry_seconds_min <= self.retry_seconds_max, "retry_seconds_min", allowed
        )


class Secrets(Table):
    """Never in the file: from ``$CREDENTIALS_DIRECTORY/<name>``, ``<NAME>_FILE`` or ``<NAME>``."""

    job_callback_secret: SecretStr | None = None
    supabase_service_key: SecretStr | None = None
    supabase_anon_key: SecretStr | None = None
    s3_access_key_id: SecretStr | None = None
    s3_secret_access_key: SecretStr | None = None
    s3_session_token: SecretStr | None = None
    ourvidz_token: SecretStr | None = None
    redis_url: SecretStr | None = None
    upstash_redis_rest_url: SecretStr | None = None
    upstash_redis_rest_token: SecretStr | None = None


class Demo(Table):
    """What ``ourvidz demo`` changes of the rest."""

    device_budget_bytes: Bytes = 133_000_000


class Settings(Table):
    """The whole configuration. Paths are as they were given; loading makes them absolute."""

    service: Service = Service()
    logging: Logging = Logging()
    http: Http = Http()
    device: Device = Device()
    links: Links = Links()
    scheduler: Scheduler = Scheduler()
    recorder: Recorder = Recorder()
    limits: Limits = Limits()
    defaults: Defaults = Defaults()
    enhancement: Enhancement
    queue_server: QueueServer = QueueServer()
    intake: Intake = Intake()
    spool: Spool = Spool()
    references: References = References()
    store: Store = Store()
    callback: Callback = Callback()
    demo: Demo = Demo()
    models: dict[Name, Model]
    queues: dict[QueueName, Queue]
    legacy_types: dict[Name, LegacyType]
    secrets: Secrets = Secrets()
