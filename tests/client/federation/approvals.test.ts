import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { createFederationClient, type FederationPart } from "../../../src/client/federation/index.ts";
import { rejected } from "../../support/hostile.ts";
import { type ClientWorld, clientWorld, formed, type TestVault } from "./world.ts";

setDefaultTimeout(240_000);

/** Three accounts at real servers: who asks, and two whose word it takes. */

interface Account {
  readonly vault: TestVault;
  readonly part: FederationPart;
  readonly approvalKey: string;
}

let world: ClientWorld;
let owner: Account;
let ada: Account;
let ben: Account;
const parts: FederationPart[] = [];

async function joined(vault: TestVault): Promise<Account> {
  const part = createFederationClient(vault.open, world);
  parts.push(part);
  const { url, pin } = world.server(1);
  const info = await part.calls.joinFederation({ url, pin, name: null, invites: [] });
  return { vault, part, approvalKey: info.approvalKeyHex };
}

const policyFile = () => ({
  name: "treasury",
  approvers: [
    { name: "ada", key: ada.approvalKey },
    { name: "ben", key: ben.approvalKey },
  ],
  admins: { all: ["ada", "ben"] },
  rules: [{ name: "all", effect: "allow", require: { any: ["ada", "ben"] } }],
});

const wanted = (name: string) =>
  ({
    name,
    federation: "trio",
    type: "ed25519",
    bytes: 32,
    custody: "delegated",
    control: "shared",
    policy: "treasury",
  }) as const;

beforeAll(async () => {
  world = await clientWorld();
  const vault = await world.vault();
  await formed(world, vault.open);
  owner = await joined(vault);
  ada = await joined(await world.vault());
  ben = await joined(await world.vault());
});
afterAll(async () => {
  for (const part of parts) await part.end();
  await world.close();
});

let policyId = "";

test("a policy counts once all admins that it takes have signed the very same link", async () => {
  const document = policyFile();
  const first = await ada.part.calls.setPolicy({ federation: "trio", document });
  expect(first).toMatchObject({ complete: false, version: 1, current: [], behind: [1, 2, 3] });
  // the same file without its place is another link
  const stranger = await ben.part.calls.setPolicy({ federation: "trio", document: { ...document, name: "other" } });
  expect(stranger).toMatchObject({ complete: false });
  const second = await ben.part.calls.setPolicy({ federation: "trio", document: first.document });
  expect(second).toMatchObject({ complete: true, version: 1, hashHex: first.hashHex, current: [1, 2, 3], behind: [] });
  policyId = second.policyId;
  // the first admin has it from then on, and again changes nothing
  const again = await ada.part.calls.setPolicy({ federation: "trio", document: first.document });
  expect(again).toMatchObject({ complete: true, version: 1, hashHex: first.hashHex });
  const [shown] = await ben.part.calls.policies({ federation: "trio" });
  expect(shown).toMatchObject({ name: "treasury", version: 1, policyId, document });
});

test("whoever is no approver signs no policy", async () => {
  const document = policyFile();
  await rejected(owner.part.calls.setPolicy({ federation: "trio", document }), "denied");
});

test("a key under shared control waits for approval, and is made once one has approved", async () => {
  const asked = await owner.part.calls.generateFederated({ ...wanted("vault"), policy: policyId });
  expect(asked).toMatchObject({ status: "awaiting_approval", keyId: null });
  const [seen] = await ada.part.calls.approvals();
  expect(seen).toMatchObject({ requestId: asked.requestId, status: "awaiting_approval", kind: "generate" });
  expect(seen?.facts).toContainEqual({ label: "type", value: "ed25519" });
  const mine = await owner.part.calls.federatedRequest({ requestId: asked.requestId });
  expect(seen?.words).toEqual(mine.words);
  const vote = { requestId: asked.requestId, verdict: "approve", reason: "" } as const;
  await rejected(owner.part.calls.vote(vote), "denied");
  const voted = await ada.part.calls.vote(vote);
  expect(voted.votes).toMatchObject([{ approver: "ada", verdict: "approve" }]);
  const made = await owner.part.calls.continueRequest({ requestId: asked.requestId });
  expect(made).toMatchObject({ status: "fulfilled", absent: [] });
  expect(await ada.part.calls.approvals()).toEqual([]);
});

test("a use is approved for itself alone; a rejection gives its reason, and denies", async () => {
  const message = new TextEncoder().encode("pay 5 eur to Ada");
  const asked = await owner.part.calls.signFederated({ key: "vault", message, amount: null });
  expect(asked.status).toBe("awaiting_approval");
  const [seen] = await ben.part.calls.approvals();
  expect(seen?.facts).toContainEqual({ label: "message", value: "pay 5 eur to Ada" });
  await ben.part.calls.vote({ requestId: asked.requestId, verdict: "approve", reason: "" });
  const signed = await owner.part.calls.signFederated({ key: "vault", message, amount: null });
  expect(signed).toMatchObject({ status: "fulfilled", requestId: asked.requestId });
  expect(signed.signatureHex).toHaveLength(128);

  const other = new TextEncoder().encode("pay 500 eur to Ada");
  const second = await owner.part.calls.signFederated({ key: "vault", message: other, amount: null });
  expect(second.status).toBe("awaiting_approval");
  const reject = { requestId: second.requestId, verdict: "reject", reason: "" } as const;
  await rejected(ben.part.calls.vote(reject), "bad_input");
  const told = await ben.part.calls.vote({ ...reject, reason: "too much" });
  expect(told.votes).toMatchObject([{ approver: "ben", verdict: "reject", reason: "too much" }]);
  // the rule takes either's word: one rejection leaves the other's
  const still = await owner.part.calls.signFederated({ key: "vault", message: other, amount: null });
  expect(still).toMatchObject({ status: "awaiting_approval", requestId: second.requestId });
  await ada.part.calls.vote({ ...reject, reason: "no" });
  await rejected(owner.part.calls.signFederated({ key: "vault", message: other, amount: null }), "denied");
});

test("an approver who never heard of a policy finds it by name, and gives its next version, no second policy", async () => {
  const cleo = await joined(await world.vault());
  expect(await cleo.part.calls.policies({ federation: "trio" })).toEqual([]);
  const file = policyFile();
  const withCleo = {
    ...file,
    approvers: [...file.approvers, { name: "cleo", key: cleo.approvalKey }],
    admins: { any: ["ada", "cleo"] },
  };
  await ada.part.calls.setPolicy({ federation: "trio", document: withCleo });
  const second = await ben.part.calls.setPolicy({ federation: "trio", document: withCleo });
  expect(second).toMatchObject({ complete: true, version: 2, policyId });
  expect(await cleo.part.calls.policies({ federation: "trio" })).toMatchObject([
    { name: "treasury", version: 2, policyId },
  ]);
  const dora = await joined(await world.vault());
  const third = { ...withCleo, approvers: [...withCleo.approvers, { name: "dora", key: dora.approvalKey }] };
  const set = await cleo.part.calls.setPolicy({ federation: "trio", document: third });
  expect(set).toMatchObject({ complete: true, version: 3, policyId });
});
