import { type AadContext, open, seal } from "../crypto/aead.ts";
import { macCanon } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import type { SessionId, UserId } from "../ids.ts";
import { pad, unpad } from "../protocol/secret.ts";
import type { AccountRow, Tx } from "../storage/store.ts";
import type { ServerContext } from "./context.ts";

/** The id under which OPAQUE knows a name, for real and unknown names alike: 32 bytes. */
export function credentialIdOf(ctx: ServerContext, account: string): Uint8Array {
  return macCanon(ctx.keys.accountName, "keyhold/v1/credential-id", account);
}

/** What login needs to know of a name; an unknown one yields the same shape under its pseudo-account's id. */
export interface Candidate {
  readonly userId: UserId;
  readonly recordVersion: number;
  /** OPAQUE set-up of the record; "" for an unknown name. */
  readonly setupId: string;
  /** null: unknown or disabled, so that OPAQUE gives its fake answer. */
  readonly record: Uint8Array | null;
  readonly known: boolean;
}

/** Looks a name up without telling known from unknown by shape or work. */
export async function candidate(ctx: ServerContext, tx: Tx, credentialId: Uint8Array): Promise<Candidate> {
  const row = await tx.credential(credentialId);
  const pseudo = macCanon(ctx.keys.shadow, "keyhold/v1/shadow-account", credentialId).subarray(0, 16);
  return {
    userId: row?.userId ?? (pseudo.toHex() as UserId),
    recordVersion: row?.recordVersion ?? 0,
    setupId: row?.setupId ?? "",
    record: row && !row.disabled ? row.record : null,
    known: row !== undefined,
  };
}

/** Seals an account name, padded, for the operator's eyes only. */
export function sealAccountName(ctx: ServerContext, credentialId: Uint8Array, name: string): Uint8Array {
  const padded = pad(new TextEncoder().encode(name));
  return seal(ctx.keys.sealing, { kind: "account-name", credentialId }, padded, ctx.random);
}

/** Opens what lies under the sealing key, or while a rotation lasts under the one before. @throws Fault integrity */
export function openRow({ keys }: Pick<ServerContext, "keys">, context: AadContext, sealed: Uint8Array): Uint8Array {
  try {
    return open(keys.sealing, context, sealed);
  } catch (error) {
    if (keys.previousSealing === null || !(error instanceof Fault)) throw error;
    return open(keys.previousSealing, context, sealed);
  }
}

const nameContext = ({ credentialId }: Pick<AccountRow, "credentialId">) =>
  ({ kind: "account-name", credentialId }) as const;

/** Opens a sealed account name. @throws Fault integrity */
export function openAccountName(ctx: ServerContext, account: AccountRow): string {
  return new TextDecoder().decode(unpad(openRow(ctx, nameContext(account), account.sealedName)));
}

/** The name sealed anew, if it is not under the sealing key of now. @throws Fault integrity */
export function renewAccountName(ctx: ServerContext, account: AccountRow): Uint8Array | undefined {
  const current = { keys: { ...ctx.keys, previousSealing: null } };
  try {
    openRow(current, nameContext(account), account.sealedName);
    return undefined;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    return sealAccountName(ctx, account.credentialId, openAccountName(ctx, account));
  }
}

/** Seals a session key so that its row cannot serve another account. */
export function sealSessionKey(ctx: ServerContext, sessionId: SessionId, userId: UserId, key: Uint8Array): Uint8Array {
  return seal(ctx.keys.sealing, { kind: "session", sessionId, userId }, key, ctx.random);
}

/** Opens a session's key. @throws Fault integrity for a row that was moved. */
export function openSessionKey(
  ctx: ServerContext,
  row: { sessionId: SessionId; userId: UserId; sealedKey: Uint8Array },
): Uint8Array {
  return openRow(ctx, { kind: "session", sessionId: row.sessionId, userId: row.userId }, row.sealedKey);
}
