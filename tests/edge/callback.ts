// What the backend reads in a callback. Throws Invalid for what it could not store.

export type Fields = Record<string, unknown>;
export type Shape = "job-callback" | "generation-complete";

export class Invalid extends Error {}

export interface Asset {
  kind: string;
  path: string;
  thumbnail: string | null;
  seed: number;
  /** The image's place in the batch, as its key says. */
  original: number;
  durationSeconds: number | null;
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const STATUSES = ["processing", "completed", "failed"];

function check(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Invalid(what);
}

export function fields(value: unknown, what: string): Fields {
  check(
    typeof value === "object" && value !== null && !Array.isArray(value),
    what,
  );
  return value as Fields;
}

function text(of: Fields, name: string): string {
  const value = of[name];
  check(typeof value === "string" && !value.includes("\0"), name);
  return value;
}

function number(of: Fields, name: string): number {
  const value = of[name];
  check(typeof value === "number" && Number.isFinite(value), name);
  return value;
}

export function parse(raw: Uint8Array): Fields {
  let body: unknown;
  try {
    body = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(raw));
  } catch {
    throw new Invalid("no JSON in UTF-8");
  }
  const found = fields(body, "body");
  check(UUID.test(text(found, "job_id")), "job_id: no UUID");
  check(STATUSES.includes(text(found, "status")), "status");
  check(Array.isArray(found.assets), "assets");
  fields(found.metadata, "metadata");
  return found;
}

export function progress(body: Fields): number {
  const metadata = fields(body.metadata, "metadata");
  const value = number(metadata, "progress");
  check(Number.isInteger(value) && value >= 0 && value <= 100, "progress");
  return value;
}

export function failure(body: Fields): { code: string; message: string } {
  const metadata = fields(body.metadata, "metadata");
  check((body.assets as unknown[]).length === 0, "assets of a failed job");
  const error = fields(metadata.error, "metadata.error");
  const [code, message] = [text(error, "code"), text(error, "message")];
  check(typeof error.retryable === "boolean", "metadata.error.retryable");
  check(text(metadata, "error_type") === code, "metadata.error_type");
  check(text(body, "error_message") === message, "error_message");
  check("timestamp" in metadata, "metadata.timestamp");
  // A payload without a type has none to report.
  if ("job_type" in metadata) text(metadata, "job_type");
  return { code, message };
}

/** The assets of a completed job in their order, which is their asset_index. */
export function assets(body: Fields, user: string, shape: Shape): Asset[] {
  const metadata = fields(body.metadata, "metadata");
  for (const name of ["job_type", "original_prompt", "final_prompt"]) {
    text(metadata, name);
  }
  number(metadata, "seed");
  number(metadata, "generation_time");
  const given = body.assets as unknown[];
  check(number(metadata, "num_images") === given.length, "num_images");
  const folder = `${user}/${text(body, "job_id")}/`;
  const found = given.map((each, position) => {
    const asset = fields(each, "asset");
    return shape === "job-callback"
      ? nested(asset, position, folder)
      : flat(asset, position, folder);
  });
  checkOrder(found, metadata.failed_indices ?? []);
  if (given.length === 0) checkText(metadata);
  if (found.some((asset) => asset.durationSeconds !== null)) {
    // The backend takes a video's duration from the top level.
    number(metadata, "frame_num");
  }
  return found;
}

function nested(asset: Fields, position: number, folder: string): Asset {
  const metadata = fields(asset.metadata, "asset.metadata");
  for (const name of ["width", "height", "steps", "guidance_scale"]) {
    check(number(metadata, name) > 0, name);
  }
  check(number(metadata, "batch_size") >= 1, "batch_size");
  check(number(metadata, "file_size_bytes") > 0, "file_size_bytes");
  check(typeof metadata.negative_prompt_used === "boolean", "negative_prompt");
  check(number(metadata, "asset_index") === position, "asset_index");
  const kind = text(asset, "type");
  const video = kind === "video";
  if (video) {
    for (const name of ["frame_num", "fps"]) number(metadata, name);
  }
  check(text(metadata, "format") === (video ? "mp4" : "png"), "format");
  return {
    kind,
    ...place(text(asset, "url"), kind, folder),
    thumbnail: thumbnail(asset),
    seed: number(metadata, "seed"),
    durationSeconds: video ? number(metadata, "duration_seconds") : null,
  };
}

function flat(asset: Fields, position: number, folder: string): Asset {
  const kind = text(asset, "asset_type");
  const video = kind === "video";
  check(number(asset, "asset_index") === position, "asset_index");
  check(number(asset, "file_size_bytes") > 0, "file_size_bytes");
  check(
    text(asset, "mime_type") === (video ? "video/mp4" : "image/png"),
    "mime_type",
  );
  return {
    kind,
    ...place(text(asset, "temp_storage_path"), kind, folder),
    thumbnail: thumbnail(asset),
    seed: number(asset, "generation_seed"),
    durationSeconds: video ? number(asset, "duration_seconds") : null,
  };
}

function place(path: string, kind: string, folder: string) {
  check(kind === "video" || kind === "image", "type");
  check(path.startsWith(folder), `${path} is not below ${folder}`);
  const name = path.slice(folder.length);
  const match = name.match(kind === "video" ? /^(\d+)\.mp4$/ : /^(\d+)\.png$/);
  check(match !== null, `${name} is no ${kind}'s name`);
  return { path, original: Number(match[1]) };
}

function thumbnail(asset: Fields): string | null {
  if (!("thumbnail_url" in asset)) return null;
  const path = text(asset, "thumbnail_url");
  check(path.endsWith(".thumb.webp"), "thumbnail_url");
  return path;
}

/** Successes stand in the order of the batch, and failed_indices names the rest. */
function checkOrder(found: Asset[], given: unknown): void {
  check(Array.isArray(given), "failed_indices");
  const failed = given.map((each) => {
    check(Number.isInteger(each) && each >= 0, "failed_indices");
    return each as number;
  });
  check(failed.every((each, i) => i === 0 || failed[i - 1] < each), "failed");
  const made = found.map((asset) => asset.original);
  check(made.every((each, i) => i === 0 || made[i - 1] < each), "order");
  const all = [...made, ...failed].sort((a, b) => a - b);
  check(all.every((each, i) => each === i), `of the batch came ${all}`);
  const base = found.map((asset) => asset.seed - asset.original);
  check(new Set(base).size <= 1, "seeds");
}

function checkText(metadata: Fields): void {
  const named = ["enhanced_prompt", "response"].filter((n) => n in metadata);
  check(named.length === 1, "a text has one name beside its own");
  check(text(metadata, named[0]) === text(metadata, "text"), named[0]);
}
