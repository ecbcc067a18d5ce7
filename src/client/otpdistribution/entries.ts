import { wipe } from "../../crypto/bytes.ts";
import { hpkeSeal } from "../../crypto/hpke.ts";
import { Fault } from "../../errors.ts";
import { asHashId, isHashId, type OtpAskId, type StoredKeyId } from "../../ids.ts";
import type { OutputSpec } from "../../protocol/ceremony/model.ts";
import { broughtInfo } from "../../protocol/ceremony/records.ts";
import { type OtpKey, parseOtpUri } from "../../protocol/otp.ts";
import type { InputOf, OutputOf } from "../../wire/operations.ts";
import { pinOf } from "../../wire/pin.ts";
import { type Ground, newestKey } from "../ceremony/ground.ts";
import { checkKeyName } from "../ceremony/wording.ts";
import type { CeremonyClient, OtpEntryInfo, OtpHandoutInfo, OtpRequester } from "../ceremonyapi.ts";
import { everyPage, oneOf } from "../keyring/ground.ts";
import { getSecret } from "../reading.ts";

type Entry = OutputOf<"otp.grant">;
type OtpOutput = Extract<OutputSpec, { kind: "totp" | "hotp" }>;
type CreateInput = Parameters<CeremonyClient["otpCreate"]>[0];

const NONCE_BYTES = 32;
const DEVICE_KEY = /^[0-9a-f]{64}$/i;

const iso = (ms: number): string => new Date(ms).toISOString();

/** Whom a key is for, as the client tells of it. */
export function requesterInfo(to: Entry["grants"][number]["to"]): OtpRequester {
  return to.kind === "account" ? { kind: to.kind, name: to.account } : { kind: to.kind, name: to.key.toHex() };
}

/** How the wire names a requester. @throws Fault bad_input */
export function requesterOf({ kind, name }: OtpRequester): InputOf<"otp.grant">["to"] {
  if (kind === "account") return { kind, account: name };
  if (DEVICE_KEY.test(name)) return { kind, key: Uint8Array.fromHex(name) };
  throw new Fault("bad_input", "a device is named by its key: 64 hexadecimal digits", {
    hint: "keyhold otp device shows it there",
  });
}

/** What the record says of who issues it: the issuer's own word, null where it says nothing. */
const issuerOf = ({ output }: Entry["record"]): string | null => ("issuer" in output && output.issuer) || null;

/** A key of the store as the client tells of it. @throws Fault integrity for what is no one-time password */
export function entryInfo(ground: Pick<Ground, "place">, entry: Entry): OtpEntryInfo {
  const { record, own, status, movedTo, counter, provisioned, grants } = entry;
  const { kind } = record.output;
  if (kind !== "totp" && kind !== "hotp") {
    throw new Fault("integrity", "the server shows a key that is no one-time password among those", {
      culprits: [ground.place?.url ?? ""],
    });
  }
  return {
    ...{ keyId: record.keyId, name: record.name, version: record.version, kind, own, status },
    movedTo: movedTo && pinOf(movedTo),
    ...{ counter, provisioned, ceremonyId: record.ceremonyId, issuer: issuerOf(record) },
    grants: grants.map(({ grantId, to, wants, perHour, untilMs }) => ({
      ...{ grantId, to: requesterInfo(to), wants, perHour },
      until: untilMs === null ? null : iso(untilMs),
    })),
  };
}

/** All keys that the account issues, or of which it may have codes. */
export function allEntries(ground: Ground): Promise<readonly Entry[]> {
  return everyPage({ url: ground.place?.url ?? "" }, (last: Entry | null) =>
    ground.call("otp.entries", { after: last?.record.keyId ?? null }),
  );
}

/** The key that a name, an id or the beginning of one means; of several of one name, the one in use. */
export async function entryNamed(ground: Ground, wanted: string, whose: "own" | "any" = "own"): Promise<Entry> {
  const all = (await allEntries(ground)).filter(({ own }) => own || whose === "any");
  const active = all.filter(({ record, status }) => record.name === wanted && status === "active");
  const [only, another] = active;
  if (only && !another) return only;
  return oneOf(all, wanted, {
    what: whose === "own" ? "one-time password of yours in the store" : "one-time password for you",
    name: ({ record }) => record.name,
    id: ({ record }) => record.keyId,
    shown: ({ record }) => [record.name, issuerOf(record)].filter((part) => part !== null).join(" of "),
    hint:
      whose === "own"
        ? "keyhold otp entries lists all"
        : "keyhold otp entries lists all; its issuer lets you ask: keyhold otp issue NAME --to ACCOUNT",
  });
}

/** The id of an own key; a whole id is not looked up. */
export async function ownKeyId(ground: Ground, wanted: string): Promise<StoredKeyId> {
  if (isHashId(wanted)) return asHashId<StoredKeyId>(wanted);
  return (await entryNamed(ground, wanted)).record.keyId;
}

function outputOf({ kind, algorithm, digits, period, issuer, label }: OtpKey): OtpOutput {
  return kind === "totp"
    ? { kind, algorithm, digits, period, issuer, label }
    : { kind, algorithm, digits, issuer, label };
}

/** A one-time password of this vault. @throws Fault bad_input for another secret */
async function secretOtp(ground: Ground, name: string): Promise<OtpKey> {
  const got = await getSecret(ground.open, { name, version: null, reveal: true, fresh: false, save: false });
  try {
    if ((got.info.type !== "totp" && got.info.type !== "hotp") || got.value === null) {
      throw new Fault("bad_input", `"${name}" is no one-time password`, { hint: "keyhold list --type totp" });
    }
    return parseOtpUri(new TextDecoder().decode(got.value));
  } finally {
    wipe(got.value ?? undefined);
  }
}

/** Seals a key that its owner brings to the store. */
async function brought(ground: Ground, name: string, key: OtpKey, nonce: Uint8Array) {
  const { key: to } = await newestKey(ground, await ground.home());
  const info = broughtInfo(to, name, outputOf(key), nonce);
  const sealed = await hpkeSeal(to.sealing, info, key.secret, ground.random);
  return { keyNumber: to.number, sealed, counter: key.kind === "hotp" ? key.counter : 0 };
}

/** Puts a one-time password into the store: drawn there, or of a secret of this vault. */
export async function createEntry(ground: Ground, { name, output, from }: CreateInput): Promise<OtpEntryInfo> {
  ground.account();
  if ((output === null) === (from === null)) {
    throw new Fault("bad_input", "say what the store is to draw, or which secret of this vault it gets");
  }
  checkKeyName(name);
  const nonce = ground.random(NONCE_BYTES);
  if (output) return entryInfo(ground, await ground.call("otp.create", { name, output, nonce, value: null }));
  const key = await secretOtp(ground, from ?? "");
  try {
    const value = await brought(ground, name, key, nonce);
    return entryInfo(ground, await ground.call("otp.create", { name, output: outputOf(key), nonce, value }));
  } finally {
    wipe(key.secret);
  }
}

/** Allows somebody to have codes, or the key, of a key. */
export async function grantEntry(ground: Ground, input: Parameters<CeremonyClient["otpGrant"]>[0]) {
  const to = requesterOf(input.to);
  if (input.wants.length === 0) throw new Fault("bad_input", "a grant is for codes, the whole key, or both");
  const keyId = await ownKeyId(ground, input.key);
  const { wants, perHour, untilMs } = input;
  return entryInfo(ground, await ground.call("otp.grant", { keyId, to, wants, perHour, untilMs }));
}

/** Takes back a grant, a hand-out, or the key. */
export async function revokeEntry(ground: Ground, input: Parameters<CeremonyClient["otpRevoke"]>[0]) {
  const { grantId } = input;
  if (input.askId !== null && !isHashId(input.askId)) {
    throw new Fault("bad_input", "a hand-out is named by its id: 64 hexadecimal digits", {
      hint: "keyhold otp handouts shows them",
    });
  }
  const askId = input.askId === null ? null : asHashId<OtpAskId>(input.askId);
  const keyId = await ownKeyId(ground, input.key);
  return entryInfo(ground, await ground.call("otp.revoke", { keyId, grantId, askId }));
}

/** Who was handed what of a key, newest first. */
export async function handoutsOf(ground: Ground, wanted: string): Promise<readonly OtpHandoutInfo[]> {
  type Handout = OutputOf<"otp.handouts">["items"][number];
  const keyId = await ownKeyId(ground, wanted);
  const items = await everyPage({ url: ground.place?.url ?? "" }, (last: Handout | null) =>
    ground.call("otp.handouts", { keyId, after: last?.askId ?? null }),
  );
  return items.map(({ askId, to, want, state, atMs, expiresAtMs, usedAtMs }) => ({
    ...{ askId, to: requesterInfo(to), want, state, at: iso(atMs), expiresAt: iso(expiresAtMs) },
    usedAt: usedAtMs === null ? null : iso(usedAtMs),
  }));
}
