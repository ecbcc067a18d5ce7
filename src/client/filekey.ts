import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { AgeStanza } from "../formats/agestream.ts";
import { SSH_KEY_TYPES, type SshKeyType } from "../formats/sshkey.ts";
import type { SecretType } from "../protocol/secrettype.ts";
import type { Open } from "./opened.ts";
import { getSecret } from "./reading.ts";

/** The header of an encrypted file, and the stored key that is to open it. */
export interface UnwrapInput {
  /** Exact name, else a unique prefix of a key id. */
  name: string;
  /** null: the newest. */
  version: number | null;
  /** For whom the file is: of the header all that stands before its MAC. */
  stanzas: readonly AgeStanza[];
}

/** The key of one file; the stored key stays where it is. */
export interface Unwrapped {
  /** 16 bytes, the caller's to wipe. */
  fileKey: Uint8Array;
}

/** Key types that open files. */
const OPENS: readonly SecretType[] = ["x25519", "ed25519", "rsa", "ssh"];

const isSshType = (type: SecretType): type is SshKeyType => SSH_KEY_TYPES.some((one) => one === type);

/** Refuses a type whose keys open no file. @throws Fault bad_input */
export function checkOpens(type: SecretType): void {
  if (OPENS.includes(type)) return;
  throw new Fault("bad_input", `a secret of type "${type}" opens no files`, {
    hint: `keys that do: ${OPENS.join(", ")}`,
  });
}

/**
 * Unwraps the key of a file in the age format with a stored key (docs/agent.md); the audit log has it as a retrieval of
 * that key.
 *
 * @throws Fault bad_input when the file is not for this key, its header is malformed, or the type opens none
 */
export async function unwrapFileKey(open: Open, { name, version, stanzas }: UnwrapInput): Promise<Unwrapped> {
  const got = await getSecret(open, { name, version, reveal: true, fresh: false, save: false });
  const { value, info } = got;
  const kept: Uint8Array[] = [];
  try {
    if (!value) throw new Fault("internal", "a key came without its value");
    kept.push(value);
    checkOpens(info.type);
    const identity = await identityOf(info.type, value, kept);
    const { Stanza } = await import("age-encryption");
    let fileKey: Uint8Array | null;
    try {
      fileKey = await identity.unwrapFileKey(stanzas.map(({ args, body }) => new Stanza([...args], body)));
    } catch {
      throw new Fault("bad_input", "the header of this file is malformed");
    }
    if (fileKey === null) {
      throw new Fault("bad_input", "this file is not encrypted to this key", {
        hint: "keyhold key list   (other keys)",
      });
    }
    return { fileKey };
  } finally {
    wipe(...kept);
  }
}

async function identityOf(type: SecretType, value: Uint8Array, kept: Uint8Array[]) {
  if (type === "x25519") return (await import("../formats/agex25519.ts")).x25519Identity(value);
  const { sshIdentity } = await import("../formats/agessh.ts");
  if (isSshType(type)) return sshIdentity({ type, key: value });
  const { parseSshPrivate } = await import("../formats/sshkey.ts");
  const parsed = parseSshPrivate(value);
  kept.push(parsed.key);
  return sshIdentity(parsed);
}
