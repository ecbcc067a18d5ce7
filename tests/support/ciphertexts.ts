import { indexKeys, recordKeys } from "../../src/client/model.ts";
import { type AadContext, open } from "../../src/crypto/aead.ts";
import { concat } from "../../src/crypto/bytes.ts";
import { type EntryId, newId, type SessionId } from "../../src/ids.ts";
import {
  openDeviceName,
  previousKeys,
  unwrapAccountKey,
  unwrapIdentity,
  wrapPreviousKey,
} from "../../src/protocol/account.ts";
import { KDF } from "../../src/protocol/defaults.ts";
import { LINK_SECRET_BYTES, openParcel, sealParcel } from "../../src/protocol/link.ts";
import { openMeta, openQueued, openValue, sealQueued, WRAPPED_BYTES } from "../../src/protocol/secret.ts";
import {
  createVault,
  openPending,
  openVaultWithAccountKey,
  openVaultWithKey,
  openVaultWithKit,
  openVaultWithPassword,
  sealPending,
  setAccountSlot,
  setKitSlot,
  writeVault,
} from "../../src/protocol/vault.ts";
import { parseVault, VAULT_AT, vaultCheck } from "../../src/protocol/vaultlayout.ts";
import { openAccountName, openSessionKey } from "../../src/server/accounts.ts";
import { passwordOf, random, type TestDevice, type TestServer } from "./harness.ts";
import type { FileStore } from "./storeprobe.ts";

/** A place where a ciphertext is kept, and how whatever lies there is opened. */
export interface Place {
  readonly kind: AadContext["kind"];
  /** For messages: whose and which. */
  readonly name: string;
  readonly sealed: Uint8Array;
  /** @throws Fault for what does not belong there */
  open(sealed: Uint8Array): unknown;
}

/** A wrapped key and what follows it, as two places that are opened together. */
function pair(
  kinds: readonly [Place["kind"], Place["kind"]],
  name: string,
  whole: Uint8Array,
  open: (whole: Uint8Array) => unknown,
): Place[] {
  const [key, content] = [whole.slice(0, WRAPPED_BYTES), whole.slice(WRAPPED_BYTES)];
  return [
    {
      kind: kinds[0],
      name: `${kinds[0]} of ${name}`,
      sealed: key,
      open: (other: Uint8Array) => open(concat(other, content)),
    },
    {
      kind: kinds[1],
      name: `${kinds[1]} of ${name}`,
      sealed: content,
      open: (other: Uint8Array) => open(concat(key, other)),
    },
  ];
}

/** Ciphertexts of an account that the server keeps for its owner. */
export async function placesOfAccount(server: TestServer, account: string, device: TestDevice): Promise<Place[]> {
  const { model } = device.open.box;
  const { owner, keys } = model;
  const row = await server.store.transaction((tx) => tx.account(owner));
  if (!row) throw new Error("there is no account");
  const { settings } = row;
  const waiting = { userId: owner, entryId: newId<EntryId>(random), type: "note" };
  const places: Place[] = [
    {
      kind: "queued",
      name: `value that waits of ${account}`,
      sealed: sealQueued(keys.record, waiting, passwordOf("waiting"), random),
      open: (sealed) => openQueued(recordKeys(model), waiting, sealed),
    },
    {
      kind: "account-key",
      name: `account key of ${account}`,
      sealed: settings.wrappedAccountKey,
      open: (sealed) => unwrapAccountKey(device.login.exportKey, owner, { ...settings, wrappedAccountKey: sealed }),
    },
    {
      kind: "account-identity",
      name: `identity of ${account}`,
      sealed: settings.wrappedIdentity,
      open: (sealed) => unwrapIdentity(keys, owner, sealed),
    },
    ...settings.devices.map(({ id, name }) => ({
      kind: "device-name" as const,
      name: `name of device ${id} of ${account}`,
      sealed: name,
      open: (sealed: Uint8Array) => openDeviceName(keys, owner, id, sealed),
    })),
  ];
  for (const [keyId, secret] of model.secrets) {
    const type = secret.meta?.type ?? "bytes";
    for (const leaf of await server.store.transaction((tx) => tx.history(owner, keyId, 0, 100))) {
      const { serial, version, meta } = leaf;
      const name = `change ${serial} of ${keyId} of ${account}`;
      if (meta) {
        const kinds = ["meta-key", "meta"] as const;
        places.push(...pair(kinds, name, meta, (whole) => openMeta(indexKeys(model), owner, keyId, serial, whole)));
      }
      const sealed = await server.store.transaction((tx) => tx.sealedValue(owner, keyId, version));
      if (sealed) {
        const at = { userId: owner, keyId, version, type };
        places.push(...pair(["data-key", "secret"], name, sealed, (whole) => openValue(recordKeys(model), at, whole)));
      }
    }
  }
  return places;
}

/** What a rotation and a device link leave with the server, made as the client makes it. */
export async function placesOfLife(server: TestServer, account: string, device: TestDevice): Promise<Place[]> {
  const { owner, keys, accountKey } = device.open.box.model;
  const row = await server.store.transaction((tx) => tx.account(owner));
  if (!row) throw new Error("there is no account");
  const { settings } = row;
  const [identity, handover, revision] = [random(32), random(64), row.state.state.revision + 1];
  const secret = random(LINK_SECRET_BYTES);
  return [
    {
      kind: "previous-account-key",
      name: `earlier account key of ${account}`,
      sealed: wrapPreviousKey(keys, owner, revision, random(32), random),
      open: (wrapped) =>
        previousKeys(accountKey, owner, { ...settings, rotations: [{ revision, identity, wrapped, handover }] }),
    },
    {
      kind: "device-link",
      name: `parcel for a new device of ${account}`,
      sealed: sealParcel(secret, random(200), random),
      open: (sealed) => openParcel(secret, sealed),
    },
  ];
}

/** Ciphertexts of a vault file with all its slots. */
export async function placesOfVault(account: string, device: TestDevice): Promise<Place[]> {
  const password = passwordOf(`vault of ${account}`);
  const { accountKey } = device.open.box.model;
  const made = await createVault(password, { cost: KDF.test, allowTestKdf: true }, random);
  const entropy = random(32);
  const vault = setKitSlot(setAccountSlot(made, accountKey, random), entropy, random);
  const bytes = writeVault(vault, random(500), random);
  const { password: slot, account: other, kit, sealedBody, header } = parseVault(bytes);
  if (!other || !kit) throw new Error("there is no account slot, or no kit slot");
  // whoever can write the file can also make its check anew
  const file = (at: number, sealed: Uint8Array, length: number) => {
    const spliced = concat(header.subarray(0, at), sealed, header.subarray(at + length));
    return concat(spliced, vaultCheck(spliced), sealedBody);
  };
  const pending = sealPending(vault, random(200), random);
  return [
    {
      kind: "vault-key",
      name: `password slot of ${account}`,
      sealed: slot.sealed,
      open: (sealed) =>
        openVaultWithPassword(file(VAULT_AT.passwordSlot, sealed, slot.sealed.length), password, {
          allowTestKdf: true,
        }),
    },
    {
      kind: "vault-key",
      name: `account slot of ${account}`,
      sealed: other,
      open: (sealed) => openVaultWithAccountKey(file(VAULT_AT.slots, sealed, other.length), accountKey),
    },
    {
      kind: "vault-key",
      name: `kit slot of ${account}`,
      sealed: kit,
      open: (sealed) => openVaultWithKit(file(VAULT_AT.slots + other.length, sealed, kit.length), entropy),
    },
    {
      kind: "vault-body",
      name: `vault body of ${account}`,
      sealed: sealedBody,
      open: (sealed) => openVaultWithKey(concat(header, vaultCheck(header), sealed), vault.key),
    },
    {
      kind: "vault-pending",
      name: `pending request of ${account}`,
      sealed: pending,
      open: (sealed) => openPending(vault, sealed),
    },
  ];
}

/** Ciphertexts that the server made for itself. */
export async function placesOfServer(server: TestServer, file: FileStore): Promise<Place[]> {
  const { ctx, store } = server;
  const accounts = await store.transaction((tx) => tx.accounts(null, 100));
  const sessions = (
    await Promise.all(accounts.map(({ userId }) => store.transaction((tx) => tx.sessionsOf(userId))))
  ).flat();
  interface Half {
    session_id: Uint8Array;
    credential_id: Uint8Array;
    record_version: number;
    expires_at_ms: number;
    sealed: Uint8Array;
  }
  return [
    ...accounts.map((row) => ({
      kind: "account-name" as const,
      name: `name of account ${row.userId}`,
      sealed: row.sealedName,
      open: (sealed: Uint8Array) => openAccountName(ctx, { ...row, sealedName: sealed }),
    })),
    ...sessions.map((row) => ({
      kind: "session" as const,
      name: `session ${row.sessionId}`,
      sealed: row.sealedKey,
      open: (sealed: Uint8Array) => openSessionKey(ctx, { ...row, sealedKey: sealed }),
    })),
    ...file.sql<Half>("SELECT * FROM login_state").map((row) => {
      const sessionId = row.session_id.toHex() as SessionId;
      const context = {
        kind: "login-state" as const,
        sessionId,
        credentialId: row.credential_id,
        recordVersion: row.record_version,
        expiresAtMs: row.expires_at_ms,
      } as const;
      return {
        kind: "login-state" as const,
        name: `half login ${sessionId}`,
        sealed: row.sealed,
        open: (sealed: Uint8Array) => open(ctx.keys.sealing, context, sealed),
      };
    }),
  ];
}
