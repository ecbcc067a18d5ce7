import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { KeyholdClient } from "../../src/client/api.ts";
import { registerAccount } from "../../src/client/enrol.ts";
import { loginProfile, realSurroundings } from "../../src/client/home.ts";
import { readProfile } from "../../src/client/profile.ts";
import { Fault } from "../../src/errors.ts";

/**
 * The writing side of killloop.ts, a process of its own: `driver.ts URL PIN DIR ACCOUNTS`. Each account writes one
 * change after another and remembers what was acknowledged. A line `check` on stdin makes every account compare that
 * with what the server says; `end` verifies the logs too and ends. Each answer is one JSON line.
 */

const [url = "", pin = "", dir = "", count = "1"] = process.argv.slice(2);
const NAMES = 24;
const VALUE_BYTES = 200;
/** After these a change may or may not have been made. */
const UNKNOWN = new Set(["outcome_unknown", "unreachable", "unavailable", "timed_out", "storage", "rate_limited"]);
const around = realSurroundings();

function say(line: unknown): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

interface Kept {
  version: number;
  value: string;
  /** Values that may have been written since. */
  maybe: string[];
}

interface Writer {
  readonly client: KeyholdClient;
  readonly kept: Map<string, Kept>;
  acknowledged: number;
  unknown: number;
  /** Names written since the last check. */
  readonly touched: Set<string>;
}

async function open(number: number): Promise<Writer> {
  const base = join(dir, `account-${number}`);
  mkdirSync(base, { recursive: true, mode: 0o700 });
  const home = { profiles: join(base, "profiles"), vaults: join(base, "vaults") };
  const password = new TextEncoder().encode(`the password of ${number}`);
  const input = { profile: "default", server: { url, pin, tlsCaPem: null }, account: `writer-${number}` };
  await registerAccount(home, { ...input, password, kdf: "test", invite: null }, around);
  const profile = readProfile(home.profiles, "default");
  if (!profile) throw new Error("no profile");
  const { client } = await loginProfile(home, profile, password, around, { keep: true });
  return { client, kept: new Map(), acknowledged: 0, unknown: 0, touched: new Set() };
}

async function writeOne(writer: Writer, number: number, turn: number): Promise<void> {
  const name = `secret/${turn % NAMES}`;
  const value = `${number} ${turn} `.padEnd(VALUE_BYTES, "v");
  const kept = writer.kept.get(name) ?? { version: 0, value: "", maybe: [] };
  writer.kept.set(name, kept);
  writer.touched.add(name);
  const input = { name, type: "note" as const, value: new TextEncoder().encode(value), tags: [] };
  try {
    // on the server alone, so that every later read of it asks the server
    const { info } = await writer.client.store({ ...input, where: "server" });
    if (kept.maybe.length === 0 && info.version !== kept.version + 1) {
      throw new Error(`${name}: version ${info.version} after ${kept.version}`);
    }
    Object.assign(kept, { version: info.version, value, maybe: [] });
    writer.acknowledged += 1;
  } catch (error) {
    if (!(error instanceof Fault) || !UNKNOWN.has(error.code)) throw error;
    kept.maybe.push(value);
    writer.unknown += 1;
    // what is down stays down for a moment
    await Bun.sleep(20);
  }
}

/** What the server holds of the touched names, against what was acknowledged; gives what is lost. */
async function check(writer: Writer): Promise<string[]> {
  const { client, kept, touched } = writer;
  const lost: string[] = [];
  const listed = new Map(
    (await client.list({ prefix: null, search: null, tag: null, fresh: true })).items.map((info) => [info.name, info]),
  );
  const refs: { name: string; version: null }[] = [];
  for (const name of touched) {
    if (listed.has(name)) refs.push({ name, version: null });
    else if ((kept.get(name)?.version ?? 0) > 0) lost.push(`${name}: gone`);
  }
  const got = refs.length === 0 ? [] : await client.getMany({ refs, fresh: true, purpose: "get" });
  for (const { info, version, value } of got) {
    const known = kept.get(info.name);
    const text = new TextDecoder().decode(value ?? new Uint8Array(0));
    if (!known) continue;
    const acknowledged = text === known.value && version === known.version;
    const later =
      known.maybe.includes(text) && version > known.version && version <= known.version + known.maybe.length;
    if (!acknowledged && !later) lost.push(`${info.name}: version ${version}, not ${known.version}`);
    Object.assign(known, { version, value: text, maybe: [] });
  }
  touched.clear();
  return lost;
}

const writers = await Promise.all(Array.from({ length: Number(count) }, (_, number) => open(number)));
let wanted = 0;
let ending = false;

async function run(writer: Writer, number: number): Promise<void> {
  let checked = 0;
  for (let turn = 0; ; turn++) {
    if (wanted > checked) {
      checked = wanted;
      const lost = await check(writer);
      if (ending) await writer.client.auditVerify();
      say({ checked, number, lost, acknowledged: writer.acknowledged, unknown: writer.unknown });
      if (ending) break;
    }
    await writeOne(writer, number, turn);
  }
  await writer.client.close();
}

say({ ready: true });
const running = Promise.all(writers.map(run));
void (async () => {
  let text = "";
  const decoder = new TextDecoder();
  for await (const part of Bun.stdin.stream()) {
    text += decoder.decode(part, { stream: true });
    for (let cut = text.indexOf("\n"); cut !== -1; cut = text.indexOf("\n")) {
      ending ||= text.slice(0, cut) === "end";
      text = text.slice(cut + 1);
      wanted += 1;
    }
  }
})();
try {
  await running;
  process.exit(0);
} catch (error) {
  const fault = error instanceof Fault ? `${error.code}: ${error.message} ${error.why ?? ""}` : String(error);
  say({ failed: fault });
  process.exit(1);
}
