import { canon } from "../crypto/canon.ts";
import { type Signer, spkiOf, verifySignature } from "../crypto/identity.ts";
import { sha256 } from "../crypto/kdf.ts";
import { openNote, signNote } from "../crypto/note.ts";
import { treeLeafHash } from "../crypto/tree.ts";
import type { IncarnationId } from "../ids.ts";

/** A size of the server-wide log and its root (docs/protocol.md §6.3). */
export interface TreeHead {
  readonly size: number;
  /** 32 bytes. */
  readonly root: Uint8Array;
}

/** What a checkpoint's signature covers. */
export interface Checkpoint extends TreeHead {
  readonly origin: string;
}

/** What one leaf says: the log of a pseudonym stands at this position. Hashes have 32 bytes. */
export interface LoggedPosition {
  readonly pseudonym: Uint8Array;
  readonly seq: number;
  readonly link: Uint8Array;
}

/** Name of a server's log in one incarnation: `keyhold/log/`, the pin's hash in hexadecimal, `/`, the incarnation. */
export function logOrigin(serverIdentity: Uint8Array, incarnation: IncarnationId): string {
  return `keyhold/log/${sha256(spkiOf(serverIdentity)).toHex()}/${incarnation}`;
}

/** Leaf hash of a position: 32 bytes. */
export function positionLeaf({ pseudonym, seq, link }: LoggedPosition): Uint8Array {
  return treeLeafHash(canon("keyhold/v1/log-leaf", pseudonym, seq, link));
}

/** Leaf hash of the first leaf after a restore: the last known checkpoint of the incarnation before. 32 bytes. */
export function restartLeaf({ origin, size, root }: Checkpoint): Uint8Array {
  return treeLeafHash(canon("keyhold/v1/log-restart", origin, size, root));
}

/** What the promise covers that a position will stand in the log. */
export interface PromisedPosition extends LoggedPosition {
  readonly origin: string;
  /** Milliseconds since 1970; the log holds this position or a later one `logMergeMs` after. */
  readonly atMs: number;
}

const promiseBytes = (p: PromisedPosition): Uint8Array =>
  canon("keyhold/v1/inclusion-promise", p.origin, p.pseudonym, p.seq, p.link, p.atMs);

/** Signs an inclusion promise with the log key: 64 bytes. */
export function signPromise(log: Signer, promised: PromisedPosition): Uint8Array {
  return log.sign(promiseBytes(promised));
}

/** True when the log key signed this promise. */
export function promiseHolds(logKey: Uint8Array, promised: PromisedPosition, signature: Uint8Array): boolean {
  return verifySignature(logKey, promiseBytes(promised), signature);
}

/** Signs a checkpoint (C2SP tlog-checkpoint): origin, size and root as a signed note, named like the origin. */
export function signCheckpoint({ origin, size, root }: Checkpoint, signers: readonly Signer[]): string {
  return signNote(`${origin}\n${size}\n${root.toBase64()}\n`, origin, signers);
}

/** The checkpoint in a note that this log key signed for this origin; null for any other. */
export function openCheckpoint(note: string, origin: string, logKey: Uint8Array): Checkpoint | null {
  const text = openNote(note, origin, logKey);
  if (text === null) return null;
  const [named, size, root] = text.split("\n");
  if (named !== origin || size === undefined || root === undefined) return null;
  if (!/^(0|[1-9]\d{0,15})$/.test(size) || !Number.isSafeInteger(Number(size))) return null;
  if (!/^[A-Za-z0-9+/]{43}=$/.test(root)) return null;
  const bytes = Uint8Array.fromBase64(root);
  return bytes.toBase64() === root ? { origin, size: Number(size), root: bytes } : null;
}
