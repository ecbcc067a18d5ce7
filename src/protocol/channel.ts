import { open, SEAL_OVERHEAD, seal } from "../crypto/aead.ts";
import { concat, type RandomSource } from "../crypto/bytes.ts";
import { deriveKey, sha256 } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import { ID_BYTES, idBytes, type RequestId, type SessionId, type UserId } from "../ids.ts";
import { PROTOCOL_VERSION } from "./defaults.ts";

/** The two keys of a session, 32 bytes each (docs/protocol.md §4.1). */
export interface ChannelKeys {
  readonly request: Uint8Array;
  readonly reply: Uint8Array;
}

const NO_SALT = new Uint8Array(0);

/**
 * Derives a session's keys.
 *
 * @param sessionKey OPAQUE session key, 64 bytes; not retained.
 * @param serverIdentity Ed25519 public key of the server, 32 bytes.
 */
export function channelKeys(
  sessionKey: Uint8Array,
  serverIdentity: Uint8Array,
  userId: UserId,
  sessionId: SessionId,
): ChannelKeys {
  const derive = (direction: "request" | "reply") =>
    deriveKey(
      sessionKey,
      32,
      NO_SALT,
      "keyhold/v1/channel",
      direction,
      PROTOCOL_VERSION,
      serverIdentity,
      userId,
      sessionId,
    );
  return { request: derive("request"), reply: derive("reply") };
}

/** Key of the reply that ends a login, before the client knows its account id: 32 bytes. */
export function loginReplyKey(sessionKey: Uint8Array, serverIdentity: Uint8Array, sessionId: SessionId): Uint8Array {
  return deriveKey(sessionKey, 32, NO_SALT, "keyhold/v1/login-reply-key", PROTOCOL_VERSION, serverIdentity, sessionId);
}

/** What stands in clear before a sealed request. */
export interface FrameHead {
  readonly sessionId: SessionId;
  /** Drawn upwards from 1 by the client; each is used once. */
  readonly sequence: number;
  readonly requestId: RequestId;
}

const HEAD_BYTES = ID_BYTES + 8 + ID_BYTES;

/** Bytes that a request frame adds to its body. */
export const FRAME_OVERHEAD = HEAD_BYTES + SEAL_OVERHEAD;

/** Seals a request: session id (16) ‖ sequence (8, big-endian) ‖ request id (16) ‖ sealed body. */
export function sealRequest(
  keys: ChannelKeys,
  head: FrameHead,
  operation: string,
  body: Uint8Array,
  random: RandomSource,
): Uint8Array {
  const start = new Uint8Array(HEAD_BYTES);
  start.set(idBytes(head.sessionId));
  new DataView(start.buffer).setBigUint64(ID_BYTES, BigInt(head.sequence));
  start.set(idBytes(head.requestId), ID_BYTES + 8);
  const context = { kind: "frame", ...head, direction: "request", operation, requestFrameHash: null } as const;
  return concat(start, seal(keys.request, context, body, random));
}

/** Reads the clear head of a request frame. @throws Fault bad_input */
export function frameHead(frame: Uint8Array): FrameHead {
  if (frame.length < FRAME_OVERHEAD) throw new Fault("bad_input", "a frame is too short");
  const view = new DataView(frame.buffer, frame.byteOffset);
  const sequence = view.getBigUint64(ID_BYTES);
  if (sequence < 1n || sequence > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new Fault("bad_input", "a frame's sequence is out of range");
  }
  return {
    sessionId: frame.subarray(0, ID_BYTES).toHex() as SessionId,
    sequence: Number(sequence),
    requestId: frame.subarray(ID_BYTES + 8, HEAD_BYTES).toHex() as RequestId,
  };
}

/** Opens a request frame. @throws Fault integrity */
export function openRequest(keys: ChannelKeys, head: FrameHead, operation: string, frame: Uint8Array): Uint8Array {
  const context = { kind: "frame", ...head, direction: "request", operation, requestFrameHash: null } as const;
  return open(keys.request, context, frame.subarray(HEAD_BYTES));
}

/** Seals the reply to the request whose frame is given. */
export function sealReply(
  keys: ChannelKeys,
  head: FrameHead,
  operation: string,
  requestFrame: Uint8Array,
  body: Uint8Array,
  random: RandomSource,
): Uint8Array {
  const context = {
    kind: "frame",
    ...head,
    direction: "reply",
    operation,
    requestFrameHash: sha256(requestFrame),
  } as const;
  return seal(keys.reply, context, body, random);
}

/** Opens the reply to the very request whose frame is given. @throws Fault integrity */
export function openReply(
  keys: ChannelKeys,
  head: FrameHead,
  operation: string,
  requestFrame: Uint8Array,
  sealed: Uint8Array,
): Uint8Array {
  const context = {
    kind: "frame",
    ...head,
    direction: "reply",
    operation,
    requestFrameHash: sha256(requestFrame),
  } as const;
  return open(keys.reply, context, sealed);
}

/** Sequences of a session that were used: the highest, and a bitmap of those below (bit 0 of byte 0 is `high`). */
export interface ReplayWindow {
  readonly high: number;
  /** 128 bytes: 1,024 sequences. */
  readonly window: Uint8Array;
}

/** Size of the bitmap in bytes. */
export const WINDOW_BYTES = 128;

/** Marks a sequence as used; `undefined` if it was used before or lies below the window. */
export function useSequence(state: ReplayWindow, sequence: number): ReplayWindow | undefined {
  const bits = WINDOW_BYTES * 8;
  if (sequence > state.high) {
    const shift = sequence - state.high;
    let value = shift >= bits ? 0n : bitmapToBigint(state.window) << BigInt(shift);
    value |= 1n;
    return { high: sequence, window: bigintToBitmap(value) };
  }
  const back = state.high - sequence;
  if (back >= bits) return undefined;
  const window = state.window.slice();
  const at = back >>> 3;
  const mask = 1 << (back & 7);
  const byte = window[at] ?? 0;
  if ((byte & mask) !== 0) return undefined;
  window[at] = byte | mask;
  return { high: state.high, window };
}

function bitmapToBigint(window: Uint8Array): bigint {
  return BigInt(`0x${window.slice().reverse().toHex()}`);
}

function bigintToBitmap(value: bigint): Uint8Array {
  const cut = BigInt.asUintN(WINDOW_BYTES * 8, value);
  return Uint8Array.fromHex(cut.toString(16).padStart(WINDOW_BYTES * 2, "0")).reverse();
}
