import { equalBytes, wipe } from "../../crypto/bytes.ts";
import { hpkeKeyPair, hpkeOpen } from "../../crypto/hpke.ts";
import { type Signer, signerFromSeed } from "../../crypto/identity.ts";
import { Fault } from "../../errors.ts";
import { asHashId, isHashId, type StoredKeyId } from "../../ids.ts";
import { digestWords } from "../../protocol/federation/words.ts";
import { handoutInfo, type OtpAsk, otpAskIdOf, signOtpAsk } from "../../protocol/otphandout.ts";
import { decodeJson } from "../../wire/codec.ts";
import type { OutputOf } from "../../wire/operations.ts";
import { handoutText } from "../../wire/otp/operations.ts";
import { type Ground, lie } from "../ceremony/ground.ts";
import { CEREMONY_MAX, type HeldAsk } from "../ceremony/held.ts";
import { isRefusal } from "../ceremony/organising.ts";
import type { CeremonyClient, OtpHanded } from "../ceremonyapi.ts";
import { type AskClaim, claimAsk } from "./askclaim.ts";
import { entryNamed } from "./entries.ts";

type Handed = OutputOf<"otp.request">;
type RequestInput = Parameters<CeremonyClient["otpRequest"]>[0];

const SEED_BYTES = 32;

/** This vault's key as a device, drawn at the first use. */
export async function deviceSigner(ground: Ground): Promise<Signer> {
  if (ground.held().otpDeviceSeed === null) {
    const seed = ground.random(SEED_BYTES);
    await ground.change((held) => ({ ...held, otpDeviceSeed: held.otpDeviceSeed ?? seed }));
  }
  const seed = ground.held().otpDeviceSeed;
  if (seed) return signerFromSeed(seed);
  throw new Fault("internal", "the device's key was not kept");
}

/** The same as an issuer enrols it. */
export async function deviceInfo(ground: Ground) {
  const { publicKey } = await deviceSigner(ground);
  return { keyHex: publicKey.toHex(), words: digestWords(publicKey) };
}

/** Whom a request is made of, and as whom. */
interface Counter {
  readonly url: string;
  readonly identity: Uint8Array;
  /** Account id, or the device's key in hexadecimal. */
  readonly requester: string;
  readonly device: boolean;
  send(ask: OtpAsk): Promise<Handed>;
}

async function counterAt(ground: Ground, server: RequestInput["server"]): Promise<Counter> {
  if (server === null) {
    const { identity, userId } = ground.account();
    const send = (ask: OtpAsk) => ground.call("otp.request", { ask });
    return { url: ground.place?.url ?? "", identity, requester: userId, device: false, send };
  }
  const device = await deviceSigner(ground);
  const asking = await ground.at(server);
  return {
    ...{ url: asking.url, identity: asking.identity, requester: device.publicKey.toHex(), device: true },
    send: (ask) => asking.ask("otp.request.device", signOtpAsk(device, ask)),
  };
}

const sameAsk = (a: HeldAsk, b: HeldAsk): boolean => equalBytes(a.ask.nonce, b.ask.nonce);

/** An ask that is to be sent, and whether it was drawn for this call. */
interface Prepared {
  readonly made: HeldAsk;
  readonly fresh: boolean;
  /** Null for a provisioning, whose ask stays the same for good. */
  readonly claim: AskClaim | null;
}

/**
 * The ask whose answer was lost, or a new one; in the vault before it is sent. An ask for whose answer another call
 * waits is that one's alone: two calls at once are handed two codes.
 */
async function prepare(ground: Ground, at: Counter, keyId: StoredKeyId, want: OtpAsk["want"]): Promise<Prepared> {
  const waits = ({ ask, device }: HeldAsk) =>
    ask.keyId === keyId && ask.want === want && device === at.device && equalBytes(ask.server, at.identity);
  const recipientSeed = ground.random(SEED_BYTES);
  const { publicKey: recipient } = await hpkeKeyPair(recipientSeed);
  const nonce = ground.random(SEED_BYTES);
  const ask: OtpAsk = { server: at.identity, keyId, want, recipient, nonce, atMs: ground.now() };
  const drawn: HeldAsk = { ask, device: at.device, recipientSeed };
  const claim = (one: HeldAsk) => (want === "code" ? claimAsk(ground.open.box.path, one.ask.nonce) : null);
  const found: { now: Prepared | null } = { now: null };
  try {
    // under the vault's lock, with its newest generation: whoever has an answer has taken its ask out already
    await ground.change((held) => {
      found.now?.claim?.end(false);
      for (const made of held.otpAsks.filter(waits)) {
        const mine = claim(made);
        if (mine === null && want === "code") continue;
        found.now = { made, fresh: false, claim: mine };
        return held;
      }
      found.now = { made: drawn, fresh: true, claim: claim(drawn) };
      return { ...held, otpAsks: [...held.otpAsks, drawn].slice(-CEREMONY_MAX.asks) };
    });
  } catch (error) {
    found.now?.claim?.end(true);
    throw error;
  }
  if (found.now) return found.now;
  throw new Fault("internal", "the request was not kept");
}

function forget(ground: Ground, made: HeldAsk): Promise<void> {
  return ground.change((held) => ({ ...held, otpAsks: held.otpAsks.filter((one) => !sameAsk(one, made)) }));
}

/** Says how to go on with a key that has left: its server tells pin and id, and knows no URL. */
function sayWhere(error: Fault): Fault {
  const [, pin, id] = /with pin (sha256:[\w-]{43}) under the id ([0-9a-f]{64})/.exec(error.message) ?? [];
  if (error.code !== "conflict" || pin === undefined || id === undefined) return error;
  return new Fault("conflict", error.message, {
    hint: `its issuer knows the URL and lets you ask there, with an account of that server or as a device: keyhold otp request ${id} --server URL --pin ${pin}`,
    ...(error.requestId !== undefined && { requestId: error.requestId }),
  });
}

/** Opens what was handed out, and holds it to what was asked. @throws Fault integrity */
async function opened(at: Counter, made: HeldAsk, handed: Handed, nowMs: number): Promise<OtpHanded> {
  const { ask } = made;
  const { askId, record, sealed, expiresAtMs } = handed;
  if (askId !== otpAskIdOf(ask, at.requester)) throw lie(at.url, "an answer to another request");
  if (record.keyId !== ask.keyId) throw lie(at.url, "a code of another key than was asked for");
  const pair = await hpkeKeyPair(made.recipientSeed);
  let plain: Uint8Array | undefined;
  try {
    plain = await hpkeOpen(pair, handoutInfo(askId, ask.want, record), sealed);
    const { value, fromMs } = decodeJson(handoutText, plain);
    if (ask.want === "provision" ? !value.startsWith("otpauth://") : !/^[0-9]{6,10}$/.test(value)) {
      throw new Fault("integrity", "it is not what was asked for");
    }
    const from = fromMs === null || fromMs <= nowMs ? null : new Date(fromMs).toISOString();
    return { askId, keyId: ask.keyId, name: record.name, value, expiresAt: new Date(expiresAtMs).toISOString(), from };
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw lie(
      at.url,
      "a hand-out that is not for this request",
      error.code === "integrity" ? error.message : undefined,
    );
  } finally {
    wipe(plain);
  }
}

/**
 * Asks for one code, or the whole key. An answer that was lost is asked for again, with the same bytes; one that came
 * too late is given up for a new one.
 */
export async function requestCode(ground: Ground, { key, want, server }: RequestInput): Promise<OtpHanded> {
  if (server !== null && !isHashId(key)) {
    throw new Fault("bad_input", "at another server a key is named by its whole id: 64 hexadecimal digits", {
      hint: "its issuer sees all of it with: keyhold otp entries --json",
    });
  }
  const keyId = isHashId(key) ? asHashId<StoredKeyId>(key) : (await entryNamed(ground, key, "any")).record.keyId;
  const at = await counterAt(ground, server);
  for (let last = false; ; last = true) {
    const prepared = await prepare(ground, at, keyId, want);
    const { made, claim } = prepared;
    const fresh = prepared.fresh || last;
    let settled = false;
    const settle = async () => {
      await forget(ground, made);
      settled = true;
    };
    try {
      const handed = await at.send(made.ask);
      const done = await opened(at, made, handed, ground.now());
      // a provisioning is for good: who lost it asks again, and gets the same
      if (want === "code") await settle();
      if (fresh || want === "provision" || Date.parse(done.expiresAt) > ground.now()) return done;
    } catch (error) {
      if (!isRefusal(error)) throw error;
      await settle();
      if (!fresh && error.code === "stale") continue;
      throw sayWhere(error);
    } finally {
      claim?.end(settled);
    }
  }
}
