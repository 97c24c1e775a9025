"""The shape of ``config.toml``: one class a table, units in the names, bounds on every value."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

Bytes = Annotated[int, Field(ge=0, le=10**15)]
Seconds = Annotated[float, Field(gt=0, le=10**7)]
Port = Annotated[int, Field(ge=0, le=65535)]
Share = Annotated[float, Field(ge=0, le=1)]


class Table(BaseModel):
    """One table of the file: an unknown key is an error, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Service(Table):
    """The process and its data directory."""

    data_dir: Path = Path("data")
    worker_id: str = Field(default="worker-0", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    drain_seconds: Seconds = 10.0
    heartbeat_seconds: Seconds = 0.1
    inbox_events: int = Field(default=1024, ge=16, le=1_000_000)


class Logging(Table):
    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    log_prompts: bool = False


class Http(Table):
    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 7860
    max_body_bytes: Bytes = 1_000_000
    wait_seconds_max: Seconds = 90.0
    sse_ping_seconds: Seconds = 15.0
    default_user_id: str = "00000000-0000-0000-0000-000000000000"


class Device(Table):
    """The device that runs inference and the bytes the ledger may give out on it."""

    kind: Literal["cpu", "cuda"] = "cpu"
    index: int = Field(default=0, ge=0, le=63)
    budget_bytes: Bytes = 12_000_000
    host_budget_bytes: Bytes = 64_000_000
    reserve_bytes: Bytes = 0
    threads: int = Field(default=2, ge=1, le=256)
    poison_evicted: bool = True
    working_bytes_factor: float = Field(default=1.25, ge=1, le=10)


class Links(Table):
    disk_to_host_bytes_per_second: float = Field(default=3e9, gt=0)
    host_to_device_bytes_per_second: float = Field(default=22e9, gt=0)
    fixed_seconds: float = Field(default=0.02, ge=0)


class Model(Table):
    """One checkpoint. ``path`` is a folder in the library's layout or one safetensors file."""

    family: Literal["sdxl", "wan", "qwen"]
    path: Path
    config_path: Path | None = None
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    label: str = "tiny-random"
    step_seconds: Seconds = 0.05


class Scheduler(Table):
    ageing_seconds: Seconds = 30.0
    wait_seconds_max: Seconds = 600.0
    waiting_jobs_max: int = Field(default=64, ge=1, le=100_000)
    load_attempts_max: int = Field(default=3, ge=1, le=100)
    load_retry_seconds: Seconds = 5.0
    class_weights: dict[str, Annotated[float, Field(gt=0)]] = {"fast": 2.0, "normal": 1.0}


class Range(Table):
    min: float
    max: float


class Limits(Table):
    """Hard limits, checked at the border."""

    prompt_characters: int = Field(default=20_000, ge=1)
    payload_bytes: Bytes = 1_000_000
    messages: int = Field(default=200, ge=1)
    images: Range = Range(min=1, max=6)
    steps: Range = Range(min=1, max=150)
    guidance_scale: Range = Range(min=0, max=30)
    frames: Range = Range(min=1, max=83)
    strength: Range = Range(min=0, max=1)
    seed: Range = Range(min=0, max=2_147_483_647)
    side_pixels: Range = Range(min=16, max=2048)
    sdxl_area_pixels: int = Field(default=2_097_152, ge=64)
    wan_area_pixels: int = Field(default=399_360, ge=64)
    max_tokens: Range = Range(min=1, max=8192)
    temperature: Range = Range(min=0, max=2)
    top_p: Range = Range(min=0.01, max=1)


class SdxlDefaults(Table):
    steps: int = 25
    guidance_scale: float = 7.5
    images: int = 1
    width: int = 1024
    height: int = 1024
    strength: float = 0.5
    exact_copy_strength: float = 0.05


class WanDefaults(Table):
    steps: int = 50
    guidance_scale: float = 7.5
    flow_shift: float = 5.0
    frames: int = 81
    fps: int = 16
    width: int = 480
    height: int = 832


class TextDefaults(Table):
    max_tokens: int = 512
    enhance_max_tokens: int = 2048
    temperature: float = 0.7
    top_p: float = 0.9


class Defaults(Table):
    sdxl: SdxlDefaults = SdxlDefaults()
    wan: WanDefaults = WanDefaults()
    text: TextDefaults = TextDefaults()


class LegacyType(Table):
    """What a legacy job type stands for. ``enhance`` names the text model that runs first."""

    type: Literal["sdxl_generate", "wan_generate"]
    job_class: str = "normal"
    enhance: Literal["base", "instruct"] | None = None
    steps: int
    guidance_scale: float
    width: int
    height: int
    frames: int | None = None


class Enhancement(Table):
    """Neutral system prompts for enhancement jobs that bring none of their own."""

    sdxl: str
    wan: str


class Queue(Table):
    pop_side: Literal["left", "right"] = "left"
    claims_max: int = Field(default=16, ge=1, le=10_000)


class Intake(Table):
    lease_seconds: Seconds = 60.0
    renew_seconds: Seconds = 20.0
    poll_seconds: Seconds = 30.0
    attempts_max: int = Field(default=3, ge=1, le=100)


class References(Table):
    hosts: tuple[str, ...] = ()
    bytes_max: Bytes = 20 * 1024 * 1024
    pixels_max: int = Field(default=33_554_432, ge=1)
    seconds_max: Seconds = 10.0
    concurrent_max: int = Field(default=4, ge=1, le=64)
    buckets: tuple[str, ...] = ("workspace-temp", "user-library")


class Store(Table):
    bucket: str = Field(default="workspace-temp", pattern=r"^[a-z0-9][a-z0-9._-]{1,62}$")
    dir: Path = Path("data/store")
    concurrent_max: int = Field(default=4, ge=1, le=64)


class Callback(Table):
    """``url`` empty: no callbacks are sent."""

    url: str = ""
    timeout_seconds: Seconds = 30.0
    attempts_max: int = Field(default=12, ge=1, le=1000)
    retry_seconds_min: Seconds = 0.5
    retry_seconds_max: Seconds = 300.0
    progress: bool = True
    progress_seconds: Seconds = 1.0


class Secrets(Table):
    """Never in the file: from ``$CREDENTIALS_DIRECTORY/<name>``, ``<NAME>_FILE`` or ``<NAME>``."""

    job_callback_secret: SecretStr | None = None
    supabase_service_key: SecretStr | None = None
    ourvidz_token: SecretStr | None = None


class Settings(Table):
    """The whole configuration."""

    service: Service
    logging: Logging
    http: Http
    device: Device
    links: Links
    scheduler: Scheduler
    limits: Limits
    defaults: Defaults
    enhancement: Enhancement
    intake: Intake
    references: References
    store: Store
    callback: Callback
    models: dict[str, Model]
    queues: dict[str, Queue]
    legacy_types: dict[str, LegacyType]
    secrets: Secrets = Secrets()
