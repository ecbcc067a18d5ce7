import { Fault } from "../errors.ts";
import type { PlainItem } from "../formats/item.ts";
import type { Imported, KeyholdClient } from "./api.ts";
import { secretName } from "./names.ts";

type ImportInput = Parameters<KeyholdClient["importItems"]>[0];

/** Room for items in one message to the agent, in bytes; what is beside them needs less than the rest. */
const BATCH_BYTES = 7 * 1_024 * 1_024;
/** Names and marks of JSON around one item. */
const ITEM_BYTES = 256;

/** Bytes of an item in a message, or a little more. */
function messageBytes(item: PlainItem): number {
  const { value, ...rest } = item;
  return ITEM_BYTES + Math.ceil((value.length * 4) / 3) + Buffer.byteLength(JSON.stringify(rest));
}

/** As many items together as one message holds, in order. */
function batchesOf(items: readonly PlainItem[]): PlainItem[][] {
  const batches: PlainItem[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const item of items) {
    const size = messageBytes(item);
    bytes += size;
    if (bytes > BATCH_BYTES) {
      batches.push([]);
      bytes = size;
    }
    batches.at(-1)?.push(item);
  }
  return batches;
}

/**
 * Imports more than one message to the agent holds. All of it is checked before the first item is stored; what fails
 * later, for want of the server or of space, leaves the earlier messages' items stored, and the same import again goes
 * on where it stopped.
 *
 * @param one Imports the items of one message.
 */
export async function importInBatches(
  input: ImportInput,
  one: (input: ImportInput) => Promise<Imported>,
): Promise<Imported> {
  const batches = batchesOf(input.items);
  if (batches.length <= 1) return one(input);
  const names = new Set(input.items.map(({ name }) => secretName(`${input.prefix}${name}`)));
  if (names.size !== input.items.length) throw new Fault("bad_input", "two items to import have the same name");
  const dry = await inTurn(batches, (items) => one({ ...input, items, dryRun: true }));
  return input.dryRun ? dry : inTurn(batches, (items) => one({ ...input, items }));
}

async function inTurn(
  batches: readonly PlainItem[][],
  one: (items: PlainItem[]) => Promise<Imported>,
): Promise<Imported> {
  const all: Imported[] = [];
  for (const items of batches) all.push(await one(items));
  return {
    imported: all.reduce((sum, { imported }) => sum + imported, 0),
    skipped: all.reduce((sum, { skipped }) => sum + skipped, 0),
    queued: all.some(({ queued }) => queued),
    items: all.flatMap(({ items }) => items),
    requestId: all.findLast(({ requestId }) => requestId !== null)?.requestId ?? null,
  };
}
