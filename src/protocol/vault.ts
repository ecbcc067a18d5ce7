import { open, SEAL_OVERHEAD, seal } from "../crypto/aead.ts";
import { concat, equalBytes, type RandomSource, wipe } from "../crypto/bytes.ts";
import { type Argon2Cost, argon2id, deriveKey } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import {
  checkVaultCost,
  damagedVault,
  type FurtherSlots,
  type ParsedVault,
  type PasswordSlot,
  parseVault,
  VAULT_AT,
  VAULT_KEY_BYTES,
  VAULT_MAX_BYTES,
  type VaultHeader,
  vaultBodyHeader,
  vaultCheck,
  vaultIdentityHeader,
  vaultPasswordHeader,
} from "./vaultlayout.ts";

/** An unlocked vault without its contents. Immutable; `key` is a secret: see {@link closeVault}. */
export interface Vault extends FurtherSlots {
  /** 16 bytes. */
  readonly vaultId: Uint8Array;
  /** Of the file that was opened; 0 for a vault that was not written yet. */
  readonly generation: number;
  /** The vault key, 32 bytes. */
  readonly key: Uint8Array;
  readonly password: PasswordSlot;
}

/** What opening gives; the caller owns both and wipes them. */
export interface OpenedVault {
  readonly vault: Vault;
  readonly body: Uint8Array;
}

/** Wipes the vault key. */
export function closeVault(vault: Vault): void {
  wipe(vault.key);
}

/**
 * Makes a vault with a fresh id and key; nothing is written yet ({@link writeVault}).
 *
 * @param password UTF-8 of the normalised password, not retained.
 * @throws Fault bad_input when the cost lies outside the limits of docs/vault-format.md §4.
 */
export async function createVault(
  password: Uint8Array,
  options: { readonly cost: Argon2Cost; readonly allowTestKdf?: boolean },
  random: RandomSource,
): Promise<Vault> {
  checkVaultCost(options.cost, options.allowTestKdf ?? false);
  const vaultId = random(16);
  const key = random(VAULT_KEY_BYTES);
  const slot = await makePasswordSlot(vaultId, key, password, options.cost, random);
  return { vaultId, generation: 0, key, password: slot, account: null, kit: null };
}

/**
 *
 * @throws Fault bad_input when the cost lies outside the limits of docs/vault-format.md §4.
 */
export async function rekeyVault(
  vault: Vault,
  password: Uint8Array,
  options: { readonly cost: Argon2Cost; readonly allowTestKdf?: boolean; readonly newKey?: boolean },
  random: RandomSource,
): Promise<Vault> {
  checkVaultCost(options.cost, options.allowTestKdf ?? false);
  const key = options.newKey ? random(VAULT_KEY_BYTES) : vault.key;
  const slot = await makePasswordSlot(vault.vaultId, key, password, options.cost, random);
  const rekeyed = { ...vault, key, password: slot };
  return options.newKey ? { ...rekeyed, account: null, kit: null } : rekeyed;
}

/** Seals the vault key to the account key (32 bytes, not retained), or with null removes that slot; shares `vault.key`. */
export function setAccountSlot(vault: Vault, accountKey: Uint8Array | null, random: RandomSource): Vault {
  if (!accountKey) return { ...vault, account: null };
  return { ...vault, account: sealSlot(vault, "account", accountKey, random) };
}

/**
 * Seals the vault key to a recovery kit's entropy (32 bytes, not retained), or with null removes that slot; the kit
 * before opens nothing that is written from then on. Shares `vault.key`.
 */
export function setKitSlot(vault: Vault, entropy: Uint8Array | null, random: RandomSource): Vault {
  return { ...vault, kit: entropy && sealSlot(vault, "kit", entropy, random) };
}

/**
 * The bytes of the vault's next generation with this content, under the same slots.
 *
 * @param body Plaintext, not retained; its meaning belongs to the client.
 * @returns A file of generation `vault.generation` + 1.
 * @throws Fault too_large above {@link VAULT_MAX_BYTES}.
 */
export function writeVault(vault: Vault, body: Uint8Array, random: RandomSource): Uint8Array {
  const generation = vault.generation + 1;
  const identity = vaultIdentityHeader(vault.vaultId, keyCommitment(vault.key, vault.vaultId));
  const header = vaultBodyHeader(identity, vault.password, generation, vault, body.length);
  if (header.length + VAULT_KEY_BYTES + body.length + SEAL_OVERHEAD > VAULT_MAX_BYTES) {
    throw new Fault("too_large", "cannot write the vault: it would exceed 512 MiB", {
      hint: "purge old versions, or keep less in the local vault",
    });
  }
  const wrapping = bodyKey(vault.key, vault.vaultId);
  try {
    const context = { kind: "vault-body", vaultId: vault.vaultId, generation, header } as const;
    return concat(header, vaultCheck(header), seal(wrapping, context, body, random));
  } finally {
    wipe(wrapping);
  }
}

/**
 * Reads what stands in clear, after the check against accidental damage; authenticates nothing.
 *
 * @param bytes The file, or its first `VAULT_START_BYTES`.
 * @param size Bytes of the whole file.
 * @throws Fault corrupt for damage, bad_input for a newer version.
 */
export function readVaultHeader(bytes: Uint8Array, size = bytes.length): VaultHeader {
  const { vaultId, generation, cost, hasAccountSlot, hasKitSlot } = parseVault(bytes, size);
  return { vaultId, generation, cost, hasAccountSlot, hasKitSlot };
}

/**
 * Opens with the password: one Argon2id run at the file's cost.
 *
 * @param password UTF-8 of the normalised password, not retained.
 * @throws Fault wrong_password; corrupt for damage; bad_input for a newer version or a KDF cost outside the limits
 * (before anything is allocated for it).
 */
export async function openVaultWithPassword(
  bytes: Uint8Array,
  password: Uint8Array,
  options: { readonly allowTestKdf?: boolean } = {},
): Promise<OpenedVault> {
  const parsed = parseVault(bytes);
  checkVaultCost(parsed.cost, options.allowTestKdf ?? false);
  const { salt, commitment, sealed } = parsed.password;
  const keys = await passwordKeys(password, salt, parsed.cost, parsed.vaultId);
  try {
    if (!equalBytes(keys.commitment, commitment)) {
      throw new Fault("wrong_password", "cannot open the vault: wrong password");
    }
    const header = parsed.header.subarray(0, VAULT_AT.passwordSlot);
    return openBody(parsed, openSealed(keys.slot, slotContext(parsed.vaultId, "password", header), sealed));
  } finally {
    wipe(keys.slot, keys.commitment);
  }
}

/**
 * Opens with the account key, 32 bytes, not retained; no KDF is run.
 *
 * @throws Fault wrong_password when there is no account slot or another account key made it; corrupt; bad_input.
 */
export function openVaultWithAccountKey(bytes: Uint8Array, accountKey: Uint8Array): OpenedVault {
  const parsed = parseVault(bytes);
  const hint = "open the vault with its own password, then log in again";
  if (!parsed.account) throw new Fault("wrong_password", "the vault is not bound to an account", { hint });
  const key = openSlot(parsed, "account", parsed.account, accountKey);
  if (!key) throw new Fault("wrong_password", "the vault does not open with this account's key", { hint });
  return openBody(parsed, key);
}

/**
 * Opens with a recovery kit's entropy, 32 bytes, not retained; no KDF is run.
 *
 * @throws Fault wrong_password when there is no kit slot or another kit made it; corrupt; bad_input.
 */
export function openVaultWithKit(bytes: Uint8Array, entropy: Uint8Array): OpenedVault {
  const parsed = parseVault(bytes);
  if (!parsed.kit) {
    throw new Fault("wrong_password", "the vault has no recovery kit", {
      why: "none was made for it, or this file is a copy from before",
      hint: "open it with its password; then: keyhold vault recovery-kit",
    });
  }
  const key = openSlot(parsed, "kit", parsed.kit, entropy);
  if (!key) {
    throw new Fault("wrong_password", "the vault does not open with this recovery kit", {
      why: "the words are those of another vault, or a kit made later took its place",
      hint: "look for the newest kit of this vault",
    });
  }
  return openBody(parsed, key);
}

/**
 * Opens with the vault key of an earlier opening, 32 bytes (copied): for the next generation of the same vault.
 *
 * @throws Fault locked when the vault has another key by now; corrupt; bad_input.
 */
export function openVaultWithKey(bytes: Uint8Array, key: Uint8Array): OpenedVault {
  const parsed = parseVault(bytes);
  if (!equalBytes(keyCommitment(key, parsed.vaultId), parsed.keyCommitment)) {
    throw new Fault("locked", "the vault has a new key", { why: "it was rekeyed, or is another vault" });
  }
  return openBody(parsed, new Uint8Array(key));
}

/** Seals the pending request that lies beside the vault (docs/vault-format.md §6). */
export function sealPending(vault: Vault, plaintext: Uint8Array, random: RandomSource): Uint8Array {
  const wrapping = pendingKey(vault.key, vault.vaultId);
  try {
    return seal(wrapping, { kind: "vault-pending", vaultId: vault.vaultId }, plaintext, random);
  } finally {
    wipe(wrapping);
  }
}

/** Opens what {@link sealPending} made; the caller owns it. @throws Fault corrupt */
export function openPending(vault: Vault, sealed: Uint8Array): Uint8Array {
  const wrapping = pendingKey(vault.key, vault.vaultId);
  try {
    return openSealed(wrapping, { kind: "vault-pending", vaultId: vault.vaultId }, sealed);
  } finally {
    wipe(wrapping);
  }
}

async function passwordKeys(
  password: Uint8Array,
  salt: Uint8Array,
  cost: Argon2Cost,
  vaultId: Uint8Array,
): Promise<{ slot: Uint8Array; commitment: Uint8Array }> {
  const stretched = await argon2id(password, salt, cost, VAULT_KEY_BYTES);
  try {
    return {
      slot: deriveKey(stretched, VAULT_KEY_BYTES, vaultId, "keyhold/v1/vault-password-slot"),
      commitment: deriveKey(stretched, VAULT_KEY_BYTES, vaultId, "keyhold/v1/vault-password-commitment"),
    };
  } finally {
    wipe(stretched);
  }
}

async function makePasswordSlot(
  vaultId: Uint8Array,
  key: Uint8Array,
  password: Uint8Array,
  cost: Argon2Cost,
  random: RandomSource,
): Promise<PasswordSlot> {
  const salt = random(VAULT_KEY_BYTES);
  const { slot, commitment } = await passwordKeys(password, salt, cost, vaultId);
  try {
    const identity = vaultIdentityHeader(vaultId, keyCommitment(key, vaultId));
    const header = vaultPasswordHeader(identity, { cost, salt, commitment });
    return { cost, salt, commitment, sealed: seal(slot, slotContext(vaultId, "password", header), key, random) };
  } finally {
    wipe(slot);
  }
}

type SlotName = "password" | "account" | "kit";

function slotContext(vaultId: Uint8Array, slot: SlotName, header: Uint8Array) {
  return { kind: "vault-key", vaultId, slot, header } as const;
}

/** Secrets of 32 random bytes open a slot without any stretching. */
const SLOT_LABELS = { account: "keyhold/v1/vault-account-slot", kit: "keyhold/v1/vault-kit-slot" } as const;

function sealSlot(vault: Vault, slot: keyof typeof SLOT_LABELS, secret: Uint8Array, random: RandomSource): Uint8Array {
  const { vaultId, key } = vault;
  const wrapping = deriveKey(secret, VAULT_KEY_BYTES, vaultId, SLOT_LABELS[slot]);
  try {
    const header = vaultIdentityHeader(vaultId, keyCommitment(key, vaultId));
    return seal(wrapping, slotContext(vaultId, slot, header), key, random);
  } finally {
    wipe(wrapping);
  }
}

/** The vault key, or null when the slot was made for another secret. */
function openSlot(
  { vaultId, header }: ParsedVault,
  slot: keyof typeof SLOT_LABELS,
  sealed: Uint8Array,
  secret: Uint8Array,
): Uint8Array | null {
  const wrapping = deriveKey(secret, VAULT_KEY_BYTES, vaultId, SLOT_LABELS[slot]);
  try {
    return open(wrapping, slotContext(vaultId, slot, header.subarray(0, VAULT_AT.cost)), sealed);
  } catch {
    return null;
  } finally {
    wipe(wrapping);
  }
}

function bodyKey(key: Uint8Array, vaultId: Uint8Array): Uint8Array {
  return deriveKey(key, VAULT_KEY_BYTES, vaultId, "keyhold/v1/vault-body");
}

function pendingKey(key: Uint8Array, vaultId: Uint8Array): Uint8Array {
  return deriveKey(key, VAULT_KEY_BYTES, vaultId, "keyhold/v1/vault-pending");
}

function keyCommitment(key: Uint8Array, vaultId: Uint8Array): Uint8Array {
  return deriveKey(key, VAULT_KEY_BYTES, vaultId, "keyhold/v1/vault-key-commitment");
}

/** Opens and names a failure as damage: everything before was found right. */
function openSealed(key: Uint8Array, context: Parameters<typeof open>[1], sealed: Uint8Array): Uint8Array {
  try {
    return open(key, context, sealed);
  } catch {
    throw damagedVault("its contents do not authenticate");
  }
}

/** Takes `key` over: wipes it when the body does not open. */
function openBody(parsed: ParsedVault, key: Uint8Array): OpenedVault {
  const { vaultId, generation, header, password, account, kit } = parsed;
  const wrapping = bodyKey(key, vaultId);
  try {
    if (!equalBytes(keyCommitment(key, vaultId), parsed.keyCommitment)) throw damagedVault("its key does not fit");
    const body = openSealed(wrapping, { kind: "vault-body", vaultId, generation, header }, parsed.sealedBody);
    return { vault: { vaultId, generation, key, password, account, kit }, body };
  } catch (error) {
    wipe(key);
    throw error;
  } finally {
    wipe(wrapping);
  }
}
