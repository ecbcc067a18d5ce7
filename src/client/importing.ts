import { equalBytes, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { PlainItem } from "../formats/item.ts";
import { type KeyId, newId, type RequestId } from "../ids.ts";
import { checkFields, type Field } from "../protocol/content.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { isCustodial } from "../protocol/provenance.ts";
import { checkLength } from "../protocol/secret.ts";
import { encodeRecord } from "../wire/content.ts";
import type { Imported, Where } from "./api.ts";
import { checkedPublicKey, liveNamed, newMeta, refuseIdAsName, valueChange, withFields } from "./changes.ts";
import { type Change, changeBytes } from "./commit.ts";
import { expiryMs, timeMs } from "./expiry.ts";
import { encryptMeta, type Meta } from "./meta.ts";
import type { Secret } from "./model.ts";
import { secretName, secretTags } from "./names.ts";
import { type Open, online } from "./opened.ts";
import { viewOf } from "./overlay.ts";
import { type Place, placeOf, sendFirst, writeOrQueue } from "./placing.ts";
import { readVersion } from "./reading.ts";
import { synchronise } from "./sync.ts";
import { checkedOrigin, nextMeta } from "./writing.ts";

const BATCH = 20;
/** Leaves room for the signed state beside the changes. */
const BATCH_BYTES = DEFAULTS.bodyBytes - 4_096;

/** Stores many items; an equal value under the same name is skipped, another one becomes a new version. */
export async function importItems(
  open: Open,
  input: { items: readonly PlainItem[]; prefix: string; dryRun: boolean; origin: string; where: Where | null },
): Promise<Imported> {
  const items = input.items.map((item) => ({
    ...item,
    name: secretName(`${input.prefix}${item.name}`),
    tags: secretTags(item.tags),
  }));
  const names = new Set(items.map(({ name }) => name));
  if (names.size !== items.length) throw new Fault("bad_input", "two items to import have the same name");
  const metas = items.map((item) => importedMeta(open, item, input.origin));
  const { session } = open;
  let away = await sendFirst(open);
  if (session && open.box.model.bound && !away) {
    away = !(await online(open, false, async (at) => {
      if (at) await synchronise(open.box.model, session, open.around);
      return at !== null;
    }));
  }
  const outcomes: { name: string; outcome: "new" | "version" | "same" }[] = [];
  const todo: { index: number; known: Secret | undefined; kept: string | null; place: Place; keep: boolean }[] = [];
  for (const [index, item] of items.entries()) {
    const known = liveNamed(viewOf(open.box.model), item.name);
    const { same, kept } = known ? await likeness(open, known, item) : { same: false, kept: null };
    outcomes.push({ name: item.name, outcome: same ? "same" : known ? "version" : "new" });
    if (!same) todo.push({ index, known, kept, ...placeOf(open, known, input.where) });
  }
  let requestId: RequestId | null = null;
  let queued = false;
  for (let at = 0; !input.dryRun && at < todo.length; ) {
    const place = todo[at]?.place ?? "local";
    const next = todo.slice(at, at + BATCH);
    const waits = isWaiting(todo[at]?.known);
    const end = next.findIndex((one) => one.place !== place || isWaiting(one.known) !== waits);
    const batch = next.slice(0, end < 0 ? undefined : end);
    const ids = batch.map(() => newId<KeyId>(open.around.random));
    let taken = 0;
    const wish = { insist: input.where === "server", away };
    const done = await writeOrQueue(open, place, "secret.import", todo[at]?.known, wish, (model) => {
      const changes = fitting(batch, ({ index, keep, kept }, i) => {
        const item = items[index];
        const fresh = ids[i];
        const imported = metas[index];
        if (!item || !fresh || !imported) throw new Fault("internal", "an item was lost");
        const before = liveNamed(model, item.name);
        const origin = item.origin ?? kept ?? imported.origin;
        const meta = { ...nextMeta(before, imported), expiresAtMs: imported.expiresAtMs, origin };
        const content = { value: item.value, fields: item.fields ?? [] };
        return valueChange(model, before?.leaf.keyId ?? fresh, before, meta, content, keep, open.around.random);
      });
      taken = changes.length;
      return changes;
    });
    requestId = done.requestId ?? requestId;
    away ||= done.queued;
    queued ||= done.queued;
    at += taken;
  }
  const skipped = outcomes.filter(({ outcome }) => outcome === "same").length;
  return { imported: items.length - skipped, skipped, queued, items: outcomes, requestId };
}

const isWaiting = (secret: Secret | undefined): boolean => secret?.place === "queued";

/** Checks one item to import as a whole, so that a bad one is found before the first is stored. */
function importedMeta(open: Open, item: PlainItem, origin: string): Meta {
  const fields = item.fields ?? [];
  checkSize(item.value, fields);
  const nowMs = open.around.now();
  const { keys, owner } = open.box.model;
  refuseIdAsName(viewOf(open.box.model), item.name);
  const publicKey = checkedPublicKey(item.type, item.value);
  const from = item.origin === undefined ? `imported:${origin}` : checkedOrigin(item.origin);
  const base = newMeta(item.name, item.type, item.tags, from, publicKey, nowMs);
  const createdAtMs = item.createdAt === null ? nowMs : timeMs(item.createdAt);
  const meta = withFields({ ...base, createdAtMs, expiresAtMs: expiryMs(item.expiresAt ?? null) }, fields);
  encryptMeta(keys.index, owner, newId<KeyId>(open.around.random), 1, meta, open.around.random);
  return meta;
}

/** Refuses content that could not be sealed. @throws Fault bad_input, too_large */
function checkSize(value: Uint8Array, fields: readonly Field[]): void {
  if (fields.length === 0) {
    checkLength(value);
    return;
  }
  checkFields(fields);
  wipe(encodeRecord({ value, fields }));
}

/** The changes of as many items as one request holds, counted as they are sent; at least one. */
function fitting<T>(batch: readonly T[], change: (one: T, index: number) => Change): Change[] {
  const changes: Change[] = [];
  let bytes = 0;
  for (const [i, one] of batch.entries()) {
    const made = change(one, i);
    bytes += changeBytes(made);
    if (i > 0 && bytes > BATCH_BYTES) break;
    changes.push(made);
  }
  return changes;
}

/**
 * Whether a secret is what an item says, and the origin that stays with a value that a server has seen: neither an
 * import that does not say so takes it away, nor is one that says so left out.
 */
async function likeness(
  open: Open,
  secret: Secret,
  item: PlainItem,
): Promise<{ readonly same: boolean; readonly kept: string | null }> {
  const { meta } = secret;
  const seen = meta !== null && isCustodial(meta.origin);
  if (meta === null || (meta.type !== item.type && !seen)) return { same: false, kept: null };
  const read = await online(open, false, (at) =>
    readVersion(open, secret, secret.leaf.version, secret.place === "local" ? null : at),
  );
  try {
    const expiresAtMs = expiryMs(item.expiresAt ?? null);
    const equal = equalBytes(read.value, item.value);
    const same =
      equal &&
      meta.type === item.type &&
      sameFields(read.fields, item.fields ?? []) &&
      meta.expiresAtMs === expiresAtMs &&
      (item.origin === undefined || seen);
    return { same, kept: seen && equal ? meta.origin : null };
  } finally {
    wipe(read.value);
  }
}

function sameFields(a: readonly Field[], b: readonly Field[]): boolean {
  return (
    a.length === b.length &&
    a.every(({ name, kind, value }, i) => name === b[i]?.name && kind === b[i].kind && value === b[i].value)
  );
}
