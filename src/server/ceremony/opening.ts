import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { CeremonyId, UserId } from "../../ids.ts";
import { ceremonyState, checkDraft } from "../../protocol/ceremony/life.ts";
import type { CeremonyDraft, SignedCeremonyManifest } from "../../protocol/ceremony/model.ts";
import { ceremonyIdOf, ceremonyKeyHash, draftBytes, entryHash } from "../../protocol/ceremony/records.ts";
import type { Tx } from "../../storage/store.ts";
import { eachStored, putStored, readStored, type Stored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import { CEREMONY, DRAFT, ENTRY, HEAD, newestFirst, numbered, OPEN, REPLACING } from "./documents.ts";
import { index, replacedBy } from "./ending.ts";
import { type Desk, readHead } from "./scene.ts";
import type { KeyStoreService } from "./service.ts";
import { STORED_KEY, type StoredKeyBody } from "./storedkeys.ts";

/** A draft that names a key which the server does not offer (any more). */
const otherKey = () =>
  new Fault("stale", "the draft names another key than the server's newest one", {
    hint: "fetch the newest one, and have it signed again",
  });

/** The next version is what the key was: who may have codes of it would have nothing else. @throws Fault conflict */
function demandSameKind({ output }: CeremonyDraft, { value }: Stored<StoredKeyBody>): void {
  const { kind } = value.record.output;
  if (kind === output.kind) return;
  throw new Fault("conflict", `the key in the store is ${kind}: its next version cannot be ${output.kind}`);
}

/** A name means one key of an account; that of a key which was revoked or has moved is free. @throws Fault exists */
async function demandFreeName(tx: Tx, { name, output }: CeremonyDraft, userId: UserId): Promise<void> {
  // of a wallet nothing is stored
  if (output.kind === "multisig") return;
  const keys = await eachStored(tx, STORED_KEY, userId);
  if (!keys.some(({ value: { record, status } }) => record.name === name && status === "active")) return;
  throw new Fault("exists", `the account has a key named ${name} in the store already`);
}

/** Opens ceremonies (docs/protocol.md §10.2). */
export function createOpening(desk: Desk): Pick<KeyStoreService, "ceremony.open"> {
  const { site, keys, turns } = desk;
  const { ctx } = site;

  /** The newest key, or for a while the one before: exactly as the server states it. @throws Fault stale */
  async function demandKey(tx: Tx, { key }: CeremonyDraft): Promise<void> {
    const kept = await keys.find(tx, key.key.number);
    if (!kept || !equalBytes(ceremonyKeyHash(kept.statement.key), ceremonyKeyHash(key.key))) throw otherKey();
  }

  /** The run that this one repeats: the account's own, and it was aborted. @throws Fault not_found, conflict */
  async function demandPrevious(tx: Tx, { previous }: CeremonyDraft, userId: UserId): Promise<void> {
    if (!previous) return;
    const before = await readHead(tx, previous.ceremonyId);
    if (before?.ceremony.value.organiser !== userId)
      throw new Fault("not_found", "the run to repeat is not known here");
    if (before.head.value.status !== "aborted") throw new Fault("conflict", "only a run that was aborted is repeated");
    const last = await readStored(tx, ENTRY, numbered(previous.ceremonyId, before.head.value.seq));
    if (!last || !equalBytes(entryHash(previous.ceremonyId, last.value.entry.entry), previous.transcriptHash))
      throw new Fault("bad_input", "the draft names another end of the run that it repeats");
  }

  async function demandRoom(tx: Tx, userId: UserId): Promise<void> {
    const { openCeremonies, serverCeremonies } = ctx.limits;
    if ((await tx.documentCount(OPEN.kind, userId, openCeremonies)) >= openCeremonies)
      throw new Fault("rate_limited", "the account has too many open ceremonies", {
        hint: "end some of them: keyhold ceremony close --abort",
      });
    if ((await tx.documentCount(HEAD.kind, "", serverCeremonies)) >= serverCeremonies)
      throw new Fault("rate_limited", "the server has too many open ceremonies", { retryAfterMs: 60_000 });
  }

  /**
   * What this very draft became before. Everyone who takes part has it, with its organiser's signature: it is good for
   * the account that came with it first, and for one ceremony.
   *
   * @throws Fault conflict for another one with the same nonce, and for another account
   */
  async function openedBefore(
    tx: Tx,
    draft: CeremonyDraft,
    id: string,
    userId: UserId,
  ): Promise<SignedCeremonyManifest | undefined> {
    const known = await readStored(tx, DRAFT, id);
    if (!known) return undefined;
    const opened = await readStored(tx, CEREMONY, known.value.ceremonyId);
    if (!opened)
      throw new Fault("not_found", "the ceremony of this draft is over and forgotten", { hint: "open a new one" });
    const { manifest, organiser } = opened.value;
    if (organiser !== userId || !equalBytes(draftBytes(manifest.manifest.draft), draftBytes(draft)))
      throw new Fault("conflict", "another draft has this nonce");
    return manifest;
  }

  async function demandOpenable(tx: Tx, draft: CeremonyDraft, userId: UserId): Promise<void> {
    await demandKey(tx, draft);
    await demandPrevious(tx, draft, userId);
    const replaced = await replacedBy(tx, draft.replaces, userId);
    if (replaced) demandSameKind(draft, replaced);
    else await demandFreeName(tx, draft, userId);
    if (draft.replaces !== null && (await readStored(tx, REPLACING, draft.replaces)))
      throw new Fault("conflict", "another open ceremony replaces this key");
    await demandRoom(tx, userId);
  }

  return {
    async "ceremony.open"(caller, { draft, signature }) {
      const { userId } = caller.account;
      const draftId = draft.nonce.toHex();
      return turns.take(draftId, async () => {
        const before = await ctx.store.transaction((tx) => openedBefore(tx, draft, draftId, userId), userId);
        if (before) {
          caller.concerns(ceremonyIdOf(before.manifest));
          return { manifest: before };
        }
        checkDraft(draft);
        if (!(await keys.isOffered(draft.key.key.number))) throw otherKey();
        await ctx.store.transaction((tx) => demandOpenable(tx, draft, userId), userId);
        const { manifest, seed } = await site.enclave.call("ceremony.open", { draft, signature });
        const { openedAtMs } = manifest.manifest;
        const id: CeremonyId = ceremonyIdOf(manifest.manifest);
        const { status, untilMs } = ceremonyState({ manifest, entries: [] }, openedAtMs);
        const value = { manifest, seed, organiser: userId };
        const ceremony = { id, owner: userId, place: newestFirst(openedAtMs), value };
        const head = { seq: 0, status, untilMs, closing: null, failures: 0 };
        const kept = await ctx.store.transaction(async (tx) => {
          const other = await openedBefore(tx, draft, draftId, userId);
          if (other) return other;
          await demandOpenable(tx, draft, userId);
          const made =
            (await putStored(tx, CEREMONY, ceremony, 0)) &&
            (await putStored(tx, HEAD, { id, owner: "", place: untilMs ?? 0, value: head }, 0)) &&
            (await putStored(
              tx,
              DRAFT,
              { id: draftId, owner: userId, place: openedAtMs, value: { ceremonyId: id } },
              0,
            ));
          if (!made) throw changedMeanwhile();
          await index(site, tx, { id, ceremony: { ...ceremony, version: 1 } });
          return manifest;
        }, userId);
        caller.concerns(ceremonyIdOf(kept.manifest));
        return { manifest: kept };
      });
    },
  };
}
