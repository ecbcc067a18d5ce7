import { argon2id } from "@noble/hashes/argon2.js";
import { expand, extract } from "@noble/hashes/hkdf.js";
import { hmac } from "@noble/hashes/hmac.js";
import { sha512 } from "@noble/hashes/sha2.js";
import { randomBytes } from "@noble/hashes/utils.js";
import {
  type Bytes,
  deriveKeyPair,
  element,
  join,
  type KeyPair,
  multiply,
  number,
  oprfBlind,
  oprfFinalize,
  prefixed,
  publicKeyOf,
  randomScalar,
  text,
} from "./oprf-oracle.ts";

/**
 * An independent OPAQUE-3DH (RFC 9807) over ristretto255-SHA512 (RFC 9497, mode 0), written from the RFCs
 * for tests: a differential oracle for the shipped library, and the attacker's tool kit. Not constant-time.
 */

export {
  deriveKeyPair,
  hashToGroup,
  invert,
  multiply,
  oprfBlind,
  oprfFinalize,
  publicKeyOf,
  randomScalar,
} from "./oprf-oracle.ts";

/** Sizes of RFC 9807 §7 for this configuration, in bytes. */
export const OPAQUE_SIZES = {
  scalar: 32,
  element: 32,
  nonce: 32,
  hash: 64,
  envelope: 96,
  request: 32,
  response: 64,
  record: 192,
  ke1: 96,
  ke2: 320,
  ke3: 64,
} as const;

/** Key stretching: 64 bytes in, 64 bytes out. */
export type Ksf = (input: Bytes) => Bytes;

/** The KSF of the RFC's test vectors. */
export const identityKsf: Ksf = (input) => input;

/** Argon2id as the shipped library applies it: 16 zero bytes of salt, 64 bytes out. */
export function argon2idKsf(cost: { memoryKib: number; passes: number; lanes: number }): Ksf {
  return (input) =>
    argon2id(input, new Uint8Array(16), { m: cost.memoryKib, t: cost.passes, p: cost.lanes, dkLen: 64 });
}

/** Names bound into envelope and transcript; each defaults to the party's public key. */
export interface Identifiers {
  readonly client?: Bytes;
  readonly server?: Bytes;
}

/** What client and server must agree on beside the messages. */
export interface Terms {
  readonly ksf: Ksf;
  readonly identifiers?: Identifiers;
  /** Application context of the transcript; empty by default, as in the shipped library. */
  readonly context?: Bytes;
}

/** A server's long-term secrets. */
export interface Setup {
  readonly oprfSeed: Bytes;
  readonly privateKey: Bytes;
  readonly publicKey: Bytes;
}

function xor(a: Bytes, b: Bytes): Bytes {
  return a.map((byte, i) => byte ^ (b[i] ?? 0));
}

const same = (a: Bytes, b: Bytes): boolean => Buffer.compare(a, b) === 0;

/** Cuts a message into fields of the given lengths; the lengths must fit exactly. */
function cut(message: Bytes, ...lengths: readonly number[]): Bytes[] {
  let at = 0;
  const fields = lengths.map((length) => {
    at += length;
    return message.slice(at - length, at);
  });
  if (at !== message.length) throw new RangeError("opaque oracle: a message has the wrong length");
  return fields;
}

const field = (fields: readonly Bytes[], index: number): Bytes => fields[index] ?? new Uint8Array(0);

// ---- Keys and envelope (RFC 9807 §4) ----

const derivePair = (seed: Bytes): KeyPair => deriveKeyPair(seed, "OPAQUE-DeriveDiffieHellmanKeyPair");
const hkdfExpand = (prk: Bytes, info: Bytes, length: number): Bytes => expand(sha512, prk, info, length);
const hkdfExtract = (ikm: Bytes): Bytes => extract(sha512, ikm, new Uint8Array(0));

/** The OPRF key of one credential (RFC 9807 §5.2.2): 32 bytes. */
export function oprfKey(oprfSeed: Bytes, credentialId: Bytes): Bytes {
  const seed = hkdfExpand(oprfSeed, join(credentialId, text("OprfKey")), OPAQUE_SIZES.scalar);
  return deriveKeyPair(seed, "OPAQUE-DeriveKeyPair").privateKey;
}

/** What the client derives from password and OPRF answer (RFC 9807 §5.2.3): 64 bytes. */
export function randomizedPassword(password: Bytes, blind: Bytes, evaluated: Bytes, ksf: Ksf): Bytes {
  const output = oprfFinalize(password, blind, evaluated);
  return hkdfExtract(join(output, ksf(output)));
}

/** Masking key of a randomized password: 64 bytes. */
export function maskingKeyOf(randomized: Bytes): Bytes {
  return hkdfExpand(randomized, text("MaskingKey"), OPAQUE_SIZES.hash);
}

interface EnvelopeKeys {
  readonly authKey: Bytes;
  readonly exportKey: Bytes;
  readonly client: KeyPair;
}

/** The keys of RFC 9807 §4.1.2 for one envelope nonce. */
export function envelopeKeys(randomized: Bytes, nonce: Bytes): EnvelopeKeys {
  const seed = hkdfExpand(randomized, join(nonce, text("PrivateKey")), OPAQUE_SIZES.scalar);
  return {
    authKey: hkdfExpand(randomized, join(nonce, text("AuthKey")), OPAQUE_SIZES.hash),
    exportKey: hkdfExpand(randomized, join(nonce, text("ExportKey")), OPAQUE_SIZES.hash),
    client: derivePair(seed),
  };
}

function envelopeTag(keys: EnvelopeKeys, nonce: Bytes, serverKey: Bytes, ids: Identifiers = {}): Bytes {
  const server = ids.server ?? serverKey;
  const client = ids.client ?? keys.client.publicKey;
  return hmac(sha512, keys.authKey, join(nonce, serverKey, prefixed(server), prefixed(client)));
}

// ---- Registration (RFC 9807 §5) ----

/** A fresh server set-up, or the given parts of one. */
export function createSetup(fixed: { oprfSeed?: Bytes; privateKey?: Bytes } = {}): Setup {
  const privateKey = fixed.privateKey ?? randomScalar();
  return { oprfSeed: fixed.oprfSeed ?? randomBytes(64), privateKey, publicKey: publicKeyOf(privateKey) };
}

/** Reads the shipped library's set-up bytes: OPRF seed (64) ‖ private key (32) ‖ its fake key (32). */
export function setupFromLibrary(setup: Bytes): Setup {
  const fields = cut(setup, 64, 32, 32);
  return createSetup({ oprfSeed: field(fields, 0), privateKey: field(fields, 1) });
}

export interface RegistrationState {
  readonly password: Bytes;
  readonly blind: Bytes;
}

/** Client: CreateRegistrationRequest. */
export function startRegistration(
  password: Bytes,
  fixed: { blind?: Bytes } = {},
): { state: RegistrationState; request: Bytes } {
  const blind = fixed.blind ?? randomScalar();
  return { state: { password, blind }, request: oprfBlind(password, blind) };
}

/** Server: CreateRegistrationResponse. */
export function respondRegistration(setup: Setup, credentialId: Bytes, request: Bytes): Bytes {
  return join(multiply(oprfKey(setup.oprfSeed, credentialId), request), setup.publicKey);
}

/** Client: FinalizeRegistrationRequest. */
export function finishRegistration(
  state: RegistrationState,
  response: Bytes,
  terms: Terms,
  fixed: { envelopeNonce?: Bytes } = {},
): { record: Bytes; exportKey: Bytes; serverPublicKey: Bytes } {
  const fields = cut(response, 32, 32);
  const serverPublicKey = field(fields, 1);
  element(serverPublicKey);
  const randomized = randomizedPassword(state.password, state.blind, field(fields, 0), terms.ksf);
  const nonce = fixed.envelopeNonce ?? randomBytes(OPAQUE_SIZES.nonce);
  const keys = envelopeKeys(randomized, nonce);
  const tag = envelopeTag(keys, nonce, serverPublicKey, terms.identifiers);
  const record = join(keys.client.publicKey, maskingKeyOf(randomized), nonce, tag);
  return { record, exportKey: keys.exportKey, serverPublicKey };
}

/** A record for an account that does not exist (RFC 9807 §10.9). */
export function fakeRecord(fixed: { clientPublicKey?: Bytes; maskingKey?: Bytes } = {}): Bytes {
  return join(
    fixed.clientPublicKey ?? publicKeyOf(randomScalar()),
    fixed.maskingKey ?? randomBytes(OPAQUE_SIZES.hash),
    new Uint8Array(OPAQUE_SIZES.envelope),
  );
}

// ---- Login (RFC 9807 §6) ----

export interface LoginState {
  readonly password: Bytes;
  readonly blind: Bytes;
  readonly privateKeyshare: Bytes;
  readonly ke1: Bytes;
}

/** Client: GenerateKE1. */
export function startLogin(
  password: Bytes,
  fixed: { blind?: Bytes; nonce?: Bytes; keyshareSeed?: Bytes } = {},
): { state: LoginState; ke1: Bytes } {
  const blind = fixed.blind ?? randomScalar();
  const share = derivePair(fixed.keyshareSeed ?? randomBytes(32));
  const ke1 = join(oprfBlind(password, blind), fixed.nonce ?? randomBytes(32), share.publicKey);
  return { state: { password, blind, privateKeyshare: share.privateKey, ke1 }, ke1 };
}

/** The fields of a KE2. */
export interface Ke2 {
  readonly evaluated: Bytes;
  readonly maskingNonce: Bytes;
  readonly maskedResponse: Bytes;
  readonly serverNonce: Bytes;
  readonly serverKeyshare: Bytes;
  readonly serverMac: Bytes;
}

/** Takes a KE2 apart. */
export function parseKe2(ke2: Bytes): Ke2 {
  const fields = cut(ke2, 32, 32, 128, 32, 32, 64);
  return {
    evaluated: field(fields, 0),
    maskingNonce: field(fields, 1),
    maskedResponse: field(fields, 2),
    serverNonce: field(fields, 3),
    serverKeyshare: field(fields, 4),
    serverMac: field(fields, 5),
  };
}

/** Applies (or removes) the pad over server key ‖ envelope. */
export function mask(maskingKey: Bytes, maskingNonce: Bytes, content: Bytes): Bytes {
  return xor(hkdfExpand(maskingKey, join(maskingNonce, text("CredentialResponsePad")), content.length), content);
}

interface HandshakeKeys {
  readonly handshakeSecret: Bytes;
  readonly serverMacKey: Bytes;
  readonly clientMacKey: Bytes;
  readonly sessionKey: Bytes;
  readonly serverMac: Bytes;
  readonly clientMac: Bytes;
}

function expandLabel(secret: Bytes, label: string, context: Bytes): Bytes {
  const info = join(number(OPAQUE_SIZES.hash, 2), prefixed(text(`OPAQUE-${label}`), 1), prefixed(context, 1));
  return hkdfExpand(secret, info, OPAQUE_SIZES.hash);
}

interface Transcript {
  readonly context: Bytes;
  readonly clientIdentity: Bytes;
  readonly ke1: Bytes;
  readonly serverIdentity: Bytes;
  /** KE2 without its last field. */
  readonly ke2Inner: Bytes;
}

/** Preamble and key schedule of RFC 9807 §6.4. */
function handshake(ikm: Bytes, t: Transcript): HandshakeKeys {
  const preamble = join(
    text("OPAQUEv1-"),
    prefixed(t.context),
    prefixed(t.clientIdentity),
    t.ke1,
    prefixed(t.serverIdentity),
    t.ke2Inner,
  );
  const hash = sha512(preamble);
  const prk = hkdfExtract(ikm);
  const handshakeSecret = expandLabel(prk, "HandshakeSecret", hash);
  const serverMacKey = expandLabel(handshakeSecret, "ServerMAC", new Uint8Array(0));
  const clientMacKey = expandLabel(handshakeSecret, "ClientMAC", new Uint8Array(0));
  const serverMac = hmac(sha512, serverMacKey, hash);
  return {
    handshakeSecret,
    serverMacKey,
    clientMacKey,
    sessionKey: expandLabel(prk, "SessionKey", hash),
    serverMac,
    clientMac: hmac(sha512, clientMacKey, sha512(join(preamble, serverMac))),
  };
}

/** Server: GenerateKE2. `keys` holds the intermediate values that the RFC's vectors list. */
export function respondLogin(
  setup: Setup,
  credentialId: Bytes,
  record: Bytes,
  ke1: Bytes,
  terms: Omit<Terms, "ksf"> = {},
  fixed: { maskingNonce?: Bytes; nonce?: Bytes; keyshareSeed?: Bytes } = {},
): { ke2: Bytes; sessionKey: Bytes; expectedKe3: Bytes; keys: HandshakeKeys } {
  const request = cut(ke1, 32, 32, 32);
  const clientKeyshare = field(request, 2);
  const [clientPublicKey, maskingKey, envelope] = (() => {
    const fields = cut(record, 32, 64, 96);
    return [field(fields, 0), field(fields, 1), field(fields, 2)];
  })();
  const maskingNonce = fixed.maskingNonce ?? randomBytes(32);
  const share = derivePair(fixed.keyshareSeed ?? randomBytes(32));
  const ke2Inner = join(
    multiply(oprfKey(setup.oprfSeed, credentialId), field(request, 0)),
    maskingNonce,
    mask(maskingKey, maskingNonce, join(setup.publicKey, envelope)),
    fixed.nonce ?? randomBytes(32),
    share.publicKey,
  );
  const ikm = join(
    multiply(share.privateKey, clientKeyshare),
    multiply(setup.privateKey, clientKeyshare),
    multiply(share.privateKey, clientPublicKey),
  );
  const keys = handshake(ikm, {
    context: terms.context ?? new Uint8Array(0),
    clientIdentity: terms.identifiers?.client ?? clientPublicKey,
    ke1,
    serverIdentity: terms.identifiers?.server ?? setup.publicKey,
    ke2Inner,
  });
  return { ke2: join(ke2Inner, keys.serverMac), sessionKey: keys.sessionKey, expectedKe3: keys.clientMac, keys };
}

/**
 * Client: RecoverCredentials. Needs no secret of the session, so an attacker who got an OPRF answer for a guess
 * can run it against any KE2 of the account.
 *
 * @returns undefined when the envelope does not open.
 */
export function recoverCredentials(
  randomized: Bytes,
  ke2: Ke2,
  identifiers?: Identifiers,
): { client: KeyPair; serverPublicKey: Bytes; exportKey: Bytes } | undefined {
  const fields = cut(mask(maskingKeyOf(randomized), ke2.maskingNonce, ke2.maskedResponse), 32, 32, 64);
  const serverPublicKey = field(fields, 0);
  const nonce = field(fields, 1);
  const keys = envelopeKeys(randomized, nonce);
  if (!same(envelopeTag(keys, nonce, serverPublicKey, identifiers), field(fields, 2))) return undefined;
  return { client: keys.client, serverPublicKey, exportKey: keys.exportKey };
}

/**
 * Client: GenerateKE3.
 *
 * @returns undefined when the envelope does not open or the server's MAC is wrong.
 */
export function finishLogin(
  state: LoginState,
  ke2: Bytes,
  terms: Terms,
): { ke3: Bytes; sessionKey: Bytes; exportKey: Bytes; serverPublicKey: Bytes } | undefined {
  const parsed = parseKe2(ke2);
  const randomized = randomizedPassword(state.password, state.blind, parsed.evaluated, terms.ksf);
  const found = recoverCredentials(randomized, parsed, terms.identifiers);
  if (!found) return undefined;
  const ikm = join(
    multiply(state.privateKeyshare, parsed.serverKeyshare),
    multiply(state.privateKeyshare, found.serverPublicKey),
    multiply(found.client.privateKey, parsed.serverKeyshare),
  );
  const keys = handshake(ikm, {
    context: terms.context ?? new Uint8Array(0),
    clientIdentity: terms.identifiers?.client ?? found.client.publicKey,
    ke1: state.ke1,
    serverIdentity: terms.identifiers?.server ?? found.serverPublicKey,
    ke2Inner: ke2.slice(0, -64),
  });
  if (!same(keys.serverMac, parsed.serverMac)) return undefined;
  return {
    ke3: keys.clientMac,
    sessionKey: keys.sessionKey,
    exportKey: found.exportKey,
    serverPublicKey: found.serverPublicKey,
  };
}

/** Server: ServerFinish. @returns the session key, or undefined for a wrong KE3. */
export function acceptLogin(started: { sessionKey: Bytes; expectedKe3: Bytes }, ke3: Bytes): Bytes | undefined {
  return same(started.expectedKe3, ke3) ? started.sessionKey : undefined;
}
