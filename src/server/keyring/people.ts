import { equalBytes } from "../../crypto/bytes.ts";
import { verifySignature } from "../../crypto/identity.ts";
import { Fault } from "../../errors.ts";
import type { UserId } from "../../ids.ts";
import { keyringEnrolmentBytes } from "../../protocol/keyring/keyring.ts";
import type { Tx } from "../../storage/store.ts";
import type { InputOf } from "../../wire/operations.ts";
import { putStored, readStored } from "../documents.ts";
import { keyText, PERSON, PERSON_KEY, personId, type Role } from "./documents.ts";
import type { RegistryService, RegistrySite } from "./service.ts";

/** An account's key in a role, 32 bytes; undefined where it has none. @throws Fault corrupt */
export async function keyOf(tx: Tx, role: Role, userId: UserId): Promise<Uint8Array | undefined> {
  return (await readStored(tx, PERSON, personId(role, userId)))?.value.key;
}

/** The key with which an account owns workspaces, 32 bytes. @throws Fault denied when not enrolled */
export async function ownerKeyOf(tx: Tx, userId: UserId): Promise<Uint8Array> {
  const key = await keyOf(tx, "owner", userId);
  if (key) return key;
  throw new Fault("denied", "this account has no owner key at this registry", { hint: "keyhold workspace create" });
}

/** The key with which an account's connector responds, 32 bytes. @throws Fault denied when not enrolled */
export async function partyKeyOf(tx: Tx, userId: UserId): Promise<Uint8Array> {
  const key = await keyOf(tx, "party", userId);
  if (key) return key;
  throw new Fault("denied", "this account has no party key at this registry", { hint: "keyhold connector run" });
}

/** The account whose key this is in a role; undefined where there is none. @throws Fault corrupt */
export async function userOfKey(tx: Tx, role: Role, key: Uint8Array): Promise<UserId | undefined> {
  const found = await readStored(tx, PERSON_KEY, keyText(key));
  return found?.value.role === role ? found.value.userId : undefined;
}

/** True for an account that has a key here, in whichever role. @throws Fault corrupt */
export async function isEnrolled(tx: Tx, userId: UserId): Promise<boolean> {
  return (await keyOf(tx, "owner", userId)) !== undefined || (await keyOf(tx, "party", userId)) !== undefined;
}

async function enrol(
  site: RegistrySite,
  tx: Tx,
  userId: UserId,
  { role, key }: Pick<InputOf<"keyring.enrol">, "role" | "key">,
): Promise<void> {
  if (!(await tx.account(userId))) throw new Fault("session_invalid", "the account has just ended");
  const before = await keyOf(tx, role, userId);
  if (before) {
    if (equalBytes(before, key)) return;
    throw new Fault("conflict", `this account is enrolled with another ${role} key`);
  }
  const nowMs = site.ctx.now();
  const at = { owner: userId, place: nowMs };
  const done =
    (await putStored(tx, PERSON_KEY, { ...at, id: keyText(key), value: { userId, role } }, 0)) &&
    (await putStored(tx, PERSON, { ...at, id: personId(role, userId), value: { key, enrolledAtMs: nowMs } }, 0));
  if (!done) throw new Fault("conflict", "that key is enrolled already: one key is one account's, in one role");
}

/** Enrolment of accounts' keys (docs/protocol.md §9.1). */
export function createPeople(site: RegistrySite): Pick<RegistryService, "keyring.enrol"> {
  return {
    async "keyring.enrol"({ account: { userId } }, { role, key, proof }) {
      const bytes = keyringEnrolmentBytes({ registry: site.identity.publicKey, userId, role, key });
      if (!verifySignature(key, bytes, proof))
        throw new Fault("integrity", "the enrolled key has not signed for this account at this registry");
      await site.ctx.store.transaction((tx) => enrol(site, tx, userId, { role, key }), userId);
      return {};
    },
  };
}
