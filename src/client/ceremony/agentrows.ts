import { CEREMONY_FUNCTIONS, COLLECTORS, type OutputSpec, PARTICIPANTS } from "../../protocol/ceremony/model.ts";
import { OTP_ALGORITHMS } from "../../protocol/otpalgorithm.ts";
import { bool, nullable, oneOf, text, u53, uint } from "../../wire/codec.ts";
import { byKind, data, many, maybe, or, orNull, params, type Reader } from "../agentparams.ts";
import { type Row, row } from "../agentrow.ts";
import type { CeremonyClient, MixedEntropy, OtpRequester, OtpServer } from "../ceremonyapi.ts";

type InputOf<M extends keyof CeremonyClient> = Parameters<CeremonyClient[M]> extends [infer I] ? I : object;

/** Bounded so that nothing is endless; what they may hold the client itself checks. */
const word = text({ max: 2_048 });
const MIXED_MAX = 64;

const nothing = params<object>({});
const ceremony = params<{ readonly ceremony: string }>({ ceremony: word });
const key = params<{ readonly key: string }>({ key: word });
const algorithm = oneOf(OTP_ALGORITHMS);

const output = byKind<OutputSpec>({
  totp: params({ algorithm, digits: uint(), period: uint(), issuer: word, label: word }),
  hotp: params({ algorithm, digits: uint(), issuer: word, label: word }),
  bytes: params({ length: uint() }),
  hedge: nothing,
  secp256k1: nothing,
  p256: nothing,
  ed25519: nothing,
  rsa: params({ bits: uint() }),
  bip39: params({ words: uint() }),
  multisig: params({ threshold: uint(), network: oneOf(["mainnet", "testnet", "signet", "regtest"]) }),
}) as Reader<OutputSpec>;

const policy = params<InputOf<"ceremonyOpen">["policy"]>({ collect: oneOf(COLLECTORS), quorum: uint() });
const seat = params<InputOf<"ceremonyOpen">["seats"][number]>({ name: word, account: or(nullable(word), null) });
const mixed = params<MixedEntropy>({ kind: oneOf(["typed", "dice", "file"]), bytes: data });

const requester = params<OtpRequester>({ kind: oneOf(["account", "device"]), name: word });
const wants = many(oneOf(["code", "provision"]), 2) as Reader<InputOf<"otpGrant">["wants"]>;
const server = params<OtpServer>({ url: word, pin: word });
const code = text({ max: 64 });

/** What each method of ceremonies and one-time codes takes through the agent (docs/agent.md). */
export const CEREMONY_ROWS: { readonly [M in keyof CeremonyClient]: Row<InputOf<M>> } = {
  ceremonyOpen: row(
    params<InputOf<"ceremonyOpen">>({
      name: word,
      purpose: word,
      output,
      policy,
      seats: many(seat, PARTICIPANTS.max),
      minimum: or(nullable(uint()), null),
      commitMs: u53,
      revealMs: u53,
      again: or(nullable(word), null),
      replace: or(bool, false),
    }),
  ),
  ceremonyInvites: row(ceremony, () => "account"),
  ceremonyLook: row(params<InputOf<"ceremonyLook">>({ invite: word })),
  ceremonyJoin: row(
    params<InputOf<"ceremonyJoin">>({
      invite: or(nullable(word), null),
      ceremony: or(nullable(word), null),
      function: or(oneOf(CEREMONY_FUNCTIONS), "hkdf-sha512"),
      mixed: or(many(mixed, MIXED_MAX), []),
      suite: or(oneOf(["hpke", "rsa-oaep"]), "hpke"),
    }),
  ),
  ceremonyAdvance: row(
    params<InputOf<"ceremonyAdvance">>({ ceremony: word, passive: maybe(bool) }),
    () => [],
    ({ passive }) => passive !== true,
  ),
  // `keyhold status` tells what waits
  ceremonies: row(
    nothing,
    () => [],
    () => false,
  ),
  ceremony: row(
    params<InputOf<"ceremony">>({ ceremony: word, fresh: maybe(bool), passive: maybe(bool) }),
    () => [],
    ({ passive }) => passive !== true,
  ),
  ceremonyClose: row(params<InputOf<"ceremonyClose">>({ ceremony: word, abort: or(bool, false) })),
  ceremonyTranscript: row(ceremony),
  // secret, as the value is, and so is the participant's word that it may leave
  ceremonyOpening: row(ceremony, () => "account"),
  ceremonyOwn: row(params<InputOf<"ceremonyOwn">>({ ceremonyId: word })),
  ceremonyCollect: row(ceremony, () => "account"),
  ceremonyApprove: row(params<InputOf<"ceremonyApprove">>({ ceremony: word, releaseHex: word }), () => "account"),
  otpDevice: row(nothing),
  otpCreate: row(
    params<InputOf<"otpCreate">>({
      name: word,
      output: or(orNull(output) as Reader<InputOf<"otpCreate">["output"]>, null),
      from: or(nullable(word), null),
    }),
    ({ from }) => (from === null ? [] : [from]),
  ),
  otpEntries: row(nothing),
  otpGrant: row(
    params<InputOf<"otpGrant">>({
      key: word,
      to: requester,
      wants,
      perHour: or(nullable(uint()), null),
      untilMs: or(nullable(u53), null),
    }),
    () => "account",
  ),
  otpRevoke: row(
    params<InputOf<"otpRevoke">>({
      key: word,
      grantId: or(nullable(word), null),
      askId: or(nullable(word), null),
    }),
  ),
  otpHandouts: row(key),
  // a code, or the key itself
  otpRequest: row(
    params<InputOf<"otpRequest">>({
      key: word,
      want: or(oneOf(["code", "provision"]), "code"),
      server: or(orNull(server), null),
    }),
    () => "account",
  ),
  otpCheck: row(params<InputOf<"otpCheck">>({ key: word, code, next: or(nullable(code), null) })),
  otpTokenCreate: row(params<InputOf<"otpTokenCreate">>({ key: word, name: word, untilMs: u53 }), () => "account"),
  otpTokens: row(key),
  otpTokenRevoke: row(params<InputOf<"otpTokenRevoke">>({ key: word, tokenId: word })),
  otpVerify: row(params<InputOf<"otpVerify">>({ server, token: word, code })),
  otpSend: row(params<InputOf<"otpSend">>({ key: word, server }), () => "account"),
  otpReceive: row(params<InputOf<"otpReceive">>({ parcel: data })),
};
