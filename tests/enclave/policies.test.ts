import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { type Signer, signerFromSeed } from "../../src/crypto/identity.ts";
import type { Fault } from "../../src/errors.ts";
import {
  OPERATOR_SCOPE,
  type PolicyChain,
  type PolicyDocument,
  type PolicyRule,
  policyHash,
  policyIdOf,
  type SignedPolicy,
  type SignedVote,
} from "../../src/protocol/federation/policy.ts";
import { signPolicy } from "../../src/protocol/federation/policychain.ts";
import { requestIdOf, type SignedRequest } from "../../src/protocol/federation/request.ts";
import { signVote } from "../../src/protocol/federation/votes.ts";
import { type EnclaveWorld, enclaveWorld, type PlantedKey } from "../support/enclaveworld.ts";

const ann: Signer = signerFromSeed(new Uint8Array(32).fill(65));
const ben: Signer = signerFromSeed(new Uint8Array(32).fill(66));
const HOUR = 3_600_000;

const rule = (change: Partial<PolicyRule> = {}): PolicyRule => ({
  name: "use",
  effect: "allow",
  actions: [],
  types: [],
  rate: null,
  amount: null,
  recipients: null,
  time: null,
  require: { kind: "approver", name: "ann" },
  requesterMayApprove: false,
  voteMs: HOUR,
  ...change,
});

/** A link that ann, its admin, has signed. */
function link(rules: readonly PolicyRule[], before: SignedPolicy | null = null): SignedPolicy {
  const document: PolicyDocument = {
    federationId: OPERATOR_SCOPE,
    name: "operator",
    version: (before?.document.version ?? 0) + 1,
    previous: before ? policyHash(before.document) : new Uint8Array(32),
    approvers: [
      { name: "ann", key: ann.publicKey },
      { name: "ben", key: ben.publicKey },
    ],
    groups: [],
    remotes: [],
    admins: { kind: "approver", name: "ann" },
    rules,
    createdAtMs: 1,
  };
  return { document, signatures: [signPolicy(ann, document)] };
}

let world: EnclaveWorld;
let key: PlantedKey;
let first: SignedPolicy;

async function open(rules: readonly PolicyRule[]): Promise<void> {
  first = link(rules);
  world = await enclaveWorld({ policies: (index) => (index === 1 ? policyIdOf(first.document) : null) });
  key = await world.plant("ed25519");
}
beforeEach(() => open([rule()]));
afterEach(() => world.close());

function vote(
  request: SignedRequest,
  chain: PolicyChain,
  verdict: "approve" | "reject" = "approve",
  signer = ann,
): SignedVote {
  const head = chain.at(-1)?.document ?? first.document;
  const { federationId, epoch } = world.manifest;
  return signVote(signer, {
    federationId,
    epoch,
    requestId: requestIdOf(request.request),
    verdict,
    policyHash: policyHash(head),
    castAtMs: world.nowMs,
    expiresAtMs: world.nowMs + HOUR,
    reason: verdict === "reject" ? "no" : "",
  });
}

interface Given {
  readonly chain?: PolicyChain | null;
  readonly votes?: readonly SignedVote[];
  readonly attempt?: number;
}
function evidence(request: SignedRequest, { chain = [first], votes = [] }: Given) {
  return world.evidence(request, key, { serverPolicy: chain, votes, requesterApproval: ben.publicKey });
}
const begin = (request: SignedRequest, given: Given = {}): Promise<string> =>
  world
    .server(1)
    .enclave.handle("begin", {
      evidence: evidence(request, given),
      order: world.order(request, [1, 2], given.attempt),
      share: key.sealed.get(1) ?? null,
    })
    .then(
      () => "ok",
      (error: Fault) => error.code,
    );
const sign = (message?: string) => world.request(world.signBody(key, message));

describe("the enclave asks the server's policy itself", () => {
  test("nothing happens before the approval, nor against a rejection", async () => {
    const request = sign();
    expect(await begin(request)).toBe("pending");
    expect(await begin(request, { votes: [vote(request, [first], "reject")] })).toBe("denied");
    expect(await begin(request, { votes: [vote(request, [first])] })).toBe("ok");
  });

  test("a vote counts for its own request, from its own key, while it lasts", async () => {
    const request = sign();
    const good = vote(request, [first]);
    const forged = { ...good, signature: new Uint8Array(64) };
    expect(await begin(request, { votes: [vote(sign("other"), [first])] })).toBe("pending");
    expect(await begin(request, { votes: [forged] })).toBe("pending");
    expect(await begin(request, { votes: [vote(request, [first], "approve", ben)] })).toBe("pending");
    expect(
      await begin(request, { votes: [{ ...good, vote: { ...good.vote, expiresAtMs: good.vote.expiresAtMs + 1 } }] }),
    ).toBe("pending");
    const late = world.request(world.signBody(key), { expiresAtMs: world.nowMs + 2 * HOUR });
    const votes = [vote(late, [first])];
    world.nowMs += HOUR;
    expect(await begin(late, { votes })).toBe("pending");
  });

  test("a policy that is missing, another one or changed denies", async () => {
    const request = sign();
    const votes = [vote(request, [first])];
    const other = link([rule({ name: "other" })]);
    const bent = { ...first, document: { ...first.document, rules: [rule({ require: { kind: "requester" } })] } };
    for (const chain of [null, [other], [bent], [first, { ...link([], first), signatures: [] }]]) {
      expect(await begin(request, { chain, votes })).toBe("denied");
    }
  });

  test("an older version than one that was used does not come back, not after a restart either", async () => {
    const second = link([rule({ name: "stricter" })], first);
    const one = sign("one");
    expect(await begin(one, { chain: [first, second], votes: [vote(one, [first, second])] })).toBe("ok");
    for (const message of ["two", "three"]) {
      const two = sign(message);
      expect(await begin(two, { chain: [first], votes: [vote(two, [first])] })).toBe("stale");
      world.server(1).restart();
    }
    const forked = link([rule({ name: "fork" })], first);
    const three = sign("four");
    expect(await begin(three, { chain: [first, forked], votes: [vote(three, [first, forked])] })).toBe("conflict");
  });

  describe("up to the partial", () => {
    const later = () => world.request(world.signBody(key, "later"), { expiresAtMs: world.nowMs + 4 * HOUR });
    /** Brings both servers' nonces to the first one. */
    async function goOn(request: SignedRequest): Promise<string> {
      const order = world.order(request, [1, 2]);
      const at = (index: number, given: object) =>
        world.server(index).enclave.handle("begin", {
          evidence: { ...evidence(request, {}), ...given },
          order,
          share: key.sealed.get(index) ?? null,
        });
      const others = await at(2, {});
      const { requestId, attempt } = order.order;
      return world
        .server(1)
        .enclave.handle("relay", { requestId, attempt, messages: [...others.messages] })
        .then(
          ({ messages }) => messages.map(({ message }) => message.payload.round).join(),
          (error: Fault) => error.code,
        );
    }

    test("a vote that ran out after the beginning counts no more", async () => {
      const request = later();
      expect(await begin(request, { votes: [vote(request, [first])] })).toBe("ok");
      world.nowMs += HOUR;
      expect(await goOn(request)).toBe("pending");
      world.nowMs -= HOUR;
      expect(await goOn(request)).toBe("nonces,partial");
    });

    test("a later version of the policy that was used meanwhile ends what began under the one before", async () => {
      const request = later();
      expect(await begin(request, { votes: [vote(request, [first])] })).toBe("ok");
      const chain = [first, link([rule({ name: "stricter" })], first)];
      const other = sign("other");
      expect(await begin(other, { chain, votes: [vote(other, chain)] })).toBe("ok");
      expect(await goOn(request)).toBe("stale");
    });
  });

  test("evaluate explains, and changes nothing", async () => {
    const request = sign();
    const { explanations } = await world.server(1).enclave.handle("evaluate", { evidence: evidence(request, {}) });
    expect(explanations.map(({ decision, rule: name }) => [decision, name])).toEqual([
      ["wait", "use"],
      ["allow", null],
    ]);
    expect(await begin(request, { votes: [vote(request, [first])] })).toBe("ok");
  });
});

describe("a rate", () => {
  const limited = rule({ require: { kind: "requester" }, rate: { count: 1, windowMs: HOUR } });

  test("once it is used up, evaluate names those for whom the next rule waits", async () => {
    world.close();
    await open([limited, rule({ name: "by-hand" })]);
    const waitsFor = async (message: string) => {
      const asked = { evidence: evidence(sign(message), {}) };
      return (await world.server(1).enclave.handle("evaluate", asked)).waiting.flatMap(({ approvers }) => approvers);
    };
    expect(await waitsFor("one")).toEqual([]);
    expect(await begin(sign("one"))).toBe("ok");
    expect((await waitsFor("two")).length).toBeGreaterThan(0);
  });

  test("counts what was begun, attempts of one request once, over restarts", async () => {
    world.close();
    await open([limited]);
    const [one, two] = [sign("one"), sign("two")];
    expect(await begin(one)).toBe("ok");
    expect(await begin(one, { attempt: 2 })).toBe("ok");
    expect(await begin(two)).toBe("denied");
    world.server(1).restart();
    expect(await begin(two)).toBe("denied");
    expect(await begin(one, { attempt: 3 })).toBe("ok");
    world.nowMs += HOUR;
    expect(await begin(sign("three"))).toBe("ok");
  });
});

describe("a rate of requests at once", () => {
  test("is kept: each is in the journal before the next is asked about", async () => {
    world.close();
    await open([rule({ require: { kind: "requester" }, rate: { count: 1, windowMs: HOUR } })]);
    const codes = await Promise.all(["one", "two", "three"].map((message) => begin(sign(message))));
    expect(codes.toSorted()).toEqual(["denied", "denied", "ok"]);
  });

  test("whose last place was given away does not stop who had it", async () => {
    world.close();
    await open([
      rule({ require: { kind: "requester" }, rate: { count: 1, windowMs: HOUR } }),
      rule({ name: "by-hand" }),
    ]);
    const [one, two] = [sign("one"), sign("two")];
    expect(await begin(one)).toBe("ok");
    expect(await begin(two, { votes: [vote(two, [first])] })).toBe("ok");
    const requestId = requestIdOf(one.request);
    const { enclave } = world.server(1);
    expect((await enclave.handle("relay", { requestId, attempt: 1, messages: [] })).outcome).toBeNull();
  });
});

describe("a key under shared control", () => {
  test("asks the key's policy too, at every server", async () => {
    const document = { ...first.document, federationId: world.manifest.federationId, name: "key" };
    const chain = [{ document, signatures: [signPolicy(ann, document)] }];
    key = await world.plant("ed25519", { control: "shared", policy: policyIdOf(document) });
    const request = sign();
    const at = (votes: readonly SignedVote[], keyPolicy: PolicyChain | null) =>
      world
        .server(2)
        .enclave.handle("begin", {
          evidence: world.evidence(request, key, { keyPolicy, votes, requesterApproval: ben.publicKey }),
          order: world.order(request, [1, 2]),
          share: key.sealed.get(2) ?? null,
        })
        .then(
          () => "ok",
          (error: Fault) => error.code,
        );
    expect(await at([], chain)).toBe("pending");
    expect(await at([vote(request, chain)], null)).toBe("denied");
    expect(await at([vote(request, chain)], chain)).toBe("ok");
  });
});
