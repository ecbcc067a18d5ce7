import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { hpkeKeyPair } from "../../../src/crypto/hpke.ts";
import type { SignedCertificate } from "../../../src/protocol/federation/certificate.ts";
import type { RequestBody, SignedRequest } from "../../../src/protocol/federation/request.ts";
import { signVote } from "../../../src/protocol/federation/votes.ts";
import type { InputOf } from "../../../src/wire/operations.ts";
import { keyringUseBody } from "../../support/keyringrequests.ts";
import { faultOf, type KeyringRun, keyringRun } from "../../support/keyringrun.ts";
import { HOUR, seedOf } from "../../support/policies.ts";
import { partyOf, type RegistryPerson } from "../../support/registryworld.ts";

setDefaultTimeout(60_000);

let r: KeyringRun;
let ed: SignedCertificate;
let ecdsa: SignedCertificate;
let client: Uint8Array;

beforeAll(async () => {
  r = await keyringRun();
  ed = (await r.key("ed25519")).certificate;
  ecdsa = (await r.key("secp256k1")).certificate;
  client = (await hpkeKeyPair(seedOf("client"))).publicKey;
});
afterAll(() => r.close());

type Change = Partial<SignedRequest["request"]>;
const generateWith = (change: object): RequestBody => {
  const { body } = r.generate().request;
  return { ...body, ...change } as RequestBody;
};
const markWith = (change: object): Change => {
  const { keyring } = r.generate().request;
  if (!keyring) throw new Error("no mark");
  return { keyring: { ...keyring, ...change } };
};
const useWith = (change: object, certificate = ed, recipient = r.sealing): RequestBody =>
  ({ ...keyringUseBody(certificate.certificate, recipient), ...change }) as RequestBody;

/** What becomes of a request, with the state unchanged: nothing is held, no request is there. */
async function refused(items: () => readonly SignedRequest[], who: RegistryPerson = r.ann, change: object = {}) {
  const before = await r.balance();
  const { workspaceId, keyringId } = r;
  const input = { workspaceId, keyringId, items: [...items()], feeMax: null, ...change } as InputOf<"keyring.request">;
  const said = await faultOf(r.world.call("keyring.request", input, who));
  expect(await r.balance()).toEqual(before);
  return said;
}

describe("a request is refused, and nothing is held for it,", () => {
  const cases: readonly (readonly [string, string, () => readonly SignedRequest[]])[] = [
    ["another owner's signature", "denied", () => [r.generate("ed25519", r.ben)]],
    ["a broken signature", "integrity", () => [{ ...r.generate(), signature: new Uint8Array(64) }]],
    ["no mark", "bad_input", () => [r.sign(generateWith({}), r.ann, { keyring: null })]],
    ["another registry", "bad_input", () => [r.sign(generateWith({}), r.ann, markWith({ registry: seedOf("x") }))]],
    ["another keyring", "bad_input", () => [r.sign(generateWith({}), r.ann, markWith({ keyringId: "1".repeat(64) }))]],
    [
      "another workspace",
      "bad_input",
      () => [r.sign(generateWith({}), r.ann, markWith({ workspaceId: "1".repeat(64) }))],
    ],
    [
      "another federation",
      "bad_input",
      () => [r.sign(generateWith({}), r.ann, { federationId: "1".repeat(64) as never })],
    ],
    ["another epoch", "stale", () => [r.sign(generateWith({}), r.ann, { epoch: 2 })]],
    ["a time that is over", "bad_input", () => [r.sign(generateWith({}), r.ann, { expiresAtMs: r.world.nowMs - 1 })]],
    [
      "a time that is far",
      "bad_input",
      () => [r.sign(generateWith({}), r.ann, { expiresAtMs: r.world.nowMs + 100 * HOUR })],
    ],
    [
      "a beginning to come",
      "bad_input",
      () => [r.sign(generateWith({}), r.ann, { createdAtMs: r.world.nowMs + HOUR / 2 })],
    ],
    ["another type", "bad_input", () => [r.sign(generateWith({ type: "ristretto255" }))]],
    ["bytes", "bad_input", () => [r.sign(generateWith({ type: "bytes", length: 64 }))]],
    ["another length", "bad_input", () => [r.sign(generateWith({ length: 33 }))]],
    [
      "self custody",
      "bad_input",
      () => [r.sign(generateWith({ custody: "self", owner: { point: seedOf("p"), proof: new Uint8Array(64) } }))],
    ],
    ["unilateral control", "bad_input", () => [r.sign(generateWith({ control: "unilateral", policy: null }))]],
    ["another policy", "bad_input", () => [r.sign(generateWith({ policy: "1".repeat(64) }))]],
    ["a key and a signature", "bad_input", () => [r.generate(), r.sign(useWith({}))]],
    ["two keys", "bad_input", () => [r.generate(), r.generate()]],
    [
      "the same item twice",
      "bad_input",
      () => {
        const one = r.sign(useWith({}));
        return [one, one];
      },
    ],
    ["the same use twice", "bad_input", () => [r.sign(useWith({})), r.sign(useWith({}))]],
    ["a key that is none", "not_found", () => [r.sign(useWith({ keyId: "1".repeat(64) }))]],
    [
      "the last key of a batch that is none",
      "not_found",
      () => [r.sign(useWith({})), r.sign(useWith({ keyId: "1".repeat(64) }))],
    ],
    ["another generation", "stale", () => [r.sign(useWith({ generation: 1 }))]],
    ["a recipient beside the registry", "bad_input", () => [r.sign(useWith({}, ed, client))]],
    ["shares to the registry", "bad_input", () => [r.sign(useWith({}, ecdsa, r.sealing))]],
    ["shares to nobody", "bad_input", () => [r.sign(useWith({}, ecdsa, new Uint8Array(32)))]],
    [
      "FROST by an ECDSA key",
      "bad_input",
      () => [r.sign({ ...useWith({}), keyId: ecdsa.certificate.keyId } as RequestBody)],
    ],
    [
      "a release of an Ed25519 key",
      "bad_input",
      () => [r.sign({ ...useWith({}, ecdsa, client), keyId: ed.certificate.keyId } as RequestBody)],
    ],
    ["an export", "bad_input", () => [r.sign(useWith({ purpose: "export", message: null }, ecdsa, client))]],
    ["a digest by Ed25519", "bad_input", () => [r.sign(useWith({ form: "digest", message: new Uint8Array(32) }))]],
    [
      "a digest of another length",
      "bad_input",
      () => [r.sign(useWith({ form: "digest", message: new Uint8Array(31) }, ecdsa, client))],
    ],
    ["a transaction that is none", "bad_input", () => [r.sign(useWith({ form: "evm" }, ecdsa, client))]],
    ["an input of a message", "bad_input", () => [r.sign(useWith({ input: 1 }))]],
    [
      "a resharing",
      "bad_input",
      () => [
        r.sign({
          kind: "reshare",
          keyId: ed.certificate.keyId,
          generation: 0,
          mode: "refresh",
          threshold: 2,
          holders: [1, 2, 3],
        }),
      ],
    ],
  ];
  for (const [name, code, items] of cases) {
    test(`for ${name}`, async () => {
      expect(await refused(items)).toStartWith(`${code}:`);
    });
  }

  test("for more items than a batch has", async () => {
    const items = () => Array.from({ length: 17 }, (_, i) => r.use(ed, `message ${i}`));
    expect(await refused(items)).not.toBe("ok");
  });

  test("for an unknown keyring, an unknown workspace, an account without an owner key", async () => {
    const one = () => [r.generate()];
    expect(await refused(one, r.ann, { keyringId: "2".repeat(64) })).toStartWith("not_found");
    expect(await refused(one, r.ann, { workspaceId: "2".repeat(64) })).toStartWith("not_found");
    const nobody = await r.world.stranger("nobody");
    expect(await refused(one, nobody)).toStartWith("not_found");
  });

  test("for a key of another keyring", async () => {
    const people = await Promise.all([7, 8, 9].map((i) => r.world.connector(`q${i}`)));
    const parties = people.map((who, i) => partyOf(who, i + 1));
    const second = await r.world.keyring(r.admin, people, { name: "other", nonce: seedOf("other"), parties });
    const body = useWith({});
    const items = () => [r.sign(body, r.ann, markWith({ keyringId: second.keyringId }))];
    expect(await refused(items, r.ann, { keyringId: second.keyringId })).toStartWith("bad_input");
  });

  test("for a balance that does not cover the fee", async () => {
    const poor = await keyringRun({ credits: 29 });
    try {
      expect(await faultOf(poor.submit([poor.generate()]))).toStartWith("conflict");
      expect(await poor.balance()).toEqual({ balance: 29, escrowed: 0 });
      expect(await poor.party(1).tasks()).toEqual([]);
    } finally {
      await poor.close();
    }
  });
});

describe("a vote is refused", () => {
  const open = () => r.submit([r.generate("p256")]);
  const withVote = async (change: object, who = r.ann, signer = who.owner) => {
    const of = await open();
    const [item] = of.items;
    if (!item) throw new Error("no item");
    const vote = signVote(signer, {
      federationId: r.manifest.federationId,
      epoch: 1,
      requestId: item.itemId,
      verdict: "approve",
      policyHash: of.policyHash,
      castAtMs: r.world.nowMs,
      expiresAtMs: r.world.nowMs + HOUR,
      reason: "",
      ...change,
    });
    const said = await faultOf(r.world.call("keyring.vote", { requestId: of.requestId, votes: [vote] }, who));
    expect(await r.view(of)).toMatchObject({ approved: false, status: "pending" });
    await r.world.call("keyring.cancel", { requestId: of.requestId }, r.ann);
    return said;
  };

  test("by another's key", async () => expect(await withVote({}, r.ann, r.ben.owner)).toStartWith("denied"));
  test("under another link", async () =>
    expect(await withVote({ policyHash: new Uint8Array(32) })).toStartWith("stale"));
  test("from the future", async () =>
    expect(await withVote({ castAtMs: r.world.nowMs + HOUR / 2 })).toStartWith("bad_input"));
  test("that has expired", async () =>
    expect(await withVote({ castAtMs: 1, expiresAtMs: r.world.nowMs })).toStartWith("bad_input"));
  test("on an item of another request", async () =>
    expect(await withVote({ requestId: "3".repeat(64) })).toStartWith("not_found"));
  test("in another epoch: it is kept, and counts for nothing", async () => {
    expect(await withVote({ epoch: 9 })).toBe("ok");
  });
});
