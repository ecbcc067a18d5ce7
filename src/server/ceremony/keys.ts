import { Fault } from "../../errors.ts";
import type { SignedCeremonyKey } from "../../protocol/ceremony/model.ts";
import { ceremonyKeyBytes, ceremonyKeyHash } from "../../protocol/ceremony/records.ts";
import { digestWords } from "../../protocol/federation/words.ts";
import type { Tx } from "../../storage/store.ts";
import type { ControlOutput } from "../../wire/control.ts";
import { eachStored, listStored, putStored, readStored, removeStored, type Stored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import { createTurns } from "../federation/turns.ts";
import { CEREMONY_KEY, type CeremonyKeyBody, KEY_USE, keyOwner, newestFirst } from "./documents.ts";
import type { KeyStoreSite } from "./service.ts";

/** A key pair for ceremonies with its private halves, as the enclave takes it. */
export interface KeyInUse {
  readonly statement: SignedCeremonyKey;
  readonly sealed: Uint8Array;
}

/** The server's key pairs for ceremonies (docs/protocol.md §10.1). */
export interface CeremonyKeys {
  /** The newest one; the first call of a server's life makes it. @throws what the enclave throws */
  newest(): Promise<KeyInUse>;
  /** What a rotation has left behind is found as long as it is kept. */
  find(tx: Tx, number: number): Promise<KeyInUse | undefined>;
  /** All that are kept: the newest first. Makes the first one. */
  all(): Promise<readonly SignedCeremonyKey[]>;
  /** Makes the next one; says how many before it are still kept. @throws Fault conflict when too many are */
  rotate(): Promise<{ readonly newest: SignedCeremonyKey; readonly kept: number }>;
  /** Whether something new may be sealed to the key of this number: the newest, or the one before for a while. */
  isOffered(number: number): Promise<boolean>;
  /** Deletes keys whose overlap is over and that no open ceremony needs. */
  sweep(): Promise<void>;
}

/** Keys that are kept at once: as many as one answer lists. */
export const KEYS_MAX = 8;

/** The newest key pair, as its operator compares it with what participants see; null before there is one. */
export async function newestFingerprint(tx: Tx): Promise<ControlOutput<"status">["ceremonyKey"]> {
  const [newest] = await listStored(tx, CEREMONY_KEY, "", null, 1);
  if (!newest) return null;
  const { key } = newest.value.statement;
  const fingerprint = ceremonyKeyHash(key);
  return { number: key.number, fingerprint, words: digestWords(fingerprint).join(" ") };
}

/** Makes the keeping of key pairs over one site. */
export function createCeremonyKeys(site: KeyStoreSite): CeremonyKeys {
  const { ctx, identity, enclave } = site;
  const { store } = ctx;
  const turns = createTurns();

  const head = async (tx: Tx) => (await listStored(tx, CEREMONY_KEY, "", null, 1))[0];

  /** Makes number n+1 beside n; another process may have been faster. */
  async function makeNext(before: Stored<CeremonyKeyBody> | undefined): Promise<Stored<CeremonyKeyBody>> {
    const number = (before?.value.statement.key.number ?? 0) + 1;
    const made = await enclave.call("ceremony.key", { server: identity.publicKey, number });
    const { key, enclaveSignature, sealed } = made;
    const statement = { key, signature: identity.sign(ceremonyKeyBytes(key)), enclaveSignature };
    return store.transaction(async (tx) => {
      const now = await head(tx);
      if ((now?.id ?? null) !== (before?.id ?? null)) throw changedMeanwhile();
      if (before && now) {
        const old = { ...now, value: { ...now.value, replacedAtMs: ctx.now() } };
        if (!(await putStored(tx, CEREMONY_KEY, old, now.version))) throw changedMeanwhile();
      }
      const value = { statement, sealed, replacedAtMs: null };
      const row = { id: String(number), owner: "", place: newestFirst(number), value };
      if (!(await putStored(tx, CEREMONY_KEY, row, 0))) throw changedMeanwhile();
      return { ...row, version: 1 };
    });
  }

  const newest = async (): Promise<Stored<CeremonyKeyBody>> =>
    (await store.transaction(head)) ??
    turns.take("", async () => (await store.transaction(head)) ?? makeNext(undefined));

  const isOver = ({ value }: Stored<CeremonyKeyBody>): boolean =>
    value.replacedAtMs !== null && ctx.now() - value.replacedAtMs >= ctx.limits.ceremonyKeyOverlapMs;

  async function drop(): Promise<number> {
    return store.transaction(async (tx) => {
      const kept = await eachStored(tx, CEREMONY_KEY, "");
      let left = kept.length;
      for (const row of kept) {
        if (!isOver(row)) continue;
        if ((await tx.documentCount(KEY_USE.kind, keyOwner(row.value.statement.key.number), 1)) > 0) continue;
        if (await removeStored(tx, CEREMONY_KEY, row.id)) left -= 1;
      }
      return left;
    });
  }

  return {
    newest: async () => (await newest()).value,
    find: async (tx, number) => (await readStored(tx, CEREMONY_KEY, String(number)))?.value,
    async all() {
      await newest();
      const kept = await store.transaction((tx) => listStored(tx, CEREMONY_KEY, "", null, KEYS_MAX));
      return kept.map(({ value }) => value.statement);
    },
    rotate: () =>
      turns.take("", async () => {
        const kept = await drop();
        if (kept >= KEYS_MAX)
          throw new Fault("conflict", `open ceremonies need ${kept} keys: there is no room for another one`, {
            hint: "wait until the oldest of them have ended",
          });
        const made = await makeNext(await store.transaction(head));
        return { newest: made.value.statement, kept };
      }),
    async isOffered(number) {
      const row = await store.transaction((tx) => readStored(tx, CEREMONY_KEY, String(number)));
      return row !== undefined && !isOver(row);
    },
    async sweep() {
      await drop();
    },
  };
}
