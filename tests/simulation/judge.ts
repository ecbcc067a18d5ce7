import { NOTHING_MERGED } from "../../src/client/merge.ts";
import { readVersion } from "../../src/client/reading.ts";
import { Fault } from "../../src/errors.ts";
import type { RequestId } from "../../src/ids.ts";
import type { SaltedEntry } from "../../src/protocol/audit.ts";
import type { SignedState } from "../../src/protocol/state.ts";
import { checkServer } from "../../src/server/check.ts";
import type { Seen } from "./act.ts";
import type { Device, Surround } from "./device.ts";

/** Holds what a run left, once everything works again, to what its devices saw; adds what is wrong to `seen`. */
export async function judge(at: Surround, devices: readonly Device[], seen: Seen): Promise<void> {
  const { wrong } = seen;
  const attempt = async (what: string, work: () => Promise<unknown>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      wrong.push(`${what}: ${error.code}: ${error.message} (${error.why ?? ""})`);
    }
  };
  // twice: what a device still had to settle, the others learn in the second round
  for (const round of [1, 2]) {
    for (const device of devices) {
      await attempt(`device ${device.number} cannot synchronise (${round})`, () => device.client.sync());
    }
  }
  for (const device of devices) {
    await attempt(`device ${device.number} cannot verify the log`, () => device.client.auditVerify());
  }
  const checked = await checkServer(at.server.ctx);
  for (const { name, ok, detail } of checked.items) if (!ok) wrong.push(`server check, ${name}: ${detail ?? ""}`);
  converged(devices, wrong);
  const first = devices[0];
  if (first) await attempt("the values cannot be read", () => judgeValues(first, seen));
  await judgeRecords(at, seen);
}

/** All devices hold the same account. */
function converged(devices: readonly Device[], wrong: string[]): void {
  const views = devices.map(({ open }) => {
    const { model } = open.box;
    if (model.queue.length > 0) wrong.push(`${model.queue.length} changes still wait`);
    const names = [...model.secrets.values()]
      .filter(({ leaf }) => leaf.status === "live")
      .map(({ meta, leaf }) => `${meta?.name} ${leaf.keyId} ${leaf.version}`)
      .sort();
    const live = names.map((line) => line.split(" ")[0]);
    if (new Set(live).size !== live.length) wrong.push(`two live secrets have one name: ${names.join(", ")}`);
    return `${model.bound?.head.state.revision} ${model.map.root().toHex()} ${names.join(", ")}`;
  });
  if (new Set(views).size > 1) wrong.push(`the devices differ: ${views.join(" | ")}`);
}

/** Each acknowledged value stands where its device was told, one that waited anywhere, each once; no other value does. */
async function judgeValues({ open }: Device, { attempts, reads, wrong }: Seen): Promise<void> {
  const { session } = open;
  if (!session) throw new Error("no session");
  const values = new Map<string, string>();
  for (const secret of open.box.model.secrets.values()) {
    for (let version = 1; version <= secret.leaf.version; version++) {
      const at = { session, merged: NOTHING_MERGED, moved: () => false };
      const { value } = await readVersion(open, secret, version, at);
      values.set(`${secret.leaf.keyId} ${version}`, new TextDecoder().decode(value));
    }
  }
  const written = new Map(attempts.flatMap((attempt) => (attempt.value === null ? [] : [[attempt.value, attempt]])));
  const found = new Set<string>();
  for (const [place, value] of values) {
    const by = written.get(value);
    if (!by) wrong.push(`${place} holds a value that nobody wrote`);
    else if (by.outcome === "refused") wrong.push(`${place} holds ${value}, whose store was refused`);
    if (found.has(value)) wrong.push(`${value} was stored twice`);
    found.add(value);
  }
  for (const { outcome, value, keyId, version } of attempts) {
    if (outcome === "ok" && value !== null && values.get(`${keyId} ${version}`) !== value) {
      wrong.push(`the acknowledged ${value} is not version ${version} of ${keyId}`);
    }
  }
  for (const { outcome, value } of attempts) {
    if (outcome === "queued" && value !== null && !found.has(value))
      wrong.push(`${value}, which waited, stands nowhere`);
  }
  for (const { keyId, version, value } of reads) {
    if (values.get(`${keyId} ${version}`) !== value) wrong.push(`version ${version} of ${keyId} was read as ${value}`);
  }
}

const PAGE = 500;

async function everything<T>(page: (after: number) => Promise<readonly T[]>): Promise<readonly T[]> {
  const all: T[] = [];
  for (;;) {
    const more = await page(all.length);
    all.push(...more);
    if (more.length < PAGE) return all;
  }
}

/** The signed chain and the log hold each acknowledged change exactly once, and nothing that was not sent. */
async function judgeRecords(at: Surround, { attempts, wrong }: Seen): Promise<void> {
  const { template, server, sent } = at;
  const { userId } = template;
  const { store } = server.ctx;
  const filter = { limit: PAGE, keyId: null, action: null, fromMs: null, untilMs: null, requestId: null };
  const states = await everything<SignedState>((after) =>
    store.transaction((tx) => tx.statesSince(userId, after, PAGE)),
  );
  const entries = await everything<SaltedEntry>((after) =>
    store.transaction((tx) => tx.audit(userId, { ...filter, after })),
  );
  const signed = new Map<RequestId, number>();
  for (const [index, { state }] of states.entries()) {
    if (state.revision !== index + 1) wrong.push(`revision ${state.revision} stands at place ${index + 1}`);
    signed.set(state.requestId, (signed.get(state.requestId) ?? 0) + 1);
    if (index >= template.revision && !sent.has(state.requestId)) wrong.push("a change stands that nobody sent");
  }
  for (const [requestId, times] of signed)
    if (times > 1) wrong.push(`request ${requestId} was executed ${times} times`);
  const logged = new Map<string, number>();
  const done = new Set<RequestId>();
  for (const { entry } of entries) {
    const { requestId, keyId, status, stateHash } = entry;
    if (requestId === null) continue;
    if (status === "ok" && stateHash !== null) done.add(requestId);
    const what = `${requestId} ${keyId}`;
    logged.set(what, (logged.get(what) ?? 0) + 1);
    const frames = sent.get(requestId);
    if (frames !== undefined && (logged.get(what) ?? 0) > frames) {
      wrong.push(`${entry.action} ${requestId} was logged more often than it was sent`);
    }
  }
  for (const { outcome, requestId } of attempts) {
    if (outcome !== "ok" || requestId === null) continue;
    if (!signed.has(requestId)) wrong.push(`the acknowledged request ${requestId} left no state`);
    if (!done.has(requestId)) wrong.push(`the acknowledged request ${requestId} left no entry`);
  }
}
