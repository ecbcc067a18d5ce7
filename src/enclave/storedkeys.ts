import { equalBytes, wipe } from "../crypto/bytes.ts";
import { hpkeOpen, hpkeSeal } from "../crypto/hpke.ts";
import { verifySignature } from "../crypto/identity.ts";
import { macCanon } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import type { CeremonyKey, StoredKeyRecord } from "../protocol/ceremony/model.ts";
import { checkOutput, OTP_KEY_BYTES } from "../protocol/ceremony/output.ts";
import {
  broughtInfo,
  ceremonyKeyHash,
  createdKeyIdOf,
  movedKeyIdOf,
  verifyCeremonyKey,
} from "../protocol/ceremony/records.ts";
import { checkOtpKey, otpCode, otpUri } from "../protocol/otp.ts";
import { handoutInfo, parcelBytes, parcelInfo } from "../protocol/otphandout.ts";
import { encodeJson } from "../wire/codec.ts";
import { handoutText } from "../wire/otp/operations.ts";
import type { CeremonyKeys } from "./ceremonykeys.ts";
import type { EnclaveInput, EnclaveOutput } from "./frames.ts";
import { leftAlready, markArrived, movedMarks } from "./moves.ts";
import type { EnclaveParts, Handlers } from "./parts.ts";
import { releaseStored } from "./releases.ts";
import { type OtpOutput, openStored, otpKeyOf, otpOutputOf, type Stored, sealStored } from "./storedvalue.ts";

type StoredOperation =
  | "stored.release"
  | "stored.create"
  | "stored.code"
  | "stored.provision"
  | "stored.match"
  | "stored.send"
  | "stored.receive";

const TAG_BYTES = 16;

/** What an enclave does with values of the key store (docs/protocol.md §10.7, §10.8). */
export function createStoredHandlers(parts: EnclaveParts, ceremonyKeys: CeremonyKeys): Handlers<StoredOperation> {
  const { keys, random } = parts;
  const identity = keys.signer.publicKey;
  const moved = movedMarks(parts.journal);

  function tagOf({ keyId, version }: StoredKeyRecord, code: string): Uint8Array {
    return macCanon(keys.tagKey, "keyhold/v1/otp-tag", keyId, version, code).slice(0, TAG_BYTES);
  }

  /** Opens a one-time password for as long as the work takes. */
  async function withOtp<T>(
    stored: Stored,
    work: (output: OtpOutput, secret: Uint8Array) => T | Promise<T>,
  ): Promise<T> {
    const output = otpOutputOf(stored.record);
    const secret = openStored(keys, stored);
    try {
      return await work(output, secret);
    } finally {
      wipe(secret);
    }
  }

  async function handOut(
    record: StoredKeyRecord,
    want: "code" | "provision",
    { askId, recipient }: EnclaveInput<"stored.code">["ask"],
    text: { readonly value: string; readonly fromMs: number | null; readonly untilMs: number | null },
  ): Promise<Uint8Array> {
    const plain = new TextEncoder().encode(encodeJson(handoutText, text));
    try {
      return await hpkeSeal(recipient, handoutInfo(askId, want, record), plain, random);
    } finally {
      wipe(plain);
    }
  }

  async function create({ record, value }: EnclaveInput<"stored.create">): Promise<EnclaveOutput<"stored.create">> {
    const output = otpOutputOf(record);
    demandNew(record);
    checkOutput(output, 0);
    const secret = value ? await bring(record, output, value) : random(OTP_KEY_BYTES[output.algorithm]);
    try {
      checkOtpKey(otpKeyOf(output, secret, 0));
      return { stored: sealStored(keys, record, secret, random) };
    } finally {
      wipe(secret);
    }
  }

  function demandNew({ enclave, ceremonyId, version }: StoredKeyRecord): void {
    if (equalBytes(enclave, identity) && ceremonyId === null && version === 1) return;
    throw new Fault("bad_input", "a new one-time password is the first version of a key of this enclave");
  }

  async function bring(
    record: StoredKeyRecord,
    output: OtpOutput,
    { sealed, key, nonce }: NonNullable<EnclaveInput<"stored.create">["value"]>,
  ): Promise<Uint8Array> {
    if (record.keyId !== createdKeyIdOf(identity, nonce))
      throw new Fault("bad_input", "the key's id is not of its nonce");
    const { hpke } = await ceremonyKeys.open(key);
    return hpkeOpen(hpke, broughtInfo(key.statement.key, record.name, output, nonce), sealed);
  }

  async function code({ stored, counter, ask }: EnclaveInput<"stored.code">): Promise<EnclaveOutput<"stored.code">> {
    const { record } = stored;
    moved.demandHere(record.keyId);
    return withOtp(stored, async (output, secret) => {
      const window = windowOf(output, counter);
      const value = codeOf(output, secret, counter);
      const sealed = await handOut(record, "code", ask, { value, ...window });
      return { sealed, tag: tagOf(record, value) };
    });
  }

  async function match(input: EnclaveInput<"stored.match">): Promise<EnclaveOutput<"stored.match">> {
    const { stored, code: given, from, span } = input;
    if (!Number.isSafeInteger(from + span)) throw new Fault("bad_input", "a counter is below 2^53");
    const bytes = new TextEncoder().encode(given);
    moved.demandHere(stored.record.keyId, leftAlready);
    return withOtp(stored, (output, secret) => {
      const tag = tagOf(stored.record, given);
      for (let counter = from; counter < from + span; counter++) {
        const own = new TextEncoder().encode(codeOf(output, secret, counter));
        if (equalBytes(own, bytes)) return { tag, counter };
      }
      return { tag, counter: null };
    });
  }

  async function provision({ stored, counter, ask }: EnclaveInput<"stored.provision">) {
    demandNoQuorum(stored.record);
    moved.demandHere(stored.record.keyId);
    return withOtp(stored, async (output, secret) => {
      const value = otpUri(checkOtpKey(otpKeyOf(output, secret, output.kind === "hotp" ? counter : 0)));
      return { sealed: await handOut(stored.record, "provision", ask, { value, fromMs: null, untilMs: null }) };
    });
  }

  async function send({
    stored,
    to,
    counter: from,
  }: EnclaveInput<"stored.send">): Promise<EnclaveOutput<"stored.send">> {
    const { record } = stored;
    demandNoQuorum(record);
    const key = verifyCeremonyKey(to);
    return withOtp(stored, async (_, secret) => {
      // durable before the parcel leaves: from now on nothing of this key is made here
      const counter = moved.leave(record.keyId, key.server, from);
      const sealed = await hpkeSeal(key.sealing, parcelInfo(record, key, counter), secret, random);
      return { counter, sealed, signature: keys.signer.sign(parcelBytes(record, key, counter, sealed)) };
    });
  }

  async function receive(input: EnclaveInput<"stored.receive">): Promise<EnclaveOutput<"stored.receive">> {
    const { parcel, key, receiver } = input;
    const { record, counter, sealed, signature } = parcel;
    const from = verifyCeremonyKey(parcel.from);
    const to = verifyCeremonyKey(parcel.to);
    otpOutputOf(record);
    if (!equalBytes(record.enclave, from.enclave) || !sameKey(to, key.statement.key)) throw strayed();
    if (!verifySignature(from.enclave, parcelBytes(record, to, counter, sealed), signature)) throw strayed();
    const { hpke } = await ceremonyKeys.open(key);
    const secret = await hpkeOpen(hpke, parcelInfo(record, to, counter), sealed);
    try {
      // never the id or version that a ceremony of this enclave gives: whoever wrote the parcel chose those in it
      const own: StoredKeyRecord = { ...record, enclave: identity, keyId: movedKeyIdOf(identity, record), version: 1 };
      checkOtpKey(otpKeyOf(otpOutputOf(own), secret, counter));
      markArrived(parts.journal, own.keyId, receiver);
      return { stored: sealStored(keys, own, secret, random) };
    } finally {
      wipe(secret);
    }
  }

  return {
    "stored.release": (input) => releaseStored(parts, input),
    "stored.create": create,
    "stored.code": code,
    "stored.provision": provision,
    "stored.match": match,
    "stored.send": send,
    "stored.receive": receive,
  };
}

const strayed = () => new Fault("integrity", "this parcel is not for this server, or was changed");

const sameKey = (a: CeremonyKey, b: CeremonyKey): boolean => equalBytes(ceremonyKeyHash(a), ceremonyKeyHash(b));

/** Where participants must agree before a value leaves, it leaves with their signatures alone. @throws Fault denied */
function demandNoQuorum({ policy }: StoredKeyRecord): void {
  if (policy.quorum === 0) return;
  throw new Fault("denied", "this value leaves the store by the agreement of its participants alone");
}

/** The code of a counter; a `totp` counts steps (RFC 6238 §4.2). */
function codeOf(output: OtpOutput, secret: Uint8Array, counter: number): string {
  return otpCode({ ...otpKeyOf(output, secret, counter), kind: "hotp" }, 0).code;
}

/** When a code is good. @throws Fault bad_input for a step beyond what can be counted in milliseconds */
function windowOf(output: OtpOutput, counter: number): { fromMs: number | null; untilMs: number | null } {
  if (output.kind === "hotp") return { fromMs: null, untilMs: null };
  const periodMs = output.period * 1_000;
  const untilMs = (counter + 1) * periodMs;
  if (!Number.isSafeInteger(untilMs)) throw new Fault("bad_input", "this step is beyond all time");
  return { fromMs: counter * periodMs, untilMs };
}
