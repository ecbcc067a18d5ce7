/**
 * A program that reads a workspace of a keyhold registry with nothing but the OpenAPI description and fetch: it prints
 * what happened from a number on, and the addresses of keys that were made.
 *
 *   keyhold openapi > openapi.json
 *   keyhold profile authority > authority.pem
 *   NODE_EXTRA_CA_CERTS=authority.pem bun docs/examples/integrator.ts openapi.json URL 0 < token
 *
 * It polls every five seconds; with the word `once` at the end it stops when it has seen everything.
 */
import { readFile } from "node:fs/promises";

interface Operation {
  readonly operationId: string;
  readonly security: readonly Readonly<Record<string, unknown>>[];
  readonly requestBody: {
    readonly content: { readonly "application/json": { readonly schema: { readonly required: readonly string[] } } };
  };
}
interface Description {
  readonly openapi: string;
  readonly paths: Readonly<Record<string, { readonly post: Operation }>>;
}
type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json };
interface Failure {
  readonly code: string;
  readonly message: string;
  readonly retryAfterMs: number | null;
}
interface Event {
  readonly seq: number;
  readonly event: string;
  readonly keyId: string | null;
}
interface Key {
  readonly keyId: string;
  readonly type: string;
  readonly publicKey: string;
}

const POLL_MS = 5_000;
/** Formats that are wanted of each type of key. */
const FORMATS: Readonly<Record<string, readonly string[]>> = {
  secp256k1: ["evm", "btc-p2wpkh", "cosmos"],
  schnorr: ["btc-p2tr"],
  ed25519: ["solana"],
};

const [file, url, from = "0", mode = "follow"] = process.argv.slice(2);
if (!file || !url) throw new Error("usage: integrator.ts OPENAPI.JSON URL [AFTER] [once] < TOKEN");
const description = JSON.parse(await readFile(file, "utf8")) as Description;
const token = (await readFile("/dev/stdin", "utf8")).trim();

/** Calls an operation by its id; fields that are left out are null. */
async function call(operationId: string, input: Readonly<Record<string, Json>> = {}): Promise<unknown> {
  const found = Object.entries(description.paths).find(([, { post }]) => post.operationId === operationId);
  if (!found) throw new Error(`the description has no operation ${operationId}`);
  const [path, { post }] = found;
  const { required } = post.requestBody.content["application/json"].schema;
  const body = Object.fromEntries(required.map((name) => [name, input[name] ?? null]));
  for (;;) {
    const reply = await fetch(new URL(path, url), {
      method: "POST",
      headers: {
        "content-type": "application/json",
        ...(post.security.length > 0 ? { authorization: `Bearer ${token}` } : {}),
      },
      body: JSON.stringify(body),
    });
    if (reply.ok) return reply.json();
    const { code, message, retryAfterMs } = (await reply.json()) as Failure;
    if (retryAfterMs === null || mode === "once") throw new Error(`${code}: ${message}`);
    await new Promise((done) => setTimeout(done, retryAfterMs));
  }
}

const print = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);

async function showKey(keyId: string): Promise<void> {
  const { type, publicKey } = (await call("integratorKey", { keyId })) as Key;
  const addresses: Record<string, string> = {};
  for (const as of FORMATS[type] ?? []) {
    const made = (await call("integratorAddress", { keyId, as })) as { readonly address: string };
    addresses[as] = made.address;
  }
  print({ key: keyId, type, publicKey, addresses });
}

const { name, balance } = (await call("integratorWorkspace")) as { readonly name: string; readonly balance: number };
print({ workspace: name, balance });
for (let after = Number(from); ; ) {
  const page = (await call("integratorEvents", { after })) as {
    readonly items: readonly Event[];
    readonly more: boolean;
    readonly last: number;
  };
  for (const event of page.items) {
    print(event);
    if (event.event === "key.created" && event.keyId !== null) await showKey(event.keyId);
  }
  // kept by a real program, so that it goes on here after a restart
  after = page.last;
  if (page.more) continue;
  if (mode === "once") break;
  await new Promise((done) => setTimeout(done, POLL_MS));
}
