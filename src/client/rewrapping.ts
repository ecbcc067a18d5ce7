import type { RandomSource } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { rewrap } from "../protocol/secret.ts";
import type { InputOf, OutputOf } from "../wire/operations.ts";
import { indexKeys, type Model, recordKeys } from "./model.ts";
import { type Open, save } from "./opened.ts";
import { rewrapKept } from "./renew.ts";
import { isSealed, type Session } from "./session.ts";

type Wraps = OutputOf<"account.wraps">["items"];
type Place = NonNullable<InputOf<"account.wraps">["after"]>;

/** True when a place comes after another in the order of the pages. */
function follows(a: Place, b: Place): boolean {
  if (a.keyId !== b.keyId) return a.keyId > b.keyId;
  if (a.kind !== b.kind) return a.kind > b.kind;
  return a.number > b.number;
}

function checkPage(items: Wraps, after: Place | null, more: boolean): void {
  const inOrder = items.every((item, i) => {
    const before = items[i - 1] ?? after;
    return before === null || follows(item, before);
  });
  if (!inOrder || (more && items.length === 0)) {
    throw new Fault("integrity", "the server's list of wrapped keys is out of order");
  }
}

/** What became of the wrapped keys on the server. */
export interface Rewrapped {
  readonly rewrapped: number;
  /** Those that no key of the account opens. */
  readonly damaged: number;
}

const RACES = 5;

/**
 * Wraps every key on the server under the account key of now, page by page; what is so already stays (docs/protocol.md
 * §5.7). May be stopped and begun again at any time.
 *
 * @throws Fault integrity for pages out of order or without end
 */
export async function rewrapServer(
  model: Model,
  session: Session,
  random: RandomSource,
  advance: (count: number) => void = () => undefined,
): Promise<Rewrapped> {
  const { owner: userId } = model;
  const [index, record] = [indexKeys(model), recordKeys(model)];
  const anew = ({ keyId, kind, number, wrapped }: Wraps[number]): Uint8Array | null =>
    kind === "meta"
      ? rewrap(index, { kind: "meta-key", userId, keyId, serial: number }, wrapped, random)
      : rewrap(record, { kind: "data-key", userId, keyId, version: number }, wrapped, random);
  let [rewrapped, damaged, races, pages] = [0, 0, 0, 0];
  let after: Place | null = null;
  for (;;) {
    const answer: { output: OutputOf<"account.wraps">; head: { revision: number } } = await session.call(
      "account.wraps",
      { after },
    );
    const { items, more } = answer.output;
    checkPage(items, after, more);
    // each revision wraps two keys for each of a bounded number of secrets
    if (++pages > answer.head.revision * 100) throw new Fault("integrity", "the server lists wrapped keys without end");
    const wanted: { -readonly [K in keyof Wraps[number]]: Wraps[number][K] }[] = [];
    let strange = 0;
    for (const item of items) {
      try {
        const wrapped = anew(item);
        if (wrapped !== null) wanted.push({ ...item, wrapped });
      } catch (error) {
        if (!(error instanceof Fault) || error.code !== "integrity") throw error;
        strange += 1;
      }
    }
    try {
      if (wanted.length > 0) await session.call("account.rewrap", { items: wanted });
    } catch (error) {
      // purged meanwhile: the page again, without it
      const gone = isSealed(error) && error instanceof Fault && error.code === "not_found";
      if (!gone || ++races > RACES) throw error;
      continue;
    }
    rewrapped += wanted.length;
    damaged += strange;
    advance(items.length);
    const last = items.at(-1);
    if (!more || !last) return { rewrapped, damaged };
    after = { keyId: last.keyId, kind: last.kind, number: last.number };
  }
}

/**
 * Goes on with the wrapped keys on the server where a rotation left them, until all are those of the account key of now
 * and the vault notes it.
 *
 * @returns how many were wrapped anew.
 */
export async function finishRewrapping(open: Open): Promise<number> {
  const { session, around, box } = open;
  const revision = box.model.bound?.rewrapping ?? null;
  if (session === null || revision === null) return 0;
  const { rewrapped, damaged } = await rewrapServer(box.model, session, around.random);
  if (damaged > 0) {
    around.notice(`${damaged} wrapped keys on the server open with no key of this account: what they lead to is lost`);
    return rewrapped;
  }
  await save(open, (model) => {
    if (model.bound?.rewrapping !== revision) return;
    model.bound.rewrapping = null;
    rewrapKept(model, around.random);
    // the generation before still holds wraps of the key before
    model.erased = true;
  });
  return rewrapped;
}

/** Like {@link finishRewrapping}, beside other work: what stands in the way is said, and is no failure of that work. */
export async function resumeRewrapping(open: Open): Promise<void> {
  try {
    await finishRewrapping(open);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    open.around.notice(`not all keys on the server are wrapped anew yet: ${error.message}; the next command goes on`);
  }
}
