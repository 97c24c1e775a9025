// How the backend proves who called: its own header, and Standard Webhooks beside it.

const TOLERANCE_SECONDS = 300;
const encoder = new TextEncoder();

async function mac(secret: string, message: Uint8Array): Promise<Uint8Array> {
  const key = await crypto.subtle.importKey(
    "raw",
    encoder.encode(secret),
    { name: "HMAC", hash: "SHA-256" },
    false,
    ["sign"],
  );
  const copy = new Uint8Array(message);
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, copy));
}

/** Takes as long for a wrong text as for the right one. */
function same(left: string, right: string): boolean {
  const [a, b] = [encoder.encode(left), encoder.encode(right)];
  let difference = a.length ^ b.length;
  for (let i = 0; i < a.length; i++) difference |= a[i] ^ (b[i] ?? 0);
  return difference === 0;
}

/** Why the caller is not believed, or null. */
export async function refusal(
  headers: Headers,
  raw: Uint8Array,
  secret: string,
  nowSeconds: number,
): Promise<string | null> {
  const hex = [...await mac(secret, raw)]
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
  if (!same(headers.get("x-callback-signature") ?? "", `sha256=${hex}`)) {
    return "x-callback-signature";
  }
  const id = headers.get("webhook-id") ?? "";
  const timestamp = headers.get("webhook-timestamp") ?? "";
  const age = Math.abs(nowSeconds - Number(timestamp));
  if (!/^\d+$/.test(timestamp) || age > TOLERANCE_SECONDS) {
    return "webhook-timestamp";
  }
  const head = encoder.encode(`${id}.${timestamp}.`);
  const signed = new Uint8Array(head.length + raw.length);
  signed.set(head);
  signed.set(raw, head.length);
  const digest = btoa(String.fromCharCode(...await mac(secret, signed)));
  const given = (headers.get("webhook-signature") ?? "").split(" ");
  return given.some((each) => same(each, `v1,${digest}`))
    ? null
    : "webhook-signature";
}

/** What the gateway in front of the functions refuses, or null. */
export function gatewayRefusal(headers: Headers, key: string): string | null {
  if (/mozilla|chrome|safari/i.test(headers.get("user-agent") ?? "")) {
    return "user-agent: a browser must not hold this key";
  }
  if (!/^ourvidz\/\d/.test(headers.get("user-agent") ?? "")) {
    return "user-agent";
  }
  if (headers.get("apikey") !== key) return "apikey";
  const authorization = headers.get("authorization");
  const expected = key.startsWith("eyJ") ? `Bearer ${key}` : null;
  // A key of the new kind is no JWT: the gateway refuses it as a bearer.
  return authorization === expected ? null : "authorization";
}
