import type { OtpAskId } from "../../ids.ts";
import { DEFAULTS } from "../../protocol/defaults.ts";
import { accountName } from "../accountname.ts";
import {
  outputSpec,
  sealedOut,
  signedCeremonyKey,
  storedKeyId,
  storedKeyRecord,
  storeName,
} from "../ceremony/records.ts";
import { bool, described, hashIdOf, list, nullable, oneOf, struct, tagged, text, u53, uint } from "../codec.ts";
import { op } from "../operation.ts";
import { hash32, signature } from "../records.ts";

const empty = struct({});
const askId = hashIdOf<OtpAskId>();
/** 16 random bytes that name a grant or a token, hexadecimal. */
const shortName = text({ min: 32, max: 32, pattern: /^[0-9a-f]{32}$/ });
/** Hash of a token, hexadecimal. */
const tokenName = text({ min: 64, max: 64, pattern: /^[0-9a-f]{64}$/ });
/** Digits as a person types them. */
const code = text({ min: 6, max: 10, pattern: /^[0-9]{6,10}$/ });

/** What a grant allows. */
export const WANTS = ["code", "provision"] as const;
/** What came of a code. */
export const VERDICTS = ["accepted", "used", "expired", "revoked", "unknown"] as const;
export const HANDOUT_STATES = ["open", "used", "expired", "revoked", "provisioned"] as const;

/** What one requester asks. */
export const otpAsk = struct({
  server: hash32,
  keyId: storedKeyId,
  want: oneOf(WANTS),
  recipient: hash32,
  nonce: hash32,
  atMs: u53,
});

/** Who may ask: an account of this server, or a device by its key. */
const requester = tagged("kind", { account: struct({ account: accountName }), device: struct({ key: hash32 }) });

const grant = struct({
  grantId: shortName,
  to: requester,
  wants: list(oneOf(WANTS), { min: 1, max: 2 }),
  /** Hand-outs in any hour; null for the default. */
  perHour: nullable(uint(1_000_000, 1)),
  untilMs: nullable(u53),
  createdAtMs: u53,
});

/** A key as its issuer or a requester sees it. */
const entryView = struct({
  record: storedKeyRecord,
  /** The caller issues it; otherwise it may ask. */
  own: bool,
  status: oneOf(["active", "revoked", "moved"]),
  /** Pin of the server that has it now; null where it is here. */
  movedTo: nullable(hash32),
  /** Next one of a `hotp`; null for others, and for requesters. */
  counter: nullable(u53),
  /** A requester has the key in its own authenticator, for good. */
  provisioned: bool,
  /** All, for the issuer; the caller's own for a requester. */
  grants: list(grant, { max: 256 }),
});

const handout = struct({
  askId,
  to: requester,
  want: oneOf(WANTS),
  state: oneOf(HANDOUT_STATES),
  atMs: u53,
  expiresAtMs: u53,
  usedAtMs: nullable(u53),
});

const handed = struct({
  askId,
  /** To the recipient key of the ask: {@link handoutText}. */
  sealed: sealedOut,
  record: storedKeyRecord,
  atMs: u53,
  expiresAtMs: u53,
});

/** What is under the seal of a hand-out. */
export const handoutText = struct({
  /** The code; or the whole otpauth:// URI. */
  value: text({ min: 6, max: 8_192 }),
  /** When the code becomes and ceases to be good; null for a `hotp`, and for a provisioning. */
  fromMs: nullable(u53),
  untilMs: nullable(u53),
});

/** A key on its way to another server's store. */
export const parcel = struct({
  record: storedKeyRecord,
  from: signedCeremonyKey,
  to: signedCeremonyKey,
  counter: u53,
  sealed: sealedOut,
  /** By the enclave that let it go. */
  signature,
});

/** Operations of the key store and the distribution server (docs/protocol.md §10.7, §10.8). */
export const otpOperations = {
  /** Puts a one-time password into the store without a ceremony: drawn by the enclave, or sealed to it. */
  "otp.create": op(
    "session",
    false,
    struct({
      name: storeName,
      output: outputSpec,
      nonce: hash32,
      /** Number of the key that it is sealed to, and the counter that comes next; null: the enclave draws the value. */
      value: nullable(struct({ keyNumber: uint(0xffff_ffff, 1), sealed: sealedOut, counter: u53 })),
    }),
    entryView,
  ),
  /** Keys that the caller issues, and those of which it may have codes; by name. */
  "otp.entries": op(
    "session",
    false,
    struct({ after: nullable(storedKeyId) }),
    struct({ items: list(entryView, { max: 16 }), more: bool }),
  ),
  "otp.grant": op(
    "session",
    false,
    struct({
      keyId: storedKeyId,
      to: requester,
      wants: list(oneOf(WANTS), { min: 1, max: 2 }),
      perHour: nullable(uint(1_000_000, 1)),
      untilMs: nullable(u53),
    }),
    entryView,
  ),
  /** A grant, one hand-out, or the whole key: none of it comes back. */
  "otp.revoke": op(
    "session",
    false,
    struct({ keyId: storedKeyId, grantId: nullable(shortName), askId: nullable(askId) }),
    entryView,
  ),
  /** Who was handed what; newest first, for the issuer. */
  "otp.handouts": op(
    "session",
    false,
    struct({ keyId: storedKeyId, after: nullable(askId) }),
    struct({ items: list(handout, { max: 64 }), more: bool }),
  ),
  /** One code or one provisioning: the same ask, the same sealed bytes. */
  "otp.request": op("session", false, struct({ ask: otpAsk }), handed),
  "otp.request.device": op("none", false, struct({ ask: otpAsk, device: hash32, signature }), handed),
  /** Accepts a code once and says why not; with a second one, the counters of RFC 4226 §7.4 are found again. */
  "otp.check": op(
    "session",
    false,
    struct({ keyId: storedKeyId, code, next: nullable(code) }),
    struct({ verdict: oneOf(VERDICTS), handedTo: nullable(requester) }),
  ),
  "otp.token.create": op(
    "session",
    false,
    struct({ keyId: storedKeyId, name: storeName, expiresAtMs: u53 }),
    struct({ tokenId: tokenName, token: text({ min: 1, max: 128 }) }),
  ),
  "otp.token.list": op(
    "session",
    false,
    struct({ keyId: storedKeyId }),
    struct({
      items: list(struct({ tokenId: tokenName, name: storeName, createdAtMs: u53, expiresAtMs: u53 }), {
        max: DEFAULTS.tokensPerWorkspace,
      }),
    }),
  ),
  "otp.token.revoke": op("session", false, struct({ keyId: storedKeyId, tokenId: tokenName }), empty),
  /** Lets a key go to another server's store: from then on it has no codes here; again, the same parcel. */
  "otp.send": op("session", false, struct({ keyId: storedKeyId, to: signedCeremonyKey }), parcel),
  "otp.receive": op("session", false, struct({ parcel }), entryView),
  /** For relying services with a token: yes or no. */
  "otp.verify": op(
    "token",
    false,
    struct({ code: described(code, "The code as the person typed it: 6 to 10 digits.") }),
    struct({ accepted: described(bool, "True once for each code.") }),
  ),
} as const;
