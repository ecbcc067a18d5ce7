import { append, type Connection } from "../../client/agentconnection.ts";
import { concat } from "../../crypto/bytes.ts";
import type { SignatureScheme } from "../../crypto/schemes.ts";
import { Fault } from "../../errors.ts";
import { sshReader } from "../../formats/openssh.ts";
import type { SshKeyType } from "../../formats/sshkey.ts";
import { sshString, sshUint32 } from "../../formats/sshwire.ts";

/** The most that a message has, in bytes, as in OpenSSH. */
export const SSH_MESSAGE_BYTES = 256 * 1_024;

/** Numbers of messages and flags (draft-ietf-sshm-ssh-agent §6). */
const REQUEST_IDENTITIES = 11;
const SIGN_REQUEST = 13;
const EXTENSION = 27;
const FAILURE = 5;
const SUCCESS = 6;
const IDENTITIES_ANSWER = 12;
const SIGN_RESPONSE = 14;
const RSA_SHA2_256 = 2;
const RSA_SHA2_512 = 4;

/** What a client of ssh asks for. */
export type SshRequest =
  | { readonly kind: "list" }
  | { readonly kind: "sign"; readonly blob: Uint8Array; readonly data: Uint8Array; readonly flags: number }
  /** Says which server a connection is used for, and whether it is forwarded there (PROTOCOL.agent §1). */
  | { readonly kind: "bind"; readonly forwarded: boolean }
  /** Everything else: answered by a failure. */
  | { readonly kind: "other" };

/** Reads a message without its length; one that is malformed is `other`. */
export function readSshRequest(message: Uint8Array): SshRequest {
  try {
    const reader = sshReader(message.subarray(1));
    switch (message[0]) {
      case REQUEST_IDENTITIES:
        return message.length === 1 ? { kind: "list" } : { kind: "other" };
      case SIGN_REQUEST: {
        const [blob, data, flags] = [reader.string(), reader.string(), reader.uint32()];
        return reader.rest().length === 0 ? { kind: "sign", blob, data, flags } : { kind: "other" };
      }
      case EXTENSION: {
        if (reader.ascii() !== "session-bind@openssh.com") return { kind: "other" };
        for (const _ of ["host key", "session id", "signature"]) reader.string();
        const [forwarding = 0, ...more] = reader.rest();
        return more.length === 0 ? { kind: "bind", forwarded: forwarding !== 0 } : { kind: "other" };
      }
      default:
        return { kind: "other" };
    }
  } catch (error) {
    if (error instanceof Fault) return { kind: "other" };
    throw error;
  }
}

/**
 * How a key signs for ssh; null for what is not done: RSA with SHA-1, which is what no flag asks for.
 *
 * @param flags Of the request; they mean something for RSA alone.
 */
export function sshScheme(type: SshKeyType, flags: number): SignatureScheme | null {
  switch (type) {
    case "ed25519":
      return "ed25519";
    case "p256":
      return "ecdsa-p256-sha256";
    case "p384":
      return "ecdsa-p384-sha384";
    case "rsa":
      if ((flags & RSA_SHA2_512) !== 0) return "rsa-pkcs1-sha512";
      return (flags & RSA_SHA2_256) !== 0 ? "rsa-pkcs1-sha256" : null;
    default:
      return type satisfies never;
  }
}

const message = (type: number, ...fields: readonly Uint8Array[]): Uint8Array =>
  sshString(Uint8Array.of(type), ...fields);

/** "No", whatever the reason. */
export const sshFailure = (): Uint8Array => message(FAILURE);
/** "Done". */
export const sshSuccess = (): Uint8Array => message(SUCCESS);

/** The keys that there are; those that no message has room for are left out. */
export function sshIdentities(keys: readonly { readonly blob: Uint8Array; readonly comment: string }[]): Uint8Array {
  const entries: Uint8Array[] = [];
  let bytes = 5;
  for (const { blob, comment } of keys) {
    const entry = concat(sshString(blob), sshString(new TextEncoder().encode(comment)));
    bytes += entry.length;
    if (bytes > SSH_MESSAGE_BYTES) break;
    entries.push(entry);
  }
  return message(IDENTITIES_ANSWER, sshUint32(entries.length), ...entries);
}

/** A signature (draft-ietf-sshm-ssh-agent §3.6). */
export function sshSigned(signature: Uint8Array): Uint8Array {
  return message(SIGN_RESPONSE, sshString(signature));
}

const LENGTH_BYTES = 4;

/**
 * Whole messages, without their lengths, that a chunk completes.
 *
 * @returns `broken` when something came that is no message: nothing after it can be understood.
 */
export function takeSshMessages(
  connection: Connection,
  chunk: Uint8Array,
): { readonly messages: readonly Uint8Array[]; readonly broken: boolean } {
  const messages: Uint8Array[] = [];
  for (let at = 0; at < chunk.length; ) {
    if (connection.received === 0) connection.movedAtMs = Bun.nanoseconds() / 1e6;
    const length = lengthOf(connection);
    const wanted = LENGTH_BYTES + (length ?? 0) - connection.received;
    const part = chunk.subarray(at, at + wanted);
    at += part.length;
    append(connection, part, LENGTH_BYTES + SSH_MESSAGE_BYTES);
    const known = lengthOf(connection);
    if (known === null) continue;
    if (known < 1 || known > SSH_MESSAGE_BYTES) return { messages, broken: true };
    if (connection.received < LENGTH_BYTES + known) continue;
    messages.push(connection.buffer.slice(LENGTH_BYTES, connection.received));
    connection.received = 0;
    connection.buffer = new Uint8Array(0);
  }
  return { messages, broken: false };
}

/** The length that a message says it has, once that has arrived. */
function lengthOf({ buffer, received }: Connection): number | null {
  if (received < LENGTH_BYTES) return null;
  return new DataView(buffer.buffer, buffer.byteOffset).getUint32(0);
}
