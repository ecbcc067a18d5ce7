import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { KeyId, RequestId } from "../ids.ts";
import { type Content, isShown } from "../protocol/content.ts";
import { type LeafRecord, leafHash, leafMetaFits } from "../protocol/leaf.ts";
import type { Got, VersionInfo } from "./api.ts";
import { custodyOf, findSecret, infoOf, isForeignId, noSuchSecret, openChecked, secretOf } from "./changes.ts";
import { fetchSealed } from "./fetching.ts";
import { decryptMeta, type Meta } from "./meta.ts";
import { indexKeys, type LocalSecret, type QueuedSecret, type Secret, type ServerSecret } from "./model.ts";
import { type Online, type Open, online, save } from "./opened.ts";
import { queuedContent, viewOf } from "./overlay.ts";
import { isSealed, type Session } from "./session.ts";
import { synchronise } from "./sync.ts";

/** Takes in what the server has and this device has not, if the last answer said so. */
export async function catchUp(open: Open, at: Online): Promise<boolean> {
  if (!at.moved()) return false;
  await synchronise(open.box.model, at.session, open.around);
  await save(open);
  return true;
}

/**
 * Reads secrets that the signed account holds: `not_found` is then no answer, unless the account has moved on.
 *
 * @throws Fault integrity when the server withholds one
 */
export async function withheld<T>(open: Open, at: Online | null, work: () => Promise<T>): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (!at || !(error instanceof Fault) || error.code !== "not_found" || !isSealed(error)) throw error;
      if (attempt < 3 && (await catchUp(open, at))) continue;
      throw new Fault("integrity", "the server withholds a secret that the signed account holds", {
        ...(error.requestId === undefined ? {} : { requestId: error.requestId }),
      });
    }
  }
}

/** All leaves of a secret, oldest first, each linked to the next and the last to what the signed root holds. */
export async function leavesOf(
  open: Open,
  secret: Secret,
  session: Session | null,
): Promise<{ leaves: readonly LeafRecord[]; requestId: RequestId | null }> {
  if (secret.place === "local") return { leaves: secret.leaves, requestId: null };
  if (!session) throw new Fault("unreachable", "older versions lie on the server");
  const leaves: LeafRecord[] = [];
  let requestId: RequestId | null = null;
  for (let more = true; more && leaves.length < secret.leaf.serial; ) {
    const answer = await session.call("secret.history", {
      keyId: secret.leaf.keyId,
      afterSerial: leaves.length,
    });
    requestId ??= answer.requestId;
    for (const leaf of answer.output.leaves) {
      if (leaf.serial !== leaves.length + 1) throw otherHistory();
      leaves.push(leaf);
    }
    more = answer.output.more && answer.output.leaves.length > 0;
  }
  const { leaf } = secretOf(open.box.model, secret.leaf.keyId, { removed: true });
  const until = leaves.filter(({ serial }) => serial <= leaf.serial);
  const linked = until.every((one, i) => {
    const next = until[i + 1];
    const link = next ? next.previous : leafHash(leaf);
    return (
      one.serial === i + 1 &&
      (one.meta === null ? leaf.status === "purged" : leafMetaFits(one)) &&
      Buffer.compare(leafHash(one), link) === 0
    );
  });
  if (!linked || until.length !== leaf.serial) {
    throw otherHistory();
  }
  return { leaves: until, requestId };
}

function otherHistory(): Fault {
  return new Fault("integrity", "the server's history of a secret is not the one that was signed");
}

/** The leaf that gave a version its value. */
export function leafOfVersion(leaves: readonly LeafRecord[], version: number): LeafRecord {
  const found = leaves.find((leaf) => leaf.version === version);
  if (!found) throw new Fault("not_found", `there is no version ${version}`, { hint: "keyhold history NAME" });
  return found;
}

/** One version's content, and its own origin. */
type ReadVersion = Content & { readonly origin: string; readonly requestId: RequestId | null };

/** One version's content, from the server where there is one. */
export async function readVersion(
  open: Open,
  secret: Secret,
  version: number,
  at: Online | null,
): Promise<ReadVersion> {
  const { model } = open.box;
  if (secret.place === "queued") return readQueued(open, secret, version, at);
  const current = version === secret.leaf.version;
  const leaf = current
    ? secret.leaf
    : leafOfVersion((await leavesOf(open, secret, at?.session ?? null)).leaves, version);
  const meta = current ? secret.meta : decryptMeta(indexKeys(model), model.owner, leaf);
  if (meta === null) throw noSuchSecret();
  const { origin } = meta;
  if (secret.place === "local") {
    const kept = secret.values.find((one) => one.version === version);
    if (!kept) throw noSuchSecret();
    return { ...openChecked(model, leaf, meta, kept.sealed), origin, requestId: null };
  }
  if (at) {
    const { sealed, requestId } = await fetchSealed(at.session, "secret.get", [{ keyId: leaf.keyId, version }]);
    return { ...openChecked(model, leaf, meta, sealed[0] ?? new Uint8Array(0)), origin, requestId };
  }
  if (!current || secret.sealed === null) {
    throw new Fault("unreachable", "the server is away and the vault keeps no copy of this value", {
      hint: "keyhold get NAME --save keeps one next time",
    });
  }
  return { ...openChecked(model, leaf, meta, secret.sealed), origin, requestId: null };
}

/** A version of a secret that has changes waiting: one of those, or one of before. */
async function readQueued(open: Open, secret: QueuedSecret, version: number, at: Online | null): Promise<ReadVersion> {
  const waiting = queuedContent(open.box.model, secret, version);
  if (waiting) return { ...waiting, requestId: null };
  if (secret.under && version <= secret.under.leaf.version) return readVersion(open, secret.under, version, at);
  throw new Fault("not_found", `there is no version ${version}`, { hint: "keyhold history NAME" });
}

/** Looks a name up; one that this device does not know is looked for on the server. */
export async function lookUp(open: Open, name: string, at: Online | null): Promise<Secret> {
  const model = viewOf(open.box.model);
  try {
    return findSecret(model, name);
  } catch (error) {
    if (!at || !(error instanceof Fault) || error.code !== "not_found") throw error;
    // a whole id is asked for as it is, so that the log has the attempt; the answer is the same for all that fail
    if (isForeignId(model, name)) await askForeign(at.session, name as KeyId);
    const { changed, answer } = await synchronise(model, at.session, open.around, "secret.list");
    if (changed > 0) await save(open);
    try {
      return findSecret(viewOf(open.box.model), name);
    } catch (again) {
      if (again instanceof Fault && again.code === "not_found") {
        const { hint = "keyhold list" } = again;
        throw new Fault("not_found", again.message, { hint, requestId: answer.requestId });
      }
      throw again;
    }
  }
}

async function askForeign(session: Session, keyId: KeyId): Promise<void> {
  try {
    await session.call("secret.get", { keys: [{ keyId, version: 1 }] });
  } catch (error) {
    if (!isSealed(error) || !(error instanceof Fault) || error.code !== "not_found") throw error;
    const { requestId } = error;
    throw new Fault("not_found", "no such secret", {
      hint: "keyhold list",
      ...(requestId === undefined ? {} : { requestId }),
    });
  }
}

/** Retrieves one secret (docs/client.md). */
export function getSecret(
  open: Open,
  input: { name: string; version: number | null; reveal: boolean; fresh: boolean; save: boolean },
): Promise<Got> {
  return online(open, input.fresh, (at) => withheld(open, at, () => getOnce(open, input, at)));
}

async function getOnce(
  open: Open,
  input: { name: string; version: number | null; reveal: boolean; save: boolean },
  at: Online | null,
): Promise<Got> {
  for (let attempt = 0; ; attempt++) {
    const secret = await lookUp(open, input.name, at);
    const version = input.version ?? secret.leaf.version;
    const read = await readVersion(open, secret, version, secret.place === "local" ? null : at);
    // the answer itself may tell that another device wrote meanwhile: then look again
    if (at && secret.place === "server" && (await catchUp(open, at)) && attempt < 3) {
      wipe(read.value);
      continue;
    }
    if (input.save && secret.place === "server" && version === secret.leaf.version && at) {
      await keepCopy(open, secret.leaf.keyId, at.session);
    }
    const now = secretOf(viewOf(open.box.model), secret.leaf.keyId);
    const from = secret.place === "server" && at ? "server" : "vault";
    if (input.reveal && read.file) throw inParts();
    if (!input.reveal) wipe(read.value);
    return {
      info: infoOf(now, read.origin),
      shown: read.fields.map((field) => ({ ...field, value: isShown(field) ? field.value : null })),
      ...(read.file && { size: read.file.size }),
      version,
      value: input.reveal ? read.value : null,
      fields: input.reveal ? read.fields : null,
      requestId: read.requestId,
      from,
      syncedAt: syncedAt(open),
    };
  }
}

/** Such a file is no value that could be handed over whole. */
function inParts(): Fault {
  return new Fault("too_large", "this is a file of more than one part", { hint: "keyhold read NAME --out FILE" });
}

async function keepCopy(open: Open, keyId: KeyId, session: Session): Promise<void> {
  const secret = secretOf(open.box.model, keyId);
  if (secret.place !== "server") return;
  const { sealed } = await fetchSealed(session, "secret.get", [{ keyId, version: secret.leaf.version }]);
  const value = sealed[0];
  if (!value || secret.meta === null) return;
  wipe(openChecked(open.box.model, secret.leaf, secret.meta, value).value);
  await save(open, (model) => model.secrets.set(keyId, { ...secret, sealed: value }));
}

/** Retrieves many secrets at once: all or none. */
export function getManySecrets(
  open: Open,
  input: { refs: readonly { name: string; version: number | null }[]; fresh: boolean; purpose: "get" | "export" },
): Promise<readonly Got[]> {
  return online(open, input.fresh, async (at) => {
    for (let attempt = 0; ; attempt++) {
      const got = await withheld(open, at, () => getManyOnce(open, input, at));
      // an answer may tell that another device wrote meanwhile: then the values are asked for again
      if (at === null || !(await catchUp(open, at)) || attempt === 3) return got;
      for (const one of got) wipe(one.value ?? undefined);
    }
  });
}

/** Of many secrets, which one it is that is not there. */
function naming(name: string, error: unknown): unknown {
  if (!(error instanceof Fault) || (error.code !== "not_found" && error.code !== "ambiguous")) return error;
  const { why, hint, requestId } = error;
  return new Fault(error.code, `cannot read ${JSON.stringify(name)}: ${error.message}`, {
    ...(why !== undefined && { why }),
    ...(hint !== undefined && { hint }),
    ...(requestId !== undefined && { requestId }),
  });
}

function readNow(open: Open, leaf: LeafRecord, meta: Meta, sealed: Uint8Array, requestId: RequestId): ReadVersion {
  return { ...openChecked(open.box.model, leaf, meta, sealed), origin: meta.origin, requestId };
}

async function getManyOnce(
  open: Open,
  input: { refs: readonly { name: string; version: number | null }[]; purpose: "get" | "export" },
  at: Online | null,
): Promise<readonly Got[]> {
  const secrets: Secret[] = [];
  for (const ref of input.refs) {
    try {
      secrets.push(await lookUp(open, ref.name, at));
    } catch (error) {
      throw naming(ref.name, error);
    }
  }
  const batch = new Map<number, { keyId: KeyId; version: number }>();
  for (const [i, secret] of secrets.entries()) {
    const version = input.refs[i]?.version ?? secret.leaf.version;
    if (at && secret.place === "server" && version === secret.leaf.version)
      batch.set(i, { keyId: secret.leaf.keyId, version });
  }
  const operation = input.purpose === "export" ? "secret.export" : "secret.get";
  const fetched = at && batch.size > 0 ? await fetchSealed(at.session, operation, [...batch.values()]) : null;
  const order = [...batch.keys()];
  const got: Got[] = [];
  try {
    for (const [i, secret] of secrets.entries()) {
      const version = input.refs[i]?.version ?? secret.leaf.version;
      const sealed = fetched?.sealed[order.indexOf(i)];
      const { origin, ...read } =
        order.includes(i) && sealed && secret.meta
          ? readNow(open, secret.leaf, secret.meta, sealed, fetched.requestId)
          : await readVersion(open, secret, version, secret.place === "local" ? null : at);
      if (read.file) throw inParts();
      const from = secret.place === "server" && at ? "server" : "vault";
      got.push({ info: infoOf(secret, origin), version, ...read, from, syncedAt: syncedAt(open) });
    }
  } catch (error) {
    for (const one of got) wipe(one.value ?? undefined);
    throw error;
  }
  return got;
}

/** When the vault last heard from the server, or null without one. */
export function syncedAt(open: Open): string | null {
  const { bound } = open.box.model;
  return bound ? new Date(bound.syncedAtMs).toISOString() : null;
}

/** The versions of a secret, oldest first. */
export function historyOf(
  open: Open,
  input: { name: string },
): Promise<{ items: readonly VersionInfo[]; requestId: RequestId | null }> {
  return online(open, false, (at) => withheld(open, at, () => historyOnce(open, input.name, at)));
}

async function historyOnce(
  open: Open,
  name: string,
  at: Online | null,
): Promise<{ items: readonly VersionInfo[]; requestId: RequestId | null }> {
  const secret = findSecret(viewOf(open.box.model), name, { removed: true });
  const there = secret.place === "queued" ? secret.under : secret;
  const { leaves, requestId } = there ? await knownLeaves(open, there, at) : { leaves: [], requestId: null };
  const { model } = open.box;
  const waiting = secret.place === "queued" ? secret.waiting : [];
  const signed = leaves.map((leaf) => {
    const meta = decryptMeta(indexKeys(model), model.owner, leaf);
    return {
      version: leaf.version,
      status: leaf.status,
      updatedAt: meta ? new Date(meta.updatedAtMs).toISOString() : null,
      name: meta?.name ?? null,
      current: waiting.length === 0 && leaf.serial === secret.leaf.serial,
      ...custodyOf(meta?.origin),
    };
  });
  const queued = waiting.map(({ version, entry }, i) => ({
    version,
    status: entry.status,
    updatedAt: new Date(entry.meta.updatedAtMs).toISOString(),
    name: entry.meta.name,
    current: i === waiting.length - 1,
    ...custodyOf(entry.meta.origin),
  }));
  const items = [...signed, ...queued];
  return { items, requestId };
}

/** All leaves of a secret; of a server's secret while the server is away the newest one, with a notice. */
async function knownLeaves(open: Open, secret: LocalSecret | ServerSecret, at: Online | null) {
  if (secret.place === "local" || at) return leavesOf(open, secret, at?.session ?? null);
  if (secret.leaf.serial > 1) open.around.notice("older versions lie on the server: here is the newest one");
  return { leaves: [secret.leaf], requestId: null };
}
