import { equalBytes } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { type AnyHashId, isHashId, type KeyId, type StoredKeyId } from "../ids.ts";
import type { SaltedEntry } from "../protocol/audit.ts";
import { handedToHash } from "../protocol/otphandout.ts";
import type { OutputOf } from "../wire/operations.ts";
import type { OtpRequester } from "./ceremonyapi.ts";
import { everyPage } from "./keyring/ground.ts";
import type { Model } from "./model.ts";
import type { Session } from "./session.ts";

/* What the log names by the first half of an id: one-time passwords and ceremonies (docs/protocol.md §10.8). */

/** A key of the store, or a ceremony: its whole id and its name. */
export interface LoggedName {
  readonly id: string;
  readonly name: string;
}

type Entry = OutputOf<"otp.entries">["items"][number];
type Handout = OutputOf<"otp.handouts">["items"][number];

/** How the log names a key of the store or a ceremony: by the first 128 bits of its id. */
const loggedId = (id: AnyHashId | string): KeyId => id.slice(0, 32) as KeyId;

/** Faults of a server that keeps no keys, or does not tell this account. */
const UNTOLD: ReadonlySet<string> = new Set(["unsupported", "not_found", "denied", "rate_limited"]);

async function orNothing<T>(work: () => Promise<readonly T[]>): Promise<readonly T[]> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Fault && UNTOLD.has(error.code)) return [];
    throw error;
  }
}

/** What the vault itself knows: ceremonies in which it has a part, and the keys that came of them. */
function heldNames({ held }: Model): readonly LoggedName[] {
  return held.ceremonies.flatMap(({ ceremonyId, manifest, seen }) => {
    const { name } = manifest.manifest.draft;
    const keyId = seen.result?.stored?.keyId;
    return [{ id: ceremonyId, name }, ...(keyId === undefined ? [] : [{ id: keyId, name }])];
  });
}

/** Names of keys and ceremonies, of the vault and of its server; asked for once. */
export function auditNames(model: Model, { call }: Pick<Session, "call">) {
  let entries: Promise<readonly Entry[]> | null = null;
  let rows: Promise<readonly LoggedName[]> | null = null;

  const keys = (): Promise<readonly Entry[]> => {
    entries ??= orNothing(() =>
      everyPage(
        { url: "" },
        async (last: Entry | null) => (await call("otp.entries", { after: last?.record.keyId ?? null })).output,
      ),
    );
    return entries;
  };
  const ceremonies = (): Promise<readonly LoggedName[]> => {
    rows ??= orNothing(async () => {
      type Row = OutputOf<"ceremony.list">["items"][number];
      const all = await everyPage(
        { url: "" },
        async (last: Row | null) => (await call("ceremony.list", { after: last?.ceremonyId ?? null })).output,
      );
      return all.map(({ ceremonyId, name }) => ({ id: ceremonyId, name }));
    });
    return rows;
  };

  /** All that is known. */
  async function all(): Promise<readonly LoggedName[]> {
    const own = (await keys()).map(({ record }) => ({ id: record.keyId, name: record.name }));
    const byId = new Map([...heldNames(model), ...own, ...(await ceremonies())].map((one) => [one.id, one]));
    return [...byId.values()];
  }

  /** Names of what entries are about, by the id that they have; the server is asked for what the vault does not know. */
  async function of(found: readonly SaltedEntry[]): Promise<ReadonlyMap<KeyId, string>> {
    const names = new Map(heldNames(model).map(({ id, name }) => [loggedId(id), name]));
    const unknown = found.flatMap(({ entry: { action, keyId } }) =>
      keyId === null || names.has(keyId) || model.secrets.has(keyId) ? [] : [action],
    );
    if (unknown.some((action) => action.startsWith("otp.")))
      for (const { record } of await keys()) names.set(loggedId(record.keyId), record.name);
    if (unknown.some((action) => action.startsWith("ceremony.")))
      for (const { id, name } of await ceremonies()) names.set(loggedId(id), name);
    return names;
  }

  /** Hand-outs of a key back to a time, newest first; those that are forgotten are not among them. */
  async function handouts(keyId: StoredKeyId, sinceMs: number): Promise<readonly Handout[]> {
    return orNothing(() =>
      everyPage({ url: "" }, async (last: Handout | null) => {
        if (last !== null && last.atMs < sinceMs) return { items: [], more: false };
        return (await call("otp.handouts", { keyId, after: last?.askId ?? null })).output;
      }),
    );
  }

  /** To whom the hand-outs went that the issuer's log tells of, by their sequence. */
  async function handedTo(found: readonly SaltedEntry[]): Promise<ReadonlyMap<number, OtpRequester>> {
    const told = found.map(({ entry }) => entry).filter(isHandout);
    const to = new Map<number, OtpRequester>();
    if (told.length === 0) return to;
    for (const { record, own, grants } of await keys()) {
      const open = told.filter(({ keyId }) => own && keyId === loggedId(record.keyId));
      const match = (known: readonly OtpRequester[]) => {
        const hashed = known.map((one) => ({ one, hash: handedToHash(record.keyId, one.kind, one.name) }));
        for (const { seq, bodyHash } of open) {
          const fits = hashed.find(({ hash }) => equalBytes(hash, bodyHash));
          if (fits) to.set(seq, fits.one);
        }
      };
      match(grants.map((grant) => requesterShown(grant.to)));
      const left = open.filter(({ seq }) => !to.has(seq));
      if (left.length === 0) continue;
      const since = Math.min(...left.map(({ atMs }) => atMs)) - HANDED_WITHIN_MS;
      match((await handouts(record.keyId, since)).map((one) => requesterShown(one.to)));
    }
    return to;
  }

  return { all, of, handedTo };
}

/** A hand-out is entered within this time after it was begun. */
const HANDED_WITHIN_MS = 3_600_000;

/** True for a hand-out to somebody else, as its issuer's log has it: of nobody's session. */
const isHandout = ({ action, session, bodyHash }: SaltedEntry["entry"]): boolean =>
  (action === "otp.request" || action === "otp.request.device") &&
  session === null &&
  bodyHash.some((byte) => byte > 0);

const requesterShown = (to: Handout["to"]): OtpRequester =>
  to.kind === "account" ? { kind: to.kind, name: to.account } : { kind: to.kind, name: to.key.toHex() };

/**
 * The ids under which the log has what a name, an id or the beginning of one means: all that have the name, or the one
 * whose id begins so; none where nothing is known of it.
 *
 * @param secret Of the vault that was found by the same text, with its name.
 * @throws Fault ambiguous
 */
export function loggedIds(
  known: readonly LoggedName[],
  wanted: string,
  secret: { readonly keyId: KeyId; readonly name: string | null } | null,
): readonly KeyId[] {
  if (isHashId(wanted)) return [loggedId(wanted)];
  const name = wanted.normalize("NFC");
  const called = known.filter((one) => one.name === name).map(({ id }) => loggedId(id));
  const byName = secret?.name === name;
  if (called.length > 0 || byName) return [...new Set([...(secret && byName ? [secret.keyId] : []), ...called])];
  const begins = (id: string) => /^[0-9a-f]{4,63}$/i.test(wanted) && id.startsWith(wanted.toLowerCase());
  const ids = [...new Set(known.filter(({ id }) => begins(id)).map(({ id }) => loggedId(id)))];
  const found = [...(secret ? [secret.keyId] : []), ...ids];
  if (found.length < 2) return found;
  throw new Fault("ambiguous", `more than one id begins with ${wanted}`, {
    why: found.join(", "),
    hint: "give more of the id",
  });
}
