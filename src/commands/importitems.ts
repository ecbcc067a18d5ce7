import type { KeyholdClient, Where } from "../client/api.ts";
import { expiryMs } from "../client/expiry.ts";
import { holdsFile, storeWholeFile } from "../client/files.ts";
import { secretName, secretTags } from "../client/names.ts";
import { Fault } from "../errors.ts";
import type { PlainItem } from "../formats/item.ts";
import type { RequestId } from "../ids.ts";
import { checkFileFields } from "../protocol/content.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import type { Terminal } from "../ui/terminal.ts";

/** What became of one item. */
export interface Outcome {
  readonly name: string;
  readonly type: string;
  readonly fields: readonly string[];
  readonly outcome: "new" | "version" | "same";
}

/** What an import did, or would do. */
export interface ImportDone {
  readonly items: readonly Outcome[];
  readonly imported: number;
  readonly skipped: number;
  readonly queued: boolean;
  readonly requestId: RequestId | null;
}

export interface ImportInput {
  readonly items: readonly PlainItem[];
  readonly prefix: string;
  readonly dryRun: boolean;
  readonly origin: string;
  readonly where: Where | null;
}

/** Items that are stored between two steps of the progress. */
const STEP = 200;
/** What a file may have to be stored with others in one request; a larger one goes in parts. */
const SMALL_FILE = { bare: 61_440, fields: 36_000 } as const;

const goesInParts = ({ type, value, fields = [] }: PlainItem): boolean =>
  type === "file" && value.length > (fields.length > 0 ? SMALL_FILE.fields : SMALL_FILE.bare);

/**
 * Stores items: an equal one is skipped, another value under the same name becomes a new version. All are checked before
 * the first is stored; what fails later leaves the earlier ones, and the same import again goes on where it stopped.
 */
export async function storeItems(client: KeyholdClient, input: ImportInput, term: Terminal): Promise<ImportDone> {
  const { prefix } = input;
  const names = new Set(input.items.map(({ name }) => `${prefix}${name}`.normalize("NFC")));
  if (names.size !== input.items.length) throw new Fault("bad_input", "two items to import have the same name");
  const large = input.items.filter(goesInParts);
  const small = large.length === 0 ? input.items : input.items.filter((item) => !goesInParts(item));
  for (const item of large) checkLarge(item, prefix);
  const outcomes = new Map<string, Outcome["outcome"]>();
  const counter = term.counter(input.dryRun ? "Comparing" : "Importing", input.items.length);
  let requestId: RequestId | null = null;
  let queued = false;
  const store = async (items: readonly PlainItem[], dryRun: boolean) => {
    const done = await client.importItems({ ...input, items, dryRun });
    for (const { name, outcome } of done.items) outcomes.set(name, outcome);
    requestId = done.requestId ?? requestId;
    queued ||= done.queued;
    if (dryRun === input.dryRun) counter.advance(items.length);
  };
  try {
    const stepwise = !input.dryRun && (small.length > STEP || large.length > 0);
    if (stepwise) await store(small, true);
    for (let at = 0; at < small.length; ) {
      const step = stepwise ? small.slice(at, at + STEP) : small;
      await store(step, input.dryRun);
      at += step.length;
    }
    const known = large.length === 0 ? new Set<string>() : await namesOf(client);
    for (const item of large) {
      const name = `${prefix}${item.name}`.normalize("NFC");
      const same = known.has(name) && (await holdsFile(client, name, item));
      outcomes.set(name, same ? "same" : known.has(name) ? "version" : "new");
      if (!same && !input.dryRun) {
        const { where } = input;
        const { value, tags, createdAt, fields = [], expiresAt = null, origin = input.origin } = item;
        const file = { name, value, tags, fields, expiresAt, where, origin, createdAt };
        const done = await storeWholeFile(client, file);
        requestId = done.requestId ?? requestId;
        queued ||= done.queued;
      }
      counter.advance();
    }
  } finally {
    counter.done();
  }
  const items = input.items.map(({ name, type, fields = [] }): Outcome => {
    const full = `${prefix}${name}`.normalize("NFC");
    return { name: full, type, fields: fields.map((field) => field.name), outcome: outcomes.get(full) ?? "new" };
  });
  const skipped = items.filter(({ outcome }) => outcome === "same").length;
  return { items, imported: items.length - skipped, skipped, queued, requestId };
}

/** What the client refuses of a file, before the first item is stored. @throws Fault bad_input, too_large */
function checkLarge({ name, value, tags, fields = [], expiresAt = null }: PlainItem, prefix: string): void {
  if (value.length > DEFAULTS.fileBytes) {
    throw new Fault("too_large", `a file to import has at most ${DEFAULTS.fileBytes} bytes`);
  }
  secretName(`${prefix}${name}`);
  secretTags(tags);
  checkFileFields(fields);
  expiryMs(expiresAt);
}

async function namesOf(client: KeyholdClient): Promise<ReadonlySet<string>> {
  const { items } = await client.list({ prefix: null, search: null, tag: null, fresh: false });
  return new Set(items.map(({ name }) => name));
}
