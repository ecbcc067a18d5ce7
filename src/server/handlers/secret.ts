import { equalBytes, ZERO_HASH_BYTES } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import { type KeyId, newId } from "../../ids.ts";
import { type LeafRecord, leafHash, leafMetaFits } from "../../protocol/leaf.ts";
import { sealedHash } from "../../protocol/secret.ts";
import type { Tx } from "../../storage/store.ts";
import type { CommitName, InputOf, OutputOf } from "../../wire/operations.ts";
import type { Caller, HandlerResult, ServerContext, SessionHandler } from "../context.ts";
import { advanceState } from "../state.ts";

/** The same answer for an id that never was, is another's, or is gone (P8). */
const notFound = () => new Fault("not_found", "no such secret");

/** Reserves ids, each with the server's 32 random bytes; the same ones again for the same request id. */
export const reserveSecrets: SessionHandler<"secret.reserve"> = async (ctx, tx, caller, input) => {
  const { userId } = caller.account;
  const before = await tx.reservationsOf(userId, caller.requestId);
  if (before.length > 0) return { output: { items: before.map(({ keyId, random }) => ({ keyId, random })) } };
  const items = Array.from({ length: input.count }, () => ({
    keyId: newId<KeyId>(ctx.random),
    random: ctx.random(32),
  }));
  // the order in which the store gives them back
  items.sort((a, b) => (a.keyId < b.keyId ? -1 : 1));
  for (const item of items) {
    await tx.putReservation({ userId, requestId: caller.requestId, createdAtMs: ctx.now(), ...item });
  }
  return { output: { items } };
};

type Change = InputOf<CommitName>["changes"][number];

/** What each commit may do to a leaf: new secrets, new versions, new metadata, another status. */
const ALLOWED: Record<CommitName, { create: boolean; version: boolean; status: readonly LeafRecord["status"][] }> = {
  "secret.generate": { create: true, version: true, status: ["live"] },
  "secret.store": { create: true, version: true, status: ["live"] },
  "secret.import": { create: true, version: true, status: ["live"] },
  "secret.update": { create: false, version: false, status: ["live"] },
  "secret.restore": { create: false, version: true, status: ["live"] },
  "secret.remove": { create: false, version: false, status: ["removed"] },
  "secret.purge": { create: false, version: false, status: ["purged"] },
};

const misfit = (why: string) => new Fault("bad_input", "a change does not continue its secret", { why });

async function checkChange(tx: Tx, caller: Caller, name: CommitName, change: Change): Promise<void> {
  const { leaf, sealed } = change;
  const { userId } = caller.account;
  const rules = ALLOWED[name];
  const current = await tx.leaf(userId, leaf.keyId);
  if (!rules.status.includes(leaf.status)) throw misfit("its status is not this operation's");
  if (!leafMetaFits(leaf)) throw misfit("its metadata has another hash");
  if (sealed !== null && !equalBytes(sealedHash(sealed), leaf.sealedHash)) throw misfit("its value has another hash");
  if (!current) {
    const reserved = await tx.reservation(userId, leaf.keyId);
    if (!rules.create) throw notFound();
    if (!reserved && name !== "secret.import") throw notFound();
    const first = leaf.serial === 1 && leaf.version === 1 && equalBytes(leaf.previous, ZERO_HASH_BYTES);
    if (!first || sealed === null) throw misfit("it is no first version");
    return;
  }
  if (current.status === "purged") throw notFound();
  if (leaf.serial !== current.serial + 1 || !equalBytes(leaf.previous, leafHash(current))) {
    throw new Fault("stale", "the secret was changed meanwhile");
  }
  const raised = leaf.version === current.version + 1;
  if (raised ? !rules.version : leaf.version !== current.version) throw misfit("its version is out of order");
  if (raised !== (sealed !== null)) throw misfit("a new version needs its value, and nothing else does");
  if (!raised && !equalBytes(leaf.sealedHash, current.sealedHash)) throw misfit("it names another value");
}

/** Commits changes of secrets under the account's newly signed state, all or none (docs/protocol.md §5.6). */
export function commitSecrets<N extends CommitName>(name: N): SessionHandler<N> {
  const run = async (
    ctx: ServerContext,
    tx: Tx,
    caller: Caller,
    input: InputOf<CommitName>,
  ): Promise<HandlerResult<OutputOf<CommitName>>> => {
    const keyIds = input.changes.map(({ leaf }) => leaf.keyId);
    if (new Set(keyIds).size !== keyIds.length) throw misfit("a secret stands twice in one request");
    const advanced = await advanceState(ctx, tx, caller, input.state, null);
    for (const change of input.changes) {
      await checkChange(tx, caller, name, change);
      const { userId } = caller.account;
      if (change.leaf.status === "purged") await tx.eraseSecret(userId, change.leaf.keyId);
      await tx.appendLeaf(userId, advanced.revision, change.leaf, change.sealed);
    }
    return { output: advanced, keyIds, stateHash: advanced.stateHash };
  };
  return run as unknown as SessionHandler<N>;
}

/** One reply carries at most this many bytes of values. */
const REPLY_BYTES = 1_048_576;

/** Sealed values by id and version, removed ones for `restore` too: as many as fit a reply; a missing one fails all. */
export const getSecrets: SessionHandler<"secret.get" | "secret.export"> = async (_ctx, tx, caller, input) => {
  const items: { keyId: KeyId; version: number; sealed: Uint8Array }[] = [];
  let size = 0;
  for (const { keyId, version } of input.keys) {
    const leaf = await tx.leaf(caller.account.userId, keyId);
    const sealed = await tx.sealedValue(caller.account.userId, keyId, version);
    if (!leaf || !sealed) throw notFound();
    size += sealed.length;
    if (items.length > 0 && size > REPLY_BYTES) break;
    items.push({ keyId, version, sealed });
  }
  return { output: { items }, keyIds: items.map(({ keyId }) => keyId) };
};

const PAGE = 256;

/** All leaves of one secret in order, with their metadata. */
export const secretHistory: SessionHandler<"secret.history"> = async (_ctx, tx, caller, input) => {
  const rows = await tx.history(caller.account.userId, input.keyId, input.afterSerial, PAGE + 1);
  if (rows.length === 0 && input.afterSerial === 0) throw notFound();
  return { output: { leaves: rows.slice(0, PAGE), more: rows.length > PAGE }, keyIds: [input.keyId] };
};
