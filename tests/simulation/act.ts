import { Fault } from "../../src/errors.ts";
import type { KeyId, RequestId } from "../../src/ids.ts";
import type { Seeded } from "../support/seeded.ts";
import type { Device, Surround } from "./device.ts";

/** One change as its device saw it end. */
export interface Attempt {
  readonly device: number;
  /** Text that a store wrote, unlike any other; null for other changes. */
  readonly value: string | null;
  /** `queued`: kept in the vault for a server that was away. */
  outcome: "ok" | "queued" | "unknown" | "refused";
  requestId: RequestId | null;
  keyId: KeyId | null;
  version: number;
}

/** What the devices of a run saw. */
export interface Seen {
  readonly attempts: Attempt[];
  /** Values that were read from the server, with what they were said to be. */
  readonly reads: { readonly keyId: KeyId; readonly version: number; readonly value: string }[];
  /** Newest acknowledged version of each secret. */
  readonly floors: Map<KeyId, number>;
  /** What must not happen, in words. */
  readonly wrong: string[];
}

/** Failures after which a change may have been made. */
const UNKNOWN = new Set(["outcome_unknown", "unreachable", "unavailable", "timed_out", "storage", "replayed"]);
/** Refusals that the changes of other devices explain. */
const REFUSED = new Set(["stale", "exists", "conflict", "not_found"]);
const NAMES = ["a", "b", "c", "d"];

const textOf = (bytes: Uint8Array | null): string => new TextDecoder().decode(bytes ?? new Uint8Array(0));

/** Says what a failure means, and notes one that nothing explains. */
function outcomeOf(error: unknown, what: string, seen: Seen): "unknown" | "refused" {
  if (!(error instanceof Fault)) throw error;
  if (REFUSED.has(error.code)) return "refused";
  if (!UNKNOWN.has(error.code)) seen.wrong.push(`${what}: ${error.code}: ${error.message} (${error.why ?? ""})`);
  return "unknown";
}

type Change = (
  client: Device["client"],
) => Promise<{ requestId: RequestId | null; queued: boolean; info: { keyId: KeyId; version: number } }>;

/** Makes one change or read on a device, drawn at random, and notes how it ended. */
export async function act(at: Surround, device: Device, random: Seeded, turn: number, seen: Seen): Promise<void> {
  const name = random.pick(NAMES);
  const drawn = random.next();
  if (drawn < 0.5) {
    const value = `${device.number}/${turn}/${random.int(1e9)}`;
    const where = random.pick([null, "both", "server"] as const);
    const input = { name, type: "note", value: new TextEncoder().encode(value), tags: [], where } as const;
    return change(at, device, seen, `store ${name} ${value}`, value, (client) => client.store(input));
  }
  if (drawn < 0.58) {
    const to = random.pick(NAMES);
    return change(at, device, seen, `rename ${name} ${to}`, null, (client) => client.rename({ from: name, to }));
  }
  if (drawn < 0.66) {
    return change(at, device, seen, `remove ${name}`, null, (client) => client.remove({ name, purge: false }));
  }
  if (drawn < 0.72) {
    const add = [`t${random.int(5)}`];
    return change(at, device, seen, `tag ${name}`, null, (client) => client.tag({ name, add, remove: [] }));
  }
  if (drawn < 0.9) return read(at, device, seen, name);
  const [what, look] = random.pick([
    ["list", () => device.client.list({ prefix: null, search: null, tag: null, fresh: true })],
    ["sync", () => device.client.sync()],
    ["verify", () => device.client.auditVerify()],
  ] as const);
  try {
    await look();
    at.note(`device ${device.number} ${what}: ok`);
  } catch (error) {
    at.note(`device ${device.number} ${what}: ${outcomeOf(error, what, seen)}`);
  }
}

async function change(
  at: Surround,
  device: Device,
  seen: Seen,
  what: string,
  value: string | null,
  run: Change,
): Promise<void> {
  const attempt: Attempt = {
    device: device.number,
    value,
    outcome: "unknown",
    requestId: null,
    keyId: null,
    version: 0,
  };
  seen.attempts.push(attempt);
  at.note(`device ${device.number} begins: ${what}`);
  try {
    const { requestId, queued, info } = await run(device.client);
    attempt.outcome = queued ? "queued" : "ok";
    attempt.requestId = requestId;
    attempt.keyId = info.keyId;
    attempt.version = info.version;
    if (!queued) seen.floors.set(info.keyId, Math.max(info.version, seen.floors.get(info.keyId) ?? 0));
  } catch (error) {
    attempt.outcome = outcomeOf(error, what, seen);
  }
  at.note(`device ${device.number} ends: ${what}: ${attempt.outcome} ${attempt.version}`);
}

async function read(at: Surround, device: Device, seen: Seen, name: string): Promise<void> {
  const floors = new Map(seen.floors);
  try {
    const got = await device.client.get({ name, version: null, reveal: true, fresh: true, save: false });
    const { keyId } = got.info;
    const value = textOf(got.value);
    seen.reads.push({ keyId, version: got.version, value });
    const floor = floors.get(keyId) ?? 0;
    if (got.version < floor) {
      seen.wrong.push(
        `device ${device.number} read version ${got.version} of ${name}, ${floor} was acknowledged before`,
      );
    }
    at.note(`device ${device.number} reads ${name}: ${got.version} ${value}`);
  } catch (error) {
    at.note(`device ${device.number} reads ${name}: ${outcomeOf(error, `get ${name}`, seen)}`);
  }
}
