import { equalBytes, wipe } from "../../crypto/bytes.ts";
import type { Hedge } from "../../crypto/hedge.ts";
import { hpkeKeyPair } from "../../crypto/hpke.ts";
import { Fault } from "../../errors.ts";
import type { Certificate } from "../../protocol/federation/certificate.ts";
import { signEcdsa } from "../../protocol/federation/ecdsa.ts";
import type { SignForm } from "../../protocol/federation/kinds.ts";
import type { Round, SignedMessage } from "../../protocol/federation/message.ts";
import { nonceBlameHolds } from "../../protocol/federation/noncesblame.ts";
import { drawOwnerNonces, dropOwnerNonces, type OwnerNonces } from "../../protocol/federation/owner.ts";
import { combineRelease } from "../../protocol/federation/release.ts";
import {
  type Amount,
  type FederatedRequest,
  type ReleaseBody,
  type SignBody,
  type SignedOrder,
  verifyRequest,
} from "../../protocol/federation/request.ts";
import { sharedValue } from "../../protocol/federation/sharedvalue.ts";
import { completeSignature } from "../../protocol/federation/signing.ts";
import { type OpenedPartial, openPartial, type Use } from "../../protocol/federation/use.ts";
import { checkSignable, signableOf } from "../../protocol/transaction/index.ts";
import type { Standstill } from "../../wire/federation/exchange.ts";
import type { FederatedResult } from "../federationapi.ts";
import { askAll, everyone } from "./answers.ts";
import { ATTEMPTS_MAX, drive, keepRequest, newRequest, type Plan, settledElsewhere } from "./drive.ts";
import { ownerPartOf } from "./generate.ts";
import type { Ground } from "./ground.ts";
import type { HeldKey, HeldRequest } from "./held.ts";
import { renewKey } from "./keys.ts";
import { shownPublicKey, waitingResult } from "./making.ts";
import { manifestAt } from "./pending.ts";
import { fewest } from "./standing.ts";

/** A use's result; `value` is the caller's to wipe. */
export type UseResult = FederatedResult & { readonly value: Uint8Array | null };

/** Names of the signature schemes, as they are shown: of ECDSA with the hash, unless a digest was signed as it is. */
export function schemeOf(type: Certificate["type"], form: SignForm): string | null {
  if (type === "bytes" || type === "ristretto255") return null;
  if (type === "ed25519") return type;
  if (type === "schnorr") return "bip340";
  return form === "message" ? `ecdsa-${type}-sha256` : `ecdsa-${type}`;
}

/** What a use makes: a signature, or the secret itself, which is the caller's to wipe. */
interface Output {
  readonly signature: Uint8Array | null;
  readonly value: Uint8Array | null;
}

const ofRound = (said: readonly SignedMessage[], round: Round) =>
  said.filter(({ message }) => message.payload.round === round);

/** The owner's part of a self-custodial key, the caller's to wipe; null for others. @throws Fault not_found */
function ownPart(ground: Ground, key: HeldKey): Uint8Array | null {
  const { type, custody } = key.certificate.certificate;
  if (custody === "delegated") return null;
  if (key.nonce === null) {
    throw new Fault("not_found", "this device does not know which request made this key", {
      why: "without it the owner's part of the key cannot be derived",
      hint: "keyhold federation check",
    });
  }
  return ownerPartOf(ground, type, key.nonce);
}

/** How the use of a key is brought to its result: exactly as many servers as it takes. */
function usePlan(
  ground: Ground,
  key: HeldKey,
  kind: "sign" | "release",
  pair: Awaited<ReturnType<typeof hpkeKeyPair>>,
  hedge: Hedge | null,
): Plan<Output> & {
  end(): void;
} {
  const { certificate } = key.certificate;
  const scalar = ownPart(ground, key);
  const nonces = new Map<number, OwnerNonces>();
  const useOf = (held: HeldRequest, { order }: SignedOrder): Use => {
    const { request } = held.request;
    return { manifest: manifestAt(ground, request.epoch), certificate, request, order };
  };

  async function opened(use: Use, end: Standstill): Promise<readonly OpenedPartial[] | null> {
    const partials = ofRound(end.said, "partial");
    const whole = use.order.roster.every((index) => partials.some(({ message }) => message.from === index));
    return whole ? Promise.all(partials.map((one) => openPartial(use, pair, one))) : null;
  }

  function signature(use: Use, end: Standstill, partials: readonly OpenedPartial[]) {
    const own = nonces.get(use.order.attempt);
    const owner = scalar === null || own === undefined ? null : { scalar, nonces: own };
    const done = completeSignature({ ...use, nonces: ofRound(end.said, "nonces"), partials, owner });
    return done.result === "signed"
      ? { result: { signature: done.signature, value: null } }
      : { culprits: done.culprits, suspects: end.suspects };
  }

  async function released(use: Use, end: Standstill, partials: readonly OpenedPartial[]) {
    const done = combineRelease({ ...use, partials, ownerScalar: scalar });
    if (done.result === "failed") return { culprits: done.culprits, suspects: end.suspects };
    return { result: await outputOf(ground, certificate, use.request, done.scalar, hedge) };
  }

  return {
    choose: fewest(certificate.threshold, certificate.holders),
    contribute: () => null,
    ownerNonces(attempt) {
      const { type } = certificate;
      if (kind === "release" || scalar === null || (type !== "ed25519" && type !== "schnorr")) return null;
      const drawn = drawOwnerNonces(type, scalar, ground.random);
      nonces.set(attempt, drawn);
      return drawn.commitments;
    },
    judge: (held, order) => (culprit) => nonceBlameHolds(useOf(held, order), culprit),
    async conclude(held, order, end) {
      const use = useOf(held, order);
      const letOut = held.request.request.body.kind === "release" && ofRound(end.said, "partial").length > 0;
      if (letOut) await markReleased(ground, key);
      const partials = await opened(use, end);
      if (partials === null || end.culprits.length > 0) return end;
      try {
        const signs = held.request.request.body.kind === "sign";
        return signs ? signature(use, end, partials) : await released(use, end, partials);
      } finally {
        wipe(...partials.flatMap(({ value }) => value ?? []));
      }
    },
    end() {
      for (const drawn of nonces.values()) dropOwnerNonces(drawn);
      wipe(scalar ?? undefined);
    },
  };
}

/** What the owner gets of the whole private scalar, which is wiped unless it is the result. */
async function outputOf(
  ground: Ground,
  certificate: Certificate,
  request: FederatedRequest,
  scalar: Uint8Array,
  hedge: Hedge | null,
): Promise<Output> {
  const { body } = request;
  if (body.kind !== "release") throw new Fault("internal", "only a release lets a scalar out");
  if (body.purpose === "export") return { signature: null, value: scalar };
  try {
    if (body.purpose === "retrieve") {
      return { signature: null, value: sharedValue(certificate, scalar, await importOf(ground, certificate)) };
    }
    const { message } = body;
    const { type, publicKey } = certificate;
    if (message === null || (type !== "secp256k1" && type !== "p256")) {
      throw new Fault("bad_input", `keys of type ${type} are not released to sign`);
    }
    const { bytes, prehashed } = signableOf({ ...body, message, type, publicKey });
    return { signature: signEcdsa(type, scalar, bytes, prehashed, hedge).compact, value: null };
  } finally {
    wipe(scalar);
  }
}

/** The request that imported a value, from any server that shows the genuine one; null for a generated value. */
async function importOf({ fleet }: Ground, { value }: Certificate): Promise<FederatedRequest | null> {
  if (value === null) return null;
  const { requestId } = value;
  const answers = await askAll(fleet, everyone(fleet), "federation.request", () => ({ requestId }));
  for (const answer of answers) {
    if (answer.fault !== null) continue;
    try {
      if (verifyRequest(answer.value.request) === requestId) return answer.value.request.request;
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
    }
  }
  throw new Fault("unavailable", "no server that can be reached has the request that imported this value");
}

function resultOf({ certificate }: HeldKey["certificate"], held: HeldRequest, output: Output): UseResult {
  const { type, keyId } = certificate;
  const { body } = held.request.request;
  return {
    requestId: held.requestId,
    status: "fulfilled",
    keyId,
    publicKeyHex: shownPublicKey(certificate),
    signatureHex: output.signature?.toHex() ?? null,
    scheme: output.signature !== null && "form" in body ? schemeOf(type, body.form) : null,
    absent: [],
    value: output.value,
  };
}

/**
 * Goes on with a use: the same use however often it is tried, with fresh nonces each time.
 *
 * @param hedge For a signature that is made here; lent.
 * @throws Fault denied, integrity, unavailable, conflict, stale
 */
export async function goOnUsing(ground: Ground, held: HeldRequest, hedge: Hedge | null = null): Promise<UseResult> {
  const { body } = held.request.request;
  if (body.kind !== "sign" && body.kind !== "release") throw new Fault("internal", "this request is no use");
  const key = ground.keeping.keys().find(({ keyId }) => keyId === body.keyId);
  if (!key || held.recipientSeed === null) throw settledElsewhere(held.requestId);
  if (key.certificate.certificate.generation !== body.generation) {
    throw new Fault("stale", "the key was shared anew since this was asked for", {
      hint: "cancel the request and ask again",
      requestId: held.requestId,
    });
  }
  const plan = usePlan(ground, key, body.kind, await hpkeKeyPair(held.recipientSeed), hedge);
  try {
    const driven = await drive(ground, held, plan);
    if (driven.at === "waiting") {
      return { ...waitingResult(held.requestId, driven.absent, key.certificate.certificate), value: null };
    }
    await ground.keeping.changeRequest(held.requestId, () => null);
    return resultOf(key.certificate, driven.held, driven.result);
  } catch (error) {
    // refused, or without attempts, it leads nowhere any more: whoever asks again begins another use
    if (error instanceof Fault && error.code === "denied")
      await ground.keeping.changeRequest(held.requestId, () => null);
    else if (error instanceof Fault) await dropSpent(ground, held);
    throw error;
  } finally {
    plan.end();
  }
}

async function dropSpent({ keeping }: Ground, { requestId }: HeldRequest): Promise<void> {
  const last = keeping
    .requests()
    .find((held) => held.requestId === requestId)
    ?.orders.at(-1);
  if (last && last.order.attempt >= ATTEMPTS_MAX) await keeping.changeRequest(requestId, () => null);
}

async function markReleased({ keeping }: Ground, key: HeldKey): Promise<void> {
  if (!key.released) await keeping.changeKey(key.keyId, (now) => ({ ...(now ?? key), released: true }));
}

/** Stands for the recipient where only the use itself matters. */
const NOBODY = new Uint8Array(32);

type Ask = (key: HeldKey, recipient: Uint8Array) => SignBody | ReleaseBody;

/** Failures behind which a generation may stand that this device does not know. */
const PERHAPS_OLD: ReadonlySet<string> = new Set(["denied", "stale", "unavailable", "not_found"]);

/** What is asked for, apart from where the answer goes. */
function isSameUse(a: SignBody | ReleaseBody, b: HeldRequest["request"]["request"]["body"]): boolean {
  if (a.kind !== b.kind) return false;
  const purpose = (body: SignBody | ReleaseBody) => (body.kind === "release" ? body.purpose : null);
  const amount = (body: SignBody | ReleaseBody) => body.amount && `${body.amount.value} ${body.amount.unit}`;
  const [x, y] = [a.message, b.message];
  return (
    a.keyId === b.keyId &&
    a.generation === b.generation &&
    a.form === b.form &&
    a.input === b.input &&
    purpose(a) === purpose(b) &&
    amount(a) === amount(b) &&
    (x === null || y === null ? x === y : equalBytes(x, y))
  );
}

/** The same use, asked for before and not over: to ask again is to go on with it. */
function openUse({ keeping, now }: Ground, wanted: SignBody | ReleaseBody): HeldRequest | null {
  const open = keeping.requests().filter(({ request: { request }, decision }) => {
    return decision === null && request.expiresAtMs > now() && isSameUse(wanted, request.body);
  });
  return open.at(-1) ?? null;
}

/** Asks for one use; once more if the key has a newer generation than this device knew. */
async function use(ground: Ground, key: HeldKey, ask: Ask, hedge: Hedge | null = null): Promise<UseResult> {
  const first = openUse(ground, ask(key, NOBODY)) ?? (await begin(ground, key, ask));
  try {
    return await goOnUsing(ground, first, hedge);
  } catch (error) {
    if (!(error instanceof Fault) || !PERHAPS_OLD.has(error.code)) throw error;
    const newer = await renewKey(ground, key);
    if (newer.certificate.certificate.generation === key.certificate.certificate.generation) throw error;
    // nobody serves the generation that it names any more
    await ground.keeping.changeRequest(first.requestId, () => null);
    return goOnUsing(ground, await begin(ground, newer, ask), hedge);
  }
}

async function begin(ground: Ground, key: HeldKey, ask: Ask): Promise<HeldRequest> {
  const recipientSeed = ground.random(32);
  const { publicKey } = await hpkeKeyPair(recipientSeed);
  return keepRequest(ground, newRequest(ground, ask(key, publicKey), { name: key.name, recipientSeed }));
}

/** How a message is read where it is more than that; what signs is computed of it (docs/protocol.md §8.12). */
export interface MessageForm {
  readonly form: SignForm;
  /** Input of a `bitcoin` transaction; otherwise 0. */
  readonly input: number;
}

const AS_IT_IS: MessageForm = { form: "message", input: 0 };

/**
 * Signs a message, a digest or a transaction: FROST for `ed25519` and `schnorr`; of ECDSA keys the shares are released
 * to this client, which marks the key for good.
 *
 * @throws Fault bad_input, denied, integrity, unavailable
 */
export async function signWithKey(
  ground: Ground,
  key: HeldKey,
  message: Uint8Array,
  amount: Amount | null,
  { form, input }: MessageForm = AS_IT_IS,
  hedge: Hedge | null = null,
): Promise<UseResult> {
  const { type, publicKey } = key.certificate.certificate;
  if (type === "bytes" || type === "ristretto255") {
    throw new Fault("bad_input", `a federated key of type ${type} does not sign`);
  }
  // what no server would sign is not asked for
  checkSignable({ type, publicKey, form, message, input, amount });
  const ask: Ask = ({ keyId, certificate: { certificate } }, recipient) => {
    const common = { keyId, generation: certificate.generation, form, input, message, amount, recipient };
    return type === "ed25519" || type === "schnorr"
      ? { kind: "sign", ...common }
      : { kind: "release", purpose: "sign", ...common };
  };
  return use(ground, key, ask, hedge);
}

/**
 * Fetches the bytes of a `bytes` key, or exports another's private key.
 *
 * @throws Fault bad_input, denied, integrity, unavailable
 */
export function releaseKey(ground: Ground, key: HeldKey, purpose: "retrieve" | "export"): Promise<UseResult> {
  const { type } = key.certificate.certificate;
  if ((purpose === "retrieve") !== (type === "bytes")) {
    const why =
      type === "bytes" ? "bytes are retrieved: keyhold key retrieve" : "a private key is exported: keyhold key export";
    return Promise.reject(new Fault("bad_input", `a federated key of type ${type} cannot be had this way`, { why }));
  }
  return use(ground, key, ({ keyId, certificate: { certificate } }, recipient) => ({
    kind: "release",
    form: "message" as const,
    input: 0,
    keyId,
    generation: certificate.generation,
    purpose,
    message: null,
    amount: null,
    recipient,
  }));
}
