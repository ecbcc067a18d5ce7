import { Fault } from "../errors.ts";
import { asId, isHashId, isId, type KeyId, type RequestId } from "../ids.ts";
import { auditLink, type SaltedEntry } from "../protocol/audit.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import type { AuditItem, AuditQuery } from "./api.ts";
import { checkSigned } from "./auditing.ts";
import { broken } from "./auditmatch.ts";
import type { OtpRequester } from "./ceremonyapi.ts";
import { custodyOf, findSecret } from "./changes.ts";
import type { Model, Secret } from "./model.ts";
import { type Online, type Open, online } from "./opened.ts";
import { synchronise } from "./sync.ts";

/** What the ids in a log are called. */
type AuditNames = ReturnType<typeof import("./auditnames.ts").auditNames>;

function itemOf(
  model: Model,
  salted: SaltedEntry,
  called: ReadonlyMap<KeyId, string>,
  handed: ReadonlyMap<number, OtpRequester>,
): AuditItem {
  const { entry } = salted;
  const meta = entry.keyId === null ? undefined : model.secrets.get(entry.keyId)?.meta;
  // the part of a file has the id of its file for a name
  const named = meta?.type === "part" ? model.secrets.get(meta.name as KeyId)?.meta : meta;
  const name = named?.name ?? (entry.keyId === null ? null : (called.get(entry.keyId) ?? null));
  const handedTo = handed.get(entry.seq);
  return {
    seq: entry.seq,
    at: new Date(entry.atMs).toISOString(),
    action: entry.action,
    status: entry.status,
    keyId: entry.keyId,
    name,
    requestId: entry.requestId,
    session: entry.session,
    count: entry.count,
    ...custodyOf(named?.origin),
    ...(handedTo && { handedTo }),
    signed: entry.stateHash !== null,
    linkHex: auditLink(salted).toHex(),
  };
}

function cursorOf(text: string | null): number {
  if (text === null) return 0;
  if (!/^\d{1,15}$/.test(text))
    throw new Fault("bad_input", "this is not a cursor", { hint: "pass the `next` of the page before" });
  return Number(text);
}

/** Events of the account's log, oldest first. */
export function listAudit(
  open: Open,
  query: AuditQuery,
): Promise<{ items: readonly AuditItem[]; next: string | null; requestId: RequestId | null }> {
  return online(open, true, async (at) => {
    if (!at) throw new Fault("unreachable", "the log lies on the server");
    const { model } = open.box;
    const names = (await import("./auditnames.ts")).auditNames(model, at.session);
    const { keyIds, unknown } = await keysMeant(model, names, query.name);
    const pages: Page[] = [];
    for (const keyId of keyIds) pages.push(await pageOf(at, model, query, keyId));
    const filtered = [query.action, query.fromMs, query.untilMs, query.requestId, query.cursor].some(
      (one) => one !== null,
    );
    if (unknown && !filtered && pages.every(({ found }) => found.length === 0)) throw unknown;
    const [first] = pages;
    const merged = pages.flatMap((page) => page.found).toSorted((a, b) => a.entry.seq - b.entry.seq);
    const found = query.limit === null ? merged : merged.slice(0, query.limit);
    const more = found.length < merged.length || pages.some((page) => page.more);
    if (at.moved()) await synchronise(model, at.session, open.around);
    await checkSigned(at.session, model, found);
    const [called, handedTo] = [await names.of(found), await names.handedTo(found)];
    return {
      items: found.map((item) => itemOf(model, item, called, handedTo)),
      next: more ? String(found.at(-1)?.entry.seq ?? 0) : null,
      requestId: first?.requestId ?? null,
    };
  });
}

/** What of the log is meant by a name, and what to say where nothing is found of an id that nobody knows. */
async function keysMeant(
  model: Model,
  names: AuditNames,
  wanted: string | null,
): Promise<{ keyIds: readonly (KeyId | null)[]; unknown: Fault | null }> {
  if (wanted === null) return { keyIds: [null], unknown: null };
  let secret: Secret | null = null;
  let fault: Fault | null = null;
  try {
    secret = findSecret(model, wanted, { removed: true });
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== "not_found") throw error;
    const { hint = "keyhold list" } = error;
    fault = new Fault("not_found", "no secret, one-time password or ceremony has this name or id", { hint });
  }
  const { loggedIds } = await import("./auditnames.ts");
  const meant = secret && { keyId: secret.leaf.keyId, name: secret.meta?.name ?? null };
  // a whole id is the log's own word: nobody has to know a name for it
  const keyIds = loggedIds(isHashId(wanted) ? [] : await names.all(), wanted, meant);
  if (keyIds.length > 0) return { keyIds, unknown: isHashId(wanted) ? fault : null };
  if (isId(wanted)) return { keyIds: [asId<KeyId>(wanted)], unknown: fault };
  throw fault ?? new Fault("internal", "nothing was found, and nothing said so");
}

/** Entries about one id, or all; as many as were asked for. */
interface Page {
  readonly found: readonly SaltedEntry[];
  readonly more: boolean;
  readonly requestId: RequestId | null;
}

async function pageOf(at: Online, model: Model, query: AuditQuery, keyId: KeyId | null): Promise<Page> {
  const operation = query.purpose === "export" ? "audit.export" : "audit.list";
  const found: SaltedEntry[] = [];
  let requestId: RequestId | null = null;
  let after = cursorOf(query.cursor);
  for (;;) {
    const limit = Math.min(DEFAULTS.auditPage, query.limit === null ? DEFAULTS.auditPage : query.limit - found.length);
    const filter = { ...query, keyId };
    const answer = await at.session.call(operation, {
      after,
      limit,
      keyId,
      action: query.action,
      fromMs: query.fromMs,
      untilMs: query.untilMs,
      requestId: query.requestId,
    });
    requestId ??= answer.requestId;
    const { entries, more } = answer.output;
    for (const item of entries) {
      const { entry } = item;
      const fits = entry.seq > after && entry.seq <= answer.head.auditSeq && entry.userId === model.owner;
      if (!fits || !asked(item, filter)) throw broken(`entry ${entry.seq} does not belong into this answer`);
      after = entry.seq;
    }
    if (entries.length > limit) throw broken("it sends more entries than were asked for");
    found.push(...entries);
    if (!more || entries.length === 0) return { found, more: false, requestId };
    if (query.limit !== null && found.length >= query.limit) return { found, more: true, requestId };
  }
}

/** True when an entry is one that the filter lets through. */
function asked({ entry }: SaltedEntry, filter: Omit<AuditQuery, "name"> & { keyId: KeyId | null }): boolean {
  return (
    (filter.keyId === null || entry.keyId === filter.keyId) &&
    (filter.action === null || entry.action === filter.action) &&
    (filter.requestId === null || entry.requestId === filter.requestId) &&
    (filter.fromMs === null || entry.atMs >= filter.fromMs) &&
    (filter.untilMs === null || entry.atMs <= filter.untilMs)
  );
}
