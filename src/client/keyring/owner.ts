import { equalBytes, wipe } from "../../crypto/bytes.ts";
import { type HpkeKeyPair, hpkeKeyPair } from "../../crypto/hpke.ts";
import type { Signer } from "../../crypto/identity.ts";
import { Fault } from "../../errors.ts";
import { approvalSigner, keyringRecipientSeed } from "../../protocol/federation/credentials.ts";
import { digestWords } from "../../protocol/federation/words.ts";
import { keyringEnrolmentBytes } from "../../protocol/keyring/keyring.ts";
import type { OutputOf } from "../../wire/operations.ts";
import type { OwnerInfo } from "../keyringapi.ts";
import { type Ground, lie } from "./ground.ts";

/** Signs requests, votes and policy links at this registry: the same on all of the owner's devices. */
export const ownerSigner = (ground: Pick<Ground, "secret" | "scope">): Signer =>
  approvalSigner(ground.secret(), ground.scope);

/** The owner's public key here, where this device can know it; null where it has no federation secret. */
export function ownKey(ground: Ground): Uint8Array | null {
  return ground.held().federationSecret === null ? null : ownerSigner(ground).publicKey;
}

/**
 * Who the registry says it is: the server that the profile pins.
 *
 * @throws Fault unsupported for a server that is no registry; integrity for one that names another identity
 */
export async function registryInfo(ground: Ground): Promise<OutputOf<"keyring.info">> {
  const info = await ground.ask("keyring.info", {});
  if (!equalBytes(info.registry, ground.identity)) {
    throw lie(ground, "another identity than the pinned one", `it calls itself ${info.registry.toHex()}`);
  }
  if (!info.enabled) {
    throw new Fault("unsupported", "this server is no registry of workspaces and keyrings", {
      hint: "its operator starts it with: keyhold serve --registry",
    });
  }
  return info;
}

/** Ties this account to its owner key at the registry; the same again changes nothing. */
export async function enrolOwner(ground: Ground): Promise<OwnerInfo> {
  await registryInfo(ground);
  const signer = ownerSigner(ground);
  const { identity: registry, userId } = ground;
  const key = signer.publicKey;
  const proof = signer.sign(keyringEnrolmentBytes({ registry, userId, role: "owner", key }));
  await ground.call("keyring.enrol", { role: "owner", key, proof });
  return { keyHex: key.toHex(), words: digestWords(key), registryHex: registry.toHex() };
}

/** The X25519 key pair that shares of one request are sealed to: any of the owner's devices has it. */
export async function recipientOf(ground: Ground, nonce: Uint8Array): Promise<HpkeKeyPair> {
  const seed = keyringRecipientSeed(ground.secret(), ground.scope, nonce);
  try {
    return await hpkeKeyPair(seed);
  } finally {
    wipe(seed);
  }
}
