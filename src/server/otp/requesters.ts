import { open, seal } from "../../crypto/aead.ts";
import { deriveKey } from "../../crypto/kdf.ts";
import type { StoredKeyId, UserId } from "../../ids.ts";
import { pad, unpad } from "../../protocol/secret.ts";
import type { AccountRow } from "../../storage/store.ts";
import { credentialIdOf } from "../accounts.ts";
import type { ServerContext } from "../context.ts";
import type { StoredRequester } from "./documents.ts";

/** A requester as operations name it. */
export type Requester =
  | { readonly kind: "account"; readonly account: string }
  | { readonly kind: "device"; readonly key: Uint8Array };

/** Who asks now. */
export interface Asker {
  readonly name: string;
  /** What an ask's id is bound to: account id, or device key in hexadecimal. */
  readonly bound: string;
  /** The account; null for a device. */
  readonly userId: UserId | null;
}

const NO_SALT = new Uint8Array(0);

/** Under a key beside the one of credential ids, which never rotates: grants outlive the sealing key. */
const nameKey = (ctx: ServerContext) => deriveKey(ctx.keys.accountName, 32, NO_SALT, "keyhold/v1/otp-requester-name");

/** How documents name a requester: a letter and 64 hexadecimal digits, told from others by nothing else. */
export function requesterName(to: StoredRequester): string {
  return to.kind === "account" ? `a:${to.credentialId.toHex()}` : `d:${to.key.toHex()}`;
}

export function accountAsker(account: Pick<AccountRow, "credentialId" | "userId">): Asker {
  return { name: `a:${account.credentialId.toHex()}`, bound: account.userId, userId: account.userId };
}

export function deviceAsker(key: Uint8Array): Asker {
  return { name: `d:${key.toHex()}`, bound: key.toHex(), userId: null };
}

/** Id of a grant: one of a key for each requester. */
export const grantDocument = (keyId: StoredKeyId, name: string): string => `${keyId}:${name}`;

/** A requester as it is stored: no account's name in clear. */
export function storedRequester(ctx: ServerContext, to: Requester): StoredRequester {
  if (to.kind === "device") return to;
  const credentialId = credentialIdOf(ctx, to.account);
  const padded = pad(new TextEncoder().encode(to.account));
  return {
    kind: "account",
    credentialId,
    name: seal(nameKey(ctx), { kind: "account-name", credentialId }, padded, ctx.random),
  };
}

/** A requester as it is shown. @throws Fault integrity */
export function shownRequester(ctx: ServerContext, to: StoredRequester): Requester {
  if (to.kind === "device") return to;
  const { credentialId, name } = to;
  const padded = open(nameKey(ctx), { kind: "account-name", credentialId }, name);
  return { kind: "account", account: new TextDecoder().decode(unpad(padded)) };
}
