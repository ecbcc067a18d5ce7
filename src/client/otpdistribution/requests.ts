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

/** The ask that has no answer yet, or a new one; in the vault before it is sent. */
async function prepare(ground: Ground, at: Counter, keyId: StoredKeyId, want: OtpAsk["want"]) {
  const waits = ({ ask, device }: HeldAsk) =>
    ask.keyId === keyId && ask.want === want && device === at.device && equalBytes(ask.server, at.identity);
  const known = ground.held().otpAsks.find(waits);
  if (known) return { made: known, fresh: false };
  const recipientSeed = ground.random(SEED_BYTES);
  const { publicKey: recipient } = await hpkeKeyPair(recipientSeed);
  const nonce = ground.random(SEED_BYTES);
  const ask: OtpAsk = { server: at.identity, keyId, want, recipient, nonce, atMs: ground.now() };
  const fresh: HeldAsk = { ask, device: at.device, recipientSeed };
  await ground.change((held) =>
    held.otpAsks.some(waits) ? held : { ...held, otpAsks: [...held.otpAsks, fresh].slice(-CEREMONY_MAX.asks) },
  );
  const made = ground.held().otpAsks.find(waits) ?? fresh;
  return { made, fresh: sameAsk(made, fresh) };
}

function forget(ground: Ground, made: HeldAsk): Promise<void> {
  return ground.change((held) => ({ ...held, otpAsks: held.otpAsks.filter((one) => !sameAsk(one, made)) }));
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
    return { askId, name: record.name, value, expiresAt: new Date(expiresAtMs).toISOString(), from };
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
      hint: "the issuer sees it with: keyhold otp entries",
    });
  }
  const keyId = isHashId(key) ? asHashId<StoredKeyId>(key) : (await entryNamed(ground, key, "any")).record.keyId;
  const at = await counterAt(ground, server);
  for (let last = false; ; last = true) {
    const { made, fresh: drawn } = await prepare(ground, at, keyId, want);
    const fresh = drawn || last;
    let handed: Handed;
    try {
      handed = await at.send(made.ask);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      await forget(ground, made);
      if (!fresh && error.code === "stale") continue;
      throw error;
    }
    const done = await opened(at, made, handed, ground.now());
    // a provisioning is for good: who lost it asks again, and gets the same
    if (want === "code") await forget(ground, made);
    if (fresh || want === "provision" || Date.parse(done.expiresAt) > ground.now()) return done;
  }
}
