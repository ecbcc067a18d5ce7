import { equalBytes } from "../../crypto/bytes.ts";
import { canSealTo } from "../../crypto/hpke.ts";
import { Fault } from "../../errors.ts";
import type { FederatedRequestId, WorkspaceId } from "../../ids.ts";
import type { SignedCertificate } from "../../protocol/federation/certificate.ts";
import { rosterMin } from "../../protocol/federation/manifest.ts";
import type {
  FederatedRequest,
  GenerateBody,
  ReleaseBody,
  SignBody,
  SignedRequest,
} from "../../protocol/federation/request.ts";
import type { Snapshot } from "../../protocol/keyring/keyring.ts";
import { BATCH_MAX } from "../../protocol/keyring/requestlife.ts";
import { checkSignable } from "../../protocol/transaction/index.ts";
import type { Tx } from "../../storage/store.ts";
import type { Stored } from "../documents.ts";
import { checkTimes } from "../federation/bodyrules.ts";
import type { Course } from "./course.ts";
import { openCourse } from "./course.ts";
import type { KeyringBody } from "./documents.ts";
import { readKey } from "./keykeeping.ts";
import type { RegistrySite } from "./service.ts";

const bad = (what: string) => new Fault("bad_input", `this request cannot be: ${what}`);

/** Types that keyrings make keys of. */
const TYPES: readonly string[] = ["ed25519", "schnorr", "secp256k1", "p256"];
const KEY_BYTES = 32;

/** One item of a new request, verified. */
export interface NewItem {
  readonly id: FederatedRequestId;
  readonly asked: SignedRequest;
  /** Of a use: the key. */
  readonly certificate: SignedCertificate | null;
}

/** What a new request is checked against. */
export interface NewRequest {
  readonly site: RegistrySite;
  readonly workspaceId: WorkspaceId;
  readonly keyring: Stored<KeyringBody>;
  /** X25519 key of the registry, 32 bytes. */
  readonly sealing: Uint8Array;
  /** The owner key of the account that asks, 32 bytes. */
  readonly owner: Uint8Array;
  readonly nowMs: number;
}

/** Who asks, of whom, for what workspace and federation, and when. @throws Fault denied, bad_input, stale */
function checkPlace({ request }: SignedRequest, of: NewRequest): void {
  const { site, workspaceId, keyring, owner, nowMs } = of;
  if (!equalBytes(request.requester, owner)) throw new Fault("denied", "this request was signed by another account");
  const mark = request.keyring;
  if (mark === null) throw bad("it names no registry, keyring and workspace");
  if (!equalBytes(mark.registry, site.identity.publicKey)) throw bad("it names another registry");
  if (mark.keyringId !== keyring.id || mark.workspaceId !== workspaceId)
    throw bad("it names another keyring or workspace");
  const { manifest } = keyring.value.manifest;
  if (request.federationId !== manifest.federationId) throw bad("it is for another federation than the keyring's");
  if (request.epoch !== manifest.epoch) {
    throw new Fault("stale", "the keyring's federation has another manifest now", { hint: "keyhold keyring show" });
  }
  checkTimes(request, nowMs, site.ctx.limits);
}

function checkGenerate(body: GenerateBody, workspaceId: WorkspaceId): void {
  if (!TYPES.includes(body.type)) throw bad(`a keyring makes no keys of type ${body.type}`);
  if (body.length !== KEY_BYTES) throw bad("keys of this type have 32 bytes");
  if (body.custody !== "delegated" || body.owner !== null) throw bad("the servers hold all of a keyring's key");
  if (body.control !== "shared" || body.policy !== workspaceId) throw bad("its policy is the workspace's own");
}

/** The key that a use names, if it is this workspace's and this keyring's. @throws Fault not_found, stale, bad_input */
async function checkUse(tx: Tx, body: SignBody | ReleaseBody, of: NewRequest): Promise<SignedCertificate> {
  const key = await readKey(tx, body.keyId);
  if (!key || key.value.workspaceId !== of.workspaceId) throw new Fault("not_found", "no such key");
  if (key.value.keyringId !== of.keyring.id) throw bad("the key is another keyring's");
  const { certificate } = key.value;
  const { type, publicKey, generation } = certificate.certificate;
  if (generation !== body.generation) throw new Fault("stale", "the key has another generation of shares now");
  const signs = type === "ed25519" || type === "schnorr";
  if (body.kind === "sign") {
    if (!signs) throw bad("servers do not sign with keys of this type");
    if (!equalBytes(body.recipient, of.sealing)) throw bad("partial signatures are sealed to the registry's key");
  } else {
    if (body.purpose !== "sign") throw bad("a keyring lets shares out to sign, and for nothing else");
    if (signs) throw bad("keys of this type sign without their shares");
    if (equalBytes(body.recipient, of.sealing) || !canSealTo(body.recipient))
      throw bad("shares are sealed to the owner's client");
  }
  const { form, input, message, amount } = body;
  if (message === null) throw bad("a message is given to sign");
  checkSignable({ type, publicKey, form, message, input, amount });
  return certificate;
}

async function checkItem(tx: Tx, id: FederatedRequestId, asked: SignedRequest, of: NewRequest): Promise<NewItem> {
  checkPlace(asked, of);
  const { body } = asked.request;
  switch (body.kind) {
    case "generate":
      checkGenerate(body, of.workspaceId);
      return { id, asked, certificate: null };
    case "sign":
    case "release":
      return { id, asked, certificate: await checkUse(tx, body, of) };
    case "import":
    case "reshare":
      throw bad("keyrings make keys and sign, and nothing else");
  }
}

/** What one item asks for, apart from where the answer goes and from its nonce. */
function askedFor({ body }: FederatedRequest): string {
  if (body.kind !== "sign" && body.kind !== "release") return body.kind;
  return [body.keyId, body.form, body.input, body.message?.toHex() ?? ""].join(":");
}

/** Whether it makes a key or signs. @throws Fault bad_input for anything else, or both */
export function kindOfRequest(items: readonly SignedRequest[]): "key" | "signature" {
  const kinds = items.map(({ request }) => request.body.kind);
  if (items.length === 1 && kinds[0] === "generate") return "key";
  if (kinds.includes("generate")) throw bad("a new key is asked for alone");
  if (items.length > BATCH_MAX) throw bad(`it signs at most ${BATCH_MAX} times`);
  return "signature";
}

/**
 * Checks every item of a new request, and each key of a batch (docs/protocol.md §9.6).
 *
 * @param ids Of the items: their requesters' signatures are verified.
 * @throws Fault denied, bad_input, not_found, stale
 */
export async function checkItems(
  tx: Tx,
  items: readonly { readonly id: FederatedRequestId; readonly asked: SignedRequest }[],
  of: NewRequest,
): Promise<readonly NewItem[]> {
  const checked: NewItem[] = [];
  for (const { id, asked } of items) checked.push(await checkItem(tx, id, asked, of));
  const wanted = new Set(items.map(({ asked }) => askedFor(asked.request)));
  if (wanted.size !== items.length) throw bad("two of its items are the same");
  return checked;
}

/**
 * How an item will be coordinated.
 *
 * @throws Fault conflict when too few of the keyring's parties hold the key
 */
export function courseOf({ asked, certificate }: NewItem, { keyring }: NewRequest, snapshot: Snapshot): Course {
  const { manifest } = keyring.value.manifest;
  const indices = snapshot.parties.map(({ index }) => index);
  if (certificate === null) {
    return openCourse("make", rosterMin(manifest.servers.length, manifest.threshold), indices);
  }
  const { threshold, holders } = certificate.certificate;
  const able = indices.filter((index) => holders.includes(index));
  const least = Math.max(threshold, manifest.threshold, snapshot.threshold);
  if (able.length < least)
    throw new Fault("conflict", `too few parties of this keyring hold the key: ${able.length}, and it takes ${least}`);
  return openCourse(asked.request.body.kind === "sign" ? "use" : "release", least, able);
}
