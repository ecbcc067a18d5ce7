import { SEAL_OVERHEAD, SUITE_XAES } from "../crypto/aead.ts";
import { concat, equalBytes } from "../crypto/bytes.ts";
import { type Argon2Cost, hashCanon } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import { KDF } from "./defaults.ts";

/** Byte layout of a vault file (docs/vault-format.md §2): reading and writing what stands in clear. */

const VAULT_VERSION = 1;

/** Largest vault file in bytes; larger ones are refused before they are read. */
export const VAULT_MAX_BYTES = 512 * 1_024 * 1_024;

/** Size of every key, salt and commitment in bytes. */
export const VAULT_KEY_BYTES = 32;

const SLOT_BYTES = VAULT_KEY_BYTES + SEAL_OVERHEAD;
const MAGIC = new TextEncoder().encode("keyhold-vault");

/** Offsets of the header's fields (docs/vault-format.md §2). */
export const VAULT_AT = {
  version: 13,
  suite: 14,
  vaultId: 15,
  keyCommitment: 31,
  cost: 63,
  salt: 75,
  passwordCommitment: 107,
  passwordSlot: 139,
  generation: 212,
  slotFlags: 220,
  slots: 221,
} as const;

/** Bits of the byte that says which further slots follow it, in this order. */
const ACCOUNT_SLOT = 1;
const KIT_SLOT = 2;

/** Bytes from which the header can be read, whatever slots it has; a file is longer. */
export const VAULT_START_BYTES = VAULT_AT.slots + 2 * SLOT_BYTES + 4 + VAULT_KEY_BYTES;

/** The password's key slot and what it takes to open it. */
export interface PasswordSlot {
  readonly cost: Argon2Cost;
  readonly salt: Uint8Array;
  readonly commitment: Uint8Array;
  readonly sealed: Uint8Array;
}

/** What stands in clear in a vault file. */
export interface VaultHeader {
  readonly vaultId: Uint8Array;
  readonly generation: number;
  readonly cost: Argon2Cost;
  readonly hasAccountSlot: boolean;
  readonly hasKitSlot: boolean;
}

/** The sealed slots beside the password's, 73 bytes each, or null. */
export interface FurtherSlots {
  readonly account: Uint8Array | null;
  readonly kit: Uint8Array | null;
}

/** A vault file taken apart: nothing in it is authenticated yet. */
export interface ParsedVault extends VaultHeader, FurtherSlots {
  readonly keyCommitment: Uint8Array;
  readonly password: PasswordSlot;
  /** All bytes before the check: the body's associated data. */
  readonly header: Uint8Array;
  readonly sealedBody: Uint8Array;
}

/**
 * Refuses KDF costs below the floor or above the ceiling (docs/vault-format.md §4).
 *
 * @throws Fault bad_input
 */
export function checkVaultCost(cost: Argon2Cost, allowTestKdf: boolean): void {
  const { vaultSmall: floor, vaultCeiling: ceiling, test } = KDF;
  if (allowTestKdf && sameCost(cost, test)) return;
  const within =
    cost.memoryKib >= floor.memoryKib &&
    cost.passes >= floor.passes &&
    cost.lanes >= 1 &&
    cost.memoryKib <= ceiling.memoryKib &&
    cost.passes <= ceiling.passes &&
    cost.lanes <= ceiling.lanes;
  if (!within) {
    throw new Fault("bad_input", "cannot use the vault: its password-hashing cost is outside the allowed limits", {
      why: `${cost.memoryKib} KiB, ${cost.passes} passes, ${cost.lanes} lanes`,
      hint: "restore the vault from a backup: this file was not made by keyhold",
    });
  }
}

function sameCost(a: Argon2Cost, b: Argon2Cost): boolean {
  return a.memoryKib === b.memoryKib && a.passes === b.passes && a.lanes === b.lanes;
}

/** What follows the header, 32 bytes: tells accidental damage from a wrong password; not a protection. */
export function vaultCheck(header: Uint8Array): Uint8Array {
  return hashCanon("keyhold/v1/vault-check", header);
}

/**
 * Takes a vault file apart after the check against accidental damage; costs beyond the limits are not refused here.
 *
 * @param size Bytes of the whole file, where `bytes` is its start alone; `sealedBody` is then cut short too.
 * @throws Fault corrupt for damage, bad_input for a newer version or another suite.
 */
export function parseVault(bytes: Uint8Array, size = bytes.length): ParsedVault {
  if (!equalBytes(bytes.subarray(0, MAGIC.length), MAGIC)) throw damagedVault("it does not begin like a vault");
  const version = bytes[VAULT_AT.version];
  if (version === undefined) throw damagedVault("it is cut short");
  if (version > VAULT_VERSION) {
    throw newer(`format ${version}`);
  }
  const flags = bytes[VAULT_AT.slotFlags] ?? 0;
  const slotsEnd = VAULT_AT.slots + slotsLength(flags);
  const checkAt = slotsEnd + 4;
  const bodyAt = checkAt + VAULT_KEY_BYTES;
  if (size < bodyAt + SEAL_OVERHEAD || size > VAULT_MAX_BYTES) throw damagedVault("its length is wrong");
  const header = bytes.slice(0, checkAt);
  const view = new DataView(header.buffer);
  const generation = Number(view.getBigUint64(VAULT_AT.generation));
  const sound =
    equalBytes(vaultCheck(header), bytes.subarray(checkAt, bodyAt)) &&
    version === VAULT_VERSION &&
    flags <= (ACCOUNT_SLOT | KIT_SLOT) &&
    generation >= 1 &&
    Number.isSafeInteger(generation);
  if (!sound) throw damagedVault("its header is damaged");
  const suite = header[VAULT_AT.suite];
  if (suite !== SUITE_XAES) throw newer(`cipher suite ${suite}`);
  if (size !== bodyAt + view.getUint32(slotsEnd)) throw damagedVault("its length is wrong");
  const cost = {
    memoryKib: view.getUint32(VAULT_AT.cost),
    passes: view.getUint32(VAULT_AT.cost + 4),
    lanes: view.getUint32(VAULT_AT.cost + 8),
  };
  const hasAccountSlot = (flags & ACCOUNT_SLOT) !== 0;
  const hasKitSlot = (flags & KIT_SLOT) !== 0;
  return {
    vaultId: header.slice(VAULT_AT.vaultId, VAULT_AT.keyCommitment),
    generation,
    cost,
    hasAccountSlot,
    hasKitSlot,
    keyCommitment: header.slice(VAULT_AT.keyCommitment, VAULT_AT.cost),
    password: {
      cost,
      salt: header.slice(VAULT_AT.salt, VAULT_AT.passwordCommitment),
      commitment: header.slice(VAULT_AT.passwordCommitment, VAULT_AT.passwordSlot),
      sealed: header.slice(VAULT_AT.passwordSlot, VAULT_AT.generation),
    },
    account: hasAccountSlot ? header.slice(VAULT_AT.slots, VAULT_AT.slots + SLOT_BYTES) : null,
    kit: hasKitSlot ? header.slice(slotsEnd - SLOT_BYTES, slotsEnd) : null,
    header,
    sealedBody: bytes.subarray(bodyAt),
  };
}

/** Bytes that the slots beside the password's take, by the byte that announces them. */
export function slotsLength(flags: number): number {
  return ((flags & ACCOUNT_SLOT) === 0 ? 0 : SLOT_BYTES) + ((flags & KIT_SLOT) === 0 ? 0 : SLOT_BYTES);
}

/** Header of the account slot and of the kit's: bytes 0 to 62. */
export function vaultIdentityHeader(vaultId: Uint8Array, keyCommitment: Uint8Array): Uint8Array {
  return concat(MAGIC, Uint8Array.of(VAULT_VERSION, SUITE_XAES), vaultId, keyCommitment);
}

/** Header of the password slot: bytes 0 to 138. */
export function vaultPasswordHeader(
  identityHeader: Uint8Array,
  { cost, salt, commitment }: Omit<PasswordSlot, "sealed">,
): Uint8Array {
  return concat(identityHeader, u32(cost.memoryKib), u32(cost.passes), u32(cost.lanes), salt, commitment);
}

/** Header of the body: all bytes before the check. */
export function vaultBodyHeader(
  identityHeader: Uint8Array,
  password: PasswordSlot,
  generation: number,
  { account, kit }: FurtherSlots,
  bodyLength: number,
): Uint8Array {
  return concat(
    vaultPasswordHeader(identityHeader, password),
    password.sealed,
    u64(generation),
    Uint8Array.of((account ? ACCOUNT_SLOT : 0) | (kit ? KIT_SLOT : 0)),
    account ?? new Uint8Array(),
    kit ?? new Uint8Array(),
    u32(bodyLength + SEAL_OVERHEAD),
  );
}

function u32(value: number): Uint8Array {
  const out = new Uint8Array(4);
  new DataView(out.buffer).setUint32(0, value);
  return out;
}

function u64(value: number): Uint8Array {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, BigInt(value));
  return out;
}

/** The one fault for a damaged vault. */
export function damagedVault(why: string): Fault {
  return new Fault("corrupt", "cannot open the vault: the file is damaged", {
    why,
    hint: "restore a backup; the generation before lies beside it with the ending .previous",
  });
}

function newer(what: string): Fault {
  return new Fault("bad_input", `cannot open the vault: its ${what} is unknown to this keyhold`, {
    hint: "install a newer keyhold",
  });
}
