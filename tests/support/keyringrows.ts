import {
  asHashId,
  type FederatedKeyId,
  type FederatedRequestId,
  type FederationId,
  type KeyringId,
  type KeyringRequestId,
  type UserId,
  type WorkspaceId,
} from "../../src/ids.ts";
import type { SignedCertificate } from "../../src/protocol/federation/certificate.ts";
import type { FederatedType } from "../../src/protocol/federation/kinds.ts";
import type { RequestBody } from "../../src/protocol/federation/request.ts";
import type { Party } from "../../src/protocol/keyring/keyring.ts";
import { openLife } from "../../src/protocol/keyring/requestlife.ts";
import type { PartyResponse, SignedResponse } from "../../src/protocol/keyring/response.ts";
import { putStored } from "../../src/server/documents.ts";
import { openCourse } from "../../src/server/keyring/course.ts";
import {
  ASKED,
  ITEM,
  type ItemRow,
  KEY,
  KEY_OF,
  keysOwner,
  OF_STATUS,
  REQUEST,
  type RequestRow,
  statusEntryId,
  statusOwner,
} from "../../src/server/keyring/requestdocuments.ts";
import type { Tx } from "../../src/storage/store.ts";
import { seedOf } from "./policies.ts";

/** Documents of requests and keys as a registry keeps them, for those who only read them: nothing in them is signed. */

export const hashIdFor = <T extends FederatedKeyId | KeyringId | KeyringRequestId>(name: string): T =>
  asHashId(seedOf(name).toHex());

/** Parties of every keyring of these documents, by the names "p1" to "p3". */
export const PARTIES: readonly Party[] = [1, 2, 3].map((index) => ({
  name: `p${index}`,
  index,
  key: seedOf(`p${index}`),
}));

const ZERO = new Uint8Array(32);
const SIGNATURE = new Uint8Array(64);
/** Lists show the newest first. */
const placeOf = (atMs: number): number => Number.MAX_SAFE_INTEGER - atMs;

export interface KeyGiven {
  readonly name: string;
  readonly workspaceId: WorkspaceId;
  readonly type: FederatedType;
  readonly publicKey: Uint8Array;
  readonly keyring?: string;
  readonly atMs: number;
  readonly released?: boolean;
  /** Names of parties that have confirmed it. */
  readonly confirmedBy?: readonly string[];
}

export function certificateFor({ name, workspaceId, type, publicKey }: KeyGiven): SignedCertificate {
  const requestId = hashIdFor<KeyringRequestId>(`item ${name}`) as unknown as FederatedRequestId;
  return {
    certificate: {
      keyId: hashIdFor(name),
      federationId: hashIdFor<KeyringId>("federation") as unknown as FederationId,
      epoch: 1,
      requestId,
      attempt: 1,
      owner: ZERO,
      type,
      length: 32,
      custody: "delegated",
      control: "shared",
      origin: "generated",
      policy: workspaceId,
      publicKey,
      commitments: [publicKey, publicKey],
      untweaked: null,
      ownerPoint: null,
      value: null,
      threshold: 2,
      holders: [1, 2, 3],
      generation: 1,
      transcript: ZERO,
      predecessor: null,
    },
    signatures: [],
    acceptance: {
      decision: { requestId, verdict: "accept", attempt: 1, certificateHash: ZERO },
      signature: SIGNATURE,
    },
  };
}

/** What a party says of an item. */
export function responseOf(
  party: Party,
  itemId: FederatedRequestId,
  over: Partial<PartyResponse> = {},
): SignedResponse {
  const response: PartyResponse = {
    keyringId: hashIdFor("keyring"),
    requestId: itemId,
    verdict: "fulfilled",
    attempt: 1,
    keyId: null,
    publicKey: null,
    certificateHash: null,
    policyHash: ZERO,
    reason: "",
    key: party.key,
    ...over,
  };
  return { response, signature: SIGNATURE };
}

/** A key of a fulfilled request, on all lists of keys. */
export async function putKey(tx: Tx, given: KeyGiven): Promise<FederatedKeyId> {
  const { name, workspaceId, type, atMs, keyring = "keyring", released = false, confirmedBy = ["p1", "p2"] } = given;
  const keyId = hashIdFor<FederatedKeyId>(name);
  const keyringId = hashIdFor<KeyringId>(keyring);
  const requestId = hashIdFor<KeyringRequestId>(`request ${name}`);
  const certificate = certificateFor(given);
  const itemId = certificate.certificate.requestId;
  const responses = PARTIES.filter((party) => confirmedBy.includes(party.name)).map((party) =>
    responseOf(party, itemId, { keyId }),
  );
  const value = { workspaceId, keyringId, requestId, certificate, responses, released, createdAtMs: atMs };
  const place = placeOf(atMs);
  await putStored(tx, KEY, { id: keyId, owner: workspaceId, place, value }, 0);
  for (const of of [
    keysOwner(workspaceId, null, null),
    keysOwner(workspaceId, keyringId, null),
    keysOwner(workspaceId, null, type),
    keysOwner(workspaceId, keyringId, type),
  ]) {
    await putStored(tx, KEY_OF, { id: `${of}:${keyId}`, owner: of, place, value: {} }, 0);
  }
  return keyId;
}

export interface RequestGiven {
  readonly name: string;
  readonly workspaceId: WorkspaceId;
  readonly userId: UserId;
  readonly bodies: readonly RequestBody[];
  readonly atMs: number;
  /** Of the stored life. */
  readonly life?: Partial<RequestRow["life"]>;
  /** Of each item. */
  readonly item?: Partial<ItemRow>;
  readonly responses?: (itemId: FederatedRequestId) => readonly SignedResponse[];
}

/** A request with its items, on the list of its status. */
export async function putRequest(tx: Tx, given: RequestGiven): Promise<KeyringRequestId> {
  const { name, workspaceId, userId, bodies, atMs, responses = () => [] } = given;
  const requestId = hashIdFor<KeyringRequestId>(`request ${name}`);
  const ids = bodies.map((_, i) =>
    hashIdFor<KeyringRequestId>(i === 0 ? `item ${name}` : `item ${name} ${i}`),
  ) as unknown as FederatedRequestId[];
  const kind = bodies[0]?.kind === "generate" ? "key" : "signature";
  const keyringId = hashIdFor<KeyringId>("keyring");
  const opened = openLife({
    ...{ kind, keyringId, threshold: 2, items: ids },
    expiresAtMs: atMs + 60_000,
    parties: PARTIES.map(({ key }) => key),
  });
  const items = opened.items.map((item) => ({ ...item, responses: responses(item.itemId) }));
  const life = { ...opened, items, ...given.life };
  const value: RequestRow = {
    ...{
      workspaceId,
      userId,
      life,
      parties: PARTIES,
      fee: 30,
      manifestHash: ZERO,
      why: "it waits",
      called: [],
      evidence: [],
    },
    ...{ createdAtMs: atMs, updatedAtMs: atMs + 1, ruledUnder: ZERO },
  };
  const place = placeOf(atMs);
  await putStored(tx, REQUEST, { id: requestId, owner: workspaceId, place, value }, 0);
  const status = { id: statusEntryId(life.status, requestId), owner: statusOwner(workspaceId, life.status) };
  await putStored(tx, OF_STATUS, { ...status, place, value: {} }, 0);
  for (const [i, id] of ids.entries()) {
    const body = bodies[i];
    if (!body) continue;
    const request = {
      ...{ federationId: hashIdFor<KeyringId>("federation") as unknown as FederationId, epoch: 1, requester: ZERO },
      ...{ nonce: ZERO, createdAtMs: atMs, expiresAtMs: atMs + 60_000 },
      keyring: { registry: ZERO, keyringId, workspaceId },
      body,
    };
    const asked = { request: { request, signature: SIGNATURE } };
    await putStored(tx, ASKED, { id, owner: requestId, place: i, value: asked }, 0);
    const item: ItemRow = {
      requestId,
      course: openCourse("make", 2, [1, 2, 3]),
      ...{ seq: 0, order: null, decision: null, certificate: null, confirmations: [], partials: [], result: null },
      explanation: { policy: null, decision: "allow", rule: null, why: "" },
      ...given.item,
    };
    await putStored(tx, ITEM, { id, owner: requestId, place: i, value: item }, 0);
  }
  return requestId;
}
