import { concat, equalBytes, fromBase64url, toBase64url, wipe } from "../../crypto/bytes.ts";
import { hashCanon } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import { type CeremonyId, hashId } from "../../ids.ts";
import { PARTICIPANTS } from "./model.ts";

/** What a participant gets from the organiser, and nobody else may see: who has it can take the seat. */
export interface CeremonyInvite {
  /** Of the server: https. */
  readonly url: string;
  /** Of the server: `sha256:` and 43 characters. */
  readonly pin: string;
  readonly ceremonyId: CeremonyId;
  readonly index: number;
  /** Seed of the invite's Ed25519 key, 32 bytes, secret. */
  readonly seed: Uint8Array;
}

const PREFIX = "keyhold-ceremony:";
const PIN_PREFIX = "sha256:";
const VERSION = 1;
const CHECK_BYTES = 6;
/** Version, index, seed, ceremony, pin; then the URL, then the check. */
const AT = { index: 1, seed: 3, ceremony: 35, pin: 67, url: 99 } as const;
const URL_MAX = 512;
const TEXT_MAX = PREFIX.length + Math.ceil(((AT.url + URL_MAX + CHECK_BYTES) * 4) / 3);

const refuse = (why: string) =>
  new Fault("bad_input", `this is no whole invite: ${why}`, {
    hint: `copy the whole line again, from "${PREFIX}" to its end; if that does not help, ask the organiser for it`,
  });

/** @throws Fault bad_input */
function checkUrl(url: string): string {
  const parsed = url.length <= URL_MAX && /^[\x21-\x7e]+$/.test(url) ? URL.parse(url) : null;
  if (!parsed) throw refuse("its address is none");
  if (parsed.protocol !== "https:") throw refuse("its address does not begin with https://");
  if (parsed.username !== "" || parsed.password !== "" || parsed.hash !== "") throw refuse("its address is none");
  return url;
}

const check = (body: Uint8Array) => hashCanon("keyhold/v1/ceremony-invite", body).subarray(0, CHECK_BYTES);

/**
 * An invite as one line: `keyhold-ceremony:` and base64url of what it says with a check (docs/protocol.md §10.2).
 *
 * @throws Fault bad_input
 */
export function encodeInvite({ url, pin, ceremonyId, index, seed }: CeremonyInvite): string {
  const hash = pinHash(pin);
  if (seed.length !== 32) throw new Fault("internal", "the seed of an invite has 32 bytes");
  if (!Number.isInteger(index) || index < 1 || index > PARTICIPANTS.max) throw refuse("there is no such seat");
  const head = Uint8Array.of(VERSION, index >> 8, index & 0xff);
  const address = new TextEncoder().encode(checkUrl(url));
  const body = concat(head, seed, Uint8Array.fromHex(ceremonyId), hash, address);
  const all = concat(body, check(body));
  try {
    return PREFIX + toBase64url(all);
  } finally {
    wipe(body, all);
  }
}

function pinHash(pin: string): Uint8Array {
  try {
    const hash = pin.startsWith(PIN_PREFIX) ? fromBase64url(pin.slice(PIN_PREFIX.length)) : null;
    if (hash?.length === 32) return hash;
  } catch {
    // falls through to the one error
  }
  throw refuse("its pin is none");
}

/**
 * Reads an invite; blanks and line breaks in it do not matter, every other change is told.
 *
 * @returns `seed` is the caller's to wipe. @throws Fault bad_input that says what to do
 */
export function decodeInvite(text: string): CeremonyInvite {
  if (text.length > 4 * TEXT_MAX) throw refuse("it is too long");
  const line = text.replace(/\s+/g, "");
  if (!line.startsWith(PREFIX)) throw refuse(`it does not begin with "${PREFIX}"`);
  if (line.length > TEXT_MAX) throw refuse("it is too long");
  let all: Uint8Array;
  try {
    all = fromBase64url(line.slice(PREFIX.length));
  } catch {
    throw refuse("it is cut or mistyped");
  }
  try {
    return read(all);
  } finally {
    wipe(all);
  }
}

function read(all: Uint8Array): CeremonyInvite {
  if (all.length <= AT.url + CHECK_BYTES) throw refuse("it is cut or mistyped");
  const body = all.subarray(0, -CHECK_BYTES);
  if (!equalBytes(check(body), all.subarray(-CHECK_BYTES))) throw refuse("it is cut or mistyped");
  if (body[0] !== VERSION) {
    throw new Fault("bad_input", "this invite is of another version of keyhold", {
      hint: "use the version of keyhold that the organiser uses",
    });
  }
  const index = ((body[AT.index] ?? 0) << 8) | (body[AT.index + 1] ?? 0);
  if (index < 1 || index > PARTICIPANTS.max) throw refuse("there is no such seat");
  const url = checkUrl(Buffer.from(body.subarray(AT.url)).toString("latin1"));
  return {
    url,
    pin: PIN_PREFIX + toBase64url(body.subarray(AT.pin, AT.url)),
    ceremonyId: hashId<CeremonyId>(body.subarray(AT.ceremony, AT.pin)),
    index,
    seed: body.slice(AT.seed, AT.ceremony),
  };
}
