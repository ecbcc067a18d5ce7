import { describe, expect, test } from "bun:test";
import { signerFromSeed } from "../../../src/crypto/identity.ts";
import { hashCanon } from "../../../src/crypto/kdf.ts";
import { Fault } from "../../../src/errors.ts";
import {
  type FederatedKeyId,
  type FederatedRequestId,
  type FederationId,
  hashId,
  type KeyringId,
  type PolicyId,
} from "../../../src/ids.ts";
import {
  type Certificate,
  certificateHash,
  keyIdOf,
  signCertificate,
} from "../../../src/protocol/federation/certificate.ts";
import type { Manifest } from "../../../src/protocol/federation/manifest.ts";
import {
  type FederatedRequest,
  type GenerateBody,
  requestIdOf,
  signDecision,
  signRequest,
} from "../../../src/protocol/federation/request.ts";
import {
  confirmedBy,
  type FulfilmentClaim,
  fulfilledValue,
  fulfilledWord,
  verifyFulfilment,
} from "../../../src/protocol/keyring/fulfilment.ts";
import { keyringRequestIdOf, type Party } from "../../../src/protocol/keyring/keyring.ts";
import { responseValue, type SignedResponse, signResponse } from "../../../src/protocol/keyring/response.ts";

const hash = (...parts: readonly (string | number)[]) => hashCanon("test", ...parts);
const signer = (name: string, n = 0) => signerFromSeed(hash(name, n));
const registry = signer("registry");
const owner = signer("owner");
const keyringId = hashId<KeyringId>(hash("keyring"));
const workspaceId = hashId<PolicyId>(hash("workspace"));
const federationId = hashId<FederationId>(hash("federation"));
const servers = [1, 2, 4];
const manifest: Manifest = {
  federationId,
  name: "ours",
  epoch: 3,
  threshold: 2,
  servers: servers.map((index) => ({
    index,
    identity: signer("server", index).publicKey,
    sealing: hash("sealing", index),
    url: `https://${index}.example`,
    pin: `sha256:${index}`,
    policy: null,
  })),
  createdAtMs: 0,
  nonce: hash("nonce"),
  previous: hash("previous"),
};
const parties: readonly Party[] = servers.map((index) => ({
  name: `party-${index}`,
  index,
  key: signer("party", index).publicKey,
}));

interface Lies {
  readonly body?: Partial<GenerateBody>;
  readonly request?: Partial<FederatedRequest>;
  readonly certificate?: Partial<Certificate>;
  /** Indices of the parties that answer. */
  readonly say?: readonly number[];
  readonly claim?: Partial<FulfilmentClaim>;
}

/** A key as a registry shows it; a lie is signed by everybody whose signature it takes, so that one check alone finds it. */
function claimOf({ body, request, certificate, say = servers, claim }: Lies = {}): FulfilmentClaim {
  const asked: FederatedRequest = {
    federationId,
    epoch: 3,
    requester: owner.publicKey,
    nonce: hash("request"),
    createdAtMs: 0,
    expiresAtMs: 1,
    keyring: { registry: registry.publicKey, keyringId, workspaceId },
    body: {
      kind: "generate",
      type: "secp256k1",
      length: 32,
      custody: "delegated",
      control: "shared",
      policy: workspaceId,
      owner: null,
      ...body,
    },
    ...request,
  };
  const item = signRequest(owner, asked);
  const itemId = requestIdOf(asked);
  const [transcript, publicKey, attempt] = [hash("transcript"), hash("public key"), 2];
  const made: Certificate = {
    keyId: keyIdOf(federationId, certificate?.requestId ?? itemId, attempt, transcript, publicKey),
    federationId,
    epoch: 3,
    requestId: itemId,
    attempt,
    owner: registry.publicKey,
    type: "secp256k1",
    length: 32,
    custody: "delegated",
    control: "shared",
    origin: "generated",
    policy: workspaceId,
    publicKey,
    commitments: [hash("c", 0), hash("c", 1)],
    untweaked: null,
    ownerPoint: null,
    value: null,
    threshold: 2,
    holders: servers,
    generation: 0,
    transcript,
    predecessor: null,
    ...certificate,
  };
  const certificateOwner = made.owner === owner.publicKey ? owner : registry;
  const word = fulfilledWord(keyringId, itemId, made.attempt, made);
  return {
    registry: registry.publicKey,
    manifest,
    keyringId,
    workspaceId,
    requestId: keyringRequestIdOf(keyringId, workspaceId, [itemId]),
    item,
    snapshot: { parties, threshold: 2 },
    certificate: {
      certificate: made,
      signatures: servers.map((index) => signCertificate(signer("server", index), index, made)),
      acceptance: signDecision(certificateOwner, {
        requestId: made.requestId,
        verdict: "accept",
        attempt: made.attempt,
        certificateHash: certificateHash(made),
      }),
    },
    responses: say.map((index) =>
      signResponse(signer("party", index), { ...word, policyHash: hash("policy", index), reason: "" }),
    ),
    ...claim,
  };
}

function codeOf(claim: FulfilmentClaim): string {
  try {
    return verifyFulfilment(claim).join();
  } catch (error) {
    return error instanceof Fault ? `${error.code}: ${error.message}` : `no Fault: ${String(error)}`;
  }
}

const raise = (): never => {
  throw new Error("the item asks for a key");
};
const good = claimOf();
const itemId = requestIdOf(good.item.request);
const accepted = good.certificate.certificate;

describe("a key that a registry shows", () => {
  test("is confirmed by its parties, named in the order of their servers", () => {
    expect(verifyFulfilment(good)).toEqual(["party-1", "party-2", "party-4"]);
    expect(verifyFulfilment({ ...good, responses: good.responses.toReversed() })).toEqual(verifyFulfilment(good));
    expect(verifyFulfilment(claimOf({ say: [4, 1] }))).toEqual(["party-1", "party-4"]);
  });

  test("a schnorr key too", () => {
    const schnorr = { body: { type: "schnorr" }, certificate: { type: "schnorr", untweaked: hash("u") } } as const;
    expect(verifyFulfilment(claimOf(schnorr)).length).toBe(3);
  });

  const other = hash("other");
  const item = "this item";
  const answer = "does not answer";
  const snapshot = "parties and threshold";
  const keyring = { registry: registry.publicKey, keyringId, workspaceId };
  const [one, two, three] = parties;
  const pair = (a: Party | undefined, b: Partial<Party>): Party[] => (a && two ? [a, { ...two, ...b }] : []);
  const unilateral = { control: "unilateral" } as const;
  const { body: asked } = good.item.request;
  const purpose = asked.kind === "generate" ? asked : null;
  const secret = {
    origin: "imported",
    threshold: 2,
    holders: servers,
    commitments: accepted.commitments,
    sealedValue: null,
  } as const;
  const imported = { ...(purpose ?? raise()), ...secret, kind: "import" } as const;
  const lies: readonly (readonly [string, Lies, string])[] = [
    ["of a custody that was not asked", { certificate: { custody: "self" } }, answer],
    ["of self custody", { body: { custody: "self" }, certificate: { custody: "self" } }, item],
    ["with a part of its owner", { body: { owner: { point: other, proof: other } } }, item],
    ["with an owner's point", { certificate: { ownerPoint: other } }, answer],
    ["under one owner's control", { body: unilateral, certificate: unilateral }, item],
    ["that was to be imported", { request: { body: imported } }, item],
    ["under a control that was not asked", { certificate: { control: "unilateral" } }, answer],
    ["under another policy", { body: { policy: hashId<PolicyId>(other) } }, item],
    ["under a policy that was not asked", { certificate: { policy: hashId<PolicyId>(other) } }, answer],
    ["of another type", { certificate: { type: "p256" } }, answer],
    ["of another length", { certificate: { length: 31 } }, answer],
    ["that was imported", { certificate: { origin: "imported" } }, answer],
    ["with a value", { certificate: { value: { requestId: hashId<FederatedRequestId>(other), hash: other } } }, answer],
    ["that is owned by an account", { certificate: { owner: owner.publicKey } }, answer],
    ["of another request", { certificate: { requestId: hashId<FederatedRequestId>(other) } }, answer],
    ["whose id is not its own", { certificate: { keyId: hashId<FederatedKeyId>(other) } }, answer],
    ["of a later generation", { certificate: { generation: 1 } }, answer],
    ["with a predecessor", { certificate: { predecessor: other } }, answer],
    ["of another epoch", { certificate: { epoch: 2 } }, "federation or epoch"],
    ["of another federation", { certificate: { federationId: hashId<FederationId>(other) } }, "federation or epoch"],
    ["asked of another federation", { request: { federationId: hashId<FederationId>(other) } }, item],
    ["asked in another epoch", { request: { epoch: 2 } }, item],
    ["asked without a keyring", { request: { keyring: null } }, item],
    ["asked through another registry", { request: { keyring: { ...keyring, registry: other } } }, item],
    ["asked of another keyring", { request: { keyring: { ...keyring, keyringId: hashId<KeyringId>(other) } } }, item],
    [
      "asked for another workspace",
      { request: { keyring: { ...keyring, workspaceId: hashId<PolicyId>(other) } } },
      item,
    ],
    [
      "that was used, not made",
      {
        request: {
          body: {
            kind: "reshare",
            keyId: accepted.keyId,
            generation: 0,
            mode: "refresh",
            threshold: 2,
            holders: servers,
          },
        },
      },
      item,
    ],
    [
      "whose item nobody signed",
      { claim: { item: { ...good.item, signature: new Uint8Array(64) } } },
      "requester's signature",
    ],
    ["of another registry", { claim: { registry: other } }, item],
    ["of another keyring", { claim: { keyringId: hashId<KeyringId>(other) } }, "not the one of the request"],
    ["of another workspace", { claim: { workspaceId: hashId<PolicyId>(other) } }, "not the one of the request"],
    [
      "of another request through the keyring",
      { claim: { requestId: keyringRequestIdOf(keyringId, workspaceId, [itemId, itemId]) } },
      "not the one of the request",
    ],
    [
      "that too few servers signed",
      { claim: { certificate: { ...good.certificate, signatures: good.certificate.signatures.slice(0, 2) } } },
      "too few servers",
    ],
    [
      "that the registry has not accepted",
      {
        claim: {
          certificate: { ...good.certificate, acceptance: signDecision(owner, good.certificate.acceptance.decision) },
        },
      },
      "requester's signature",
    ],
    ["with a threshold below the federation's", { claim: { snapshot: { parties, threshold: 1 } } }, snapshot],
    ["with a threshold above its parties", { claim: { snapshot: { parties, threshold: 4 } } }, snapshot],
    [
      "with a party of no server",
      { claim: { snapshot: { parties: [...pair(one, { index: 3 })], threshold: 2 } } },
      snapshot,
    ],
    [
      "with two parties of one server",
      { claim: { snapshot: { parties: [...pair(one, { index: 1 })], threshold: 2 } } },
      snapshot,
    ],
    [
      "with two parties of one key",
      { claim: { snapshot: { parties: [...pair(one, { key: one?.key ?? other })], threshold: 2 } } },
      snapshot,
    ],
    [
      "with two parties of one name",
      { claim: { snapshot: { parties: [...pair(one, { name: "party-1" })], threshold: 2 } } },
      snapshot,
    ],
  ];
  test.each(lies)("is refused: %s", (_, lie, why) => {
    const said = codeOf(claimOf(lie));
    expect(said).toStartWith("integrity: ");
    expect(said).toContain(why);
  });

  test("the pairs of parties above are fine but for what is said of them", () => {
    expect(codeOf(claimOf({ claim: { snapshot: { parties: pair(one, {}), threshold: 2 } } }))).toBe("party-1,party-2");
    expect(three?.index).toBe(4);
  });
});

describe("confirmations", () => {
  const value = fulfilledValue(keyringId, itemId, accepted.attempt, accepted);
  const [first, second] = good.responses;
  const said = (index: number, change: Partial<SignedResponse["response"]>): SignedResponse =>
    signResponse(signer("party", index), {
      ...(first ?? good.responses[0])?.response,
      ...change,
    } as SignedResponse["response"]);
  const few = (responses: readonly (SignedResponse | undefined)[]) =>
    codeOf({ ...good, responses: responses.filter((r) => r !== undefined) });
  const tooFew = "integrity: too few parties of the keyring have confirmed this key";

  test("have the value of the certificate", () => {
    expect(first && responseValue(first.response)).toEqual(value);
  });

  test("fewer than the threshold are not enough", () => {
    expect(few([])).toBe(tooFew);
    expect(few([first])).toBe(tooFew);
    expect(few([first, second])).toBe("party-1,party-2");
  });

  test("one party counts once, however often it is shown", () => {
    expect(few([first, first, first])).toBe(tooFew);
    expect(few([first, second, first])).toBe("party-1,party-2");
  });

  test.each([
    ["a rejection", said(2, { verdict: "rejected" })],
    ["another attempt", said(2, { attempt: 1 })],
    ["another key", said(2, { keyId: hashId<FederatedKeyId>(hash("x")) })],
    ["another public key", said(2, { publicKey: hash("x") })],
    ["another certificate", said(2, { certificateHash: hash("x") })],
    ["another keyring", said(2, { keyringId: hashId<KeyringId>(hash("x")) })],
    ["another item", said(2, { requestId: hashId<FederatedRequestId>(hash("x")) })],
    ["a stranger", said(9, {})],
    ["a forged one", { ...said(2, {}), signature: first?.signature ?? new Uint8Array(64) }],
  ])("%s confirms nothing", (_, other) => {
    expect(few([first, other])).toBe(tooFew);
  });

  test("a party that is shown with two words counts for none; a forged second word takes nothing from it", () => {
    const contradiction = said(2, { attempt: 1 });
    expect(few([first, second, contradiction])).toBe(tooFew);
    expect(few([first, contradiction, second])).toBe(tooFew);
    expect(few([first, second, { ...contradiction, signature: new Uint8Array(64) }])).toBe("party-1,party-2");
  });

  test("policy and words are a party's own", () => {
    expect(few([first, said(2, { policyHash: hash("newer"), reason: "late" })])).toBe("party-1,party-2");
  });

  test("of a use: the same, with the used key", () => {
    const use = hashId<FederatedRequestId>(hash("use"));
    const word = { ...fulfilledWord(keyringId, use, 5, accepted), policyHash: hash("p"), reason: "" };
    const responses = [1, 4].map((index) => signResponse(signer("party", index), word));
    expect(confirmedBy(parties, use, fulfilledValue(keyringId, use, 5, accepted), responses)).toEqual([
      "party-1",
      "party-4",
    ]);
    expect(confirmedBy(parties, use, fulfilledValue(keyringId, use, 4, accepted), responses)).toEqual([]);
    expect(confirmedBy(parties, itemId, value, responses)).toEqual([]);
  });
});
