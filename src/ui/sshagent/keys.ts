import type { KeyholdClient, SecretInfo } from "../../client/api.ts";
import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import { sshBlobOf } from "../../formats/publickey.ts";
import { readSshBlob, SSH_KEY_TYPES } from "../../formats/sshkey.ts";
import { sshSignature } from "../../formats/sshsignature.ts";
import type { SecretType } from "../../protocol/secrettype.ts";
import { sshScheme } from "./protocol.ts";

/** Which keys are offered: these names, and those with one of these tags; neither: as {@link chosen} says. */
export interface SshChoice {
  readonly names: readonly string[];
  readonly tags: readonly string[];
}

/** A key that is offered. */
export interface SshKey {
  readonly name: string;
  readonly keyId: string;
  readonly type: SecretType;
  /** The public key as ssh sends it. */
  readonly blob: Uint8Array;
}

/** The tag of keys of other types than `ssh` that are offered unasked. */
const TAG = "ssh";
const TYPES: readonly SecretType[] = ["ssh", ...SSH_KEY_TYPES];

/** True for a key that is offered: by default those of type `ssh`, and others that ssh can use with the tag `ssh`. */
export function chosen(info: SecretInfo, { names, tags }: SshChoice, nowMs: number): boolean {
  if (!TYPES.includes(info.type) || info.publicKey === null) return false;
  if (info.expiresAt !== null && Date.parse(info.expiresAt) <= nowMs) return false;
  if (names.length > 0 || tags.length > 0) {
    return names.includes(info.name) || info.tags.some((tag) => tags.includes(tag));
  }
  return info.type === "ssh" || info.tags.includes(TAG);
}

/** The keys of a vault, as ssh uses them; private halves stay where they are. */
export interface SshKeys {
  /** By name. @throws Fault locked, … of the client */
  list(): Promise<readonly SshKey[]>;
  /** The offered key of this public half, or null. @throws Fault as `list` */
  find(blob: Uint8Array): Promise<SshKey | null>;
  /**
   * A signature as ssh sends it.
   *
   * @throws Fault bad_input for RSA with SHA-1; stale when another key has this name now; of the client
   */
  sign(key: SshKey, data: Uint8Array, flags: number): Promise<Uint8Array>;
}

/** Keys through a client. */
export function sshKeys(client: Pick<KeyholdClient, "list" | "sign">, choice: SshChoice): SshKeys {
  /** Public halves alone: what a list told last. */
  let known: readonly SshKey[] = [];

  async function list(): Promise<readonly SshKey[]> {
    known = [];
    const { items } = await client.list({ prefix: null, search: null, tag: null, fresh: false, passive: true });
    known = items.filter((info) => chosen(info, choice, Date.now())).flatMap(keyOf);
    return known;
  }

  const among = (blob: Uint8Array) => known.find((key) => equalBytes(key.blob, blob)) ?? null;

  return {
    list,
    find: async (blob) => {
      const found = among(blob);
      if (found !== null) return found;
      await list();
      return among(blob);
    },
    sign: async ({ keyId, type, blob }, data, flags) => {
      const scheme = sshScheme(readSshBlob(blob).type, flags);
      if (scheme === null) throw new Fault("bad_input", "RSA signatures with SHA-1 are not made");
      const signed = await client.sign({ name: keyId, version: null, message: data, scheme });
      const now = sshBlobOf(type, signed.publicKey);
      if (now === null || !equalBytes(now, blob)) {
        known = [];
        throw new Fault("stale", "this name has another key now");
      }
      return sshSignature(scheme, signed.signature);
    },
  };
}

function keyOf({ name, keyId, type, publicKey }: SecretInfo): readonly SshKey[] {
  try {
    const blob = publicKey && sshBlobOf(type, publicKey);
    return blob ? [{ name, keyId, type, blob }] : [];
  } catch (error) {
    // a kind of key of ssh that is kept and not used here
    if (error instanceof Fault) return [];
    throw error;
  }
}
