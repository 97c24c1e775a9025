// The backend's side of the callbacks, as an edge function: it verifies, stores and answers like it.
//
//   deno run --no-remote --no-npm --allow-net=127.0.0.1 --allow-env backend.ts
//
// It listens on a free port of 127.0.0.1 and prints the port as a line. Tables are in memory.
// POST /control/jobs {id, user_id} queues a job, POST /control/jobs/{id}/cancel is the user's
// cancel, GET /control/jobs/{id} shows a job, GET /control/refusals what was refused and why.

import { type Asset, assets, failure, Invalid, parse } from "./callback.ts";
import { type Fields, progress, type Shape } from "./callback.ts";
import { gatewayRefusal, refusal } from "./signatures.ts";

interface Job {
  user: string;
  status: string;
  progress: number[];
  assets: Asset[];
  metadata: Fields;
  error: { code: string; message: string } | null;
  durationSeconds: number | null;
  /** Every callback that was believed: its id, and how it was answered. */
  events: { id: string; status: string; skipped: boolean }[];
}

const FRAMES_PER_SECOND = 16;
const secret = Deno.env.get("JOB_CALLBACK_SECRET") ?? "";
const key = Deno.env.get("SUPABASE_SERVICE_KEY") ?? "";
const jobs = new Map<string, Job>();
const refusals: string[] = [];

function answer(status: number, body: unknown): Response {
  return Response.json(body, { status });
}

function refused(status: number, why: string): Response {
  refusals.push(`${status}: ${why}`);
  return answer(status, { success: false, error: why });
}

/** Stores what the callback says of a job that is still wanted. */
function store(job: Job, body: Fields, shape: Shape): void {
  const status = body.status as string;
  if (status === "processing") {
    job.progress.push(progress(body));
  } else if (status === "failed") {
    job.error = failure(body);
  } else {
    job.assets = assets(body, job.user, shape);
    const frames = (body.metadata as Fields).frame_num;
    job.durationSeconds = typeof frames === "number"
      ? Math.ceil(frames / FRAMES_PER_SECOND)
      : null;
  }
  if (status !== "processing") job.metadata = body.metadata as Fields;
  job.status = status;
}

async function callback(request: Request, shape: Shape): Promise<Response> {
  const raw = new Uint8Array(await request.arrayBuffer());
  const gate = gatewayRefusal(request.headers, key);
  if (gate !== null) return refused(401, gate);
  const now = Date.now() / 1000;
  const why = await refusal(request.headers, raw, secret, now);
  if (why !== null) return refused(401, why);
  try {
    const body = parse(raw);
    const id = request.headers.get("webhook-id") ?? "";
    const job = jobs.get(body.job_id as string);
    if (job === undefined) return refused(404, "no such job");
    if (!id.startsWith(`${body.job_id}.${body.status}`)) {
      return refused(400, `webhook-id ${id}`);
    }
    const skipped = ["completed", "cancelled"].includes(job.status);
    if (!skipped) store(job, body, shape);
    job.events.push({ id, status: body.status as string, skipped });
    return answer(
      200,
      skipped ? { success: true, skipped } : { success: true },
    );
  } catch (error) {
    if (error instanceof Invalid) return refused(400, error.message);
    throw error;
  }
}

async function control(request: Request, path: string): Promise<Response> {
  if (path === "refusals") return answer(200, refusals);
  if (request.method === "POST" && path === "jobs") {
    const { id, user_id } = await request.json();
    jobs.set(id, {
      user: user_id,
      status: "queued",
      progress: [],
      assets: [],
      metadata: {},
      error: null,
      durationSeconds: null,
      events: [],
    });
    return answer(200, {});
  }
  const [, id, verb] = path.split("/");
  const job = jobs.get(id);
  if (job === undefined) return answer(404, {});
  if (verb === "cancel") job.status = "cancelled";
  return answer(200, job);
}

async function handle(request: Request): Promise<Response> {
  const path = new URL(request.url).pathname;
  if (path.startsWith("/control/")) {
    return await control(request, path.slice("/control/".length));
  }
  const name = path.replace("/functions/v1/", "");
  if (name !== "job-callback" && name !== "generation-complete") {
    return answer(404, { error: "no such function" });
  }
  if (request.method !== "POST") return answer(405, { error: "POST it" });
  return await callback(request, name);
}

Deno.serve({
  hostname: "127.0.0.1",
  port: 0,
  onListen: ({ port }) => console.log(port),
}, handle);
