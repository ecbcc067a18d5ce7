import { afterEach, beforeEach, expect, test } from "bun:test";
import { Fault } from "../../../src/errors.ts";
import { asHashId, type KeyringId, type KeyringRequestId, type WorkspaceId } from "../../../src/ids.ts";
import { requestIdOf, type SignedRequest, signRequest } from "../../../src/protocol/federation/request.ts";
import { signVote } from "../../../src/protocol/federation/votes.ts";
import { keyringRequestIdOf } from "../../../src/protocol/keyring/keyring.ts";
import type { RegistryOperation } from "../../../src/server/context.ts";
import type { InputOf, SessionOperation } from "../../../src/wire/operations.ts";
import { operations } from "../../../src/wire/operations.ts";
import { seedOf } from "../../support/policies.ts";
import { nextLink, type RegistryPerson, type RegistryWorld, registryWorld } from "../../support/registryworld.ts";

/**
 * Others at the registry (docs/threat-model.md, adversary E) with every operation that names a workspace or request: an
 * account without keys, an owner of another workspace, a keyring's admin and a connector without a request of hers. Hers and ones that nobody has
 * are answered alike, in code and text, and nothing of hers moves.
 */

let world: RegistryWorld;
let ada: RegistryPerson;
let others: readonly RegistryPerson[];
let workspaceId: WorkspaceId;
let keyringId: KeyringId;
let request: SignedRequest;
let requestId: KeyringRequestId;

/** A request for a key of a workspace. */
function keyRequest(of: WorkspaceId, who: RegistryPerson, federation: SignedRequest["request"]["federationId"]) {
  return signRequest(who.owner, {
    federationId: federation,
    epoch: 1,
    requester: who.owner.publicKey,
    nonce: seedOf("request"),
    createdAtMs: world.nowMs,
    expiresAtMs: world.nowMs + 3_600_000,
    keyring: { registry: world.registry.publicKey, keyringId, workspaceId: of },
    body: {
      kind: "generate",
      type: "ed25519",
      length: 32,
      custody: "delegated",
      control: "shared",
      policy: of,
      owner: null,
    },
  });
}

beforeEach(async () => {
  world = await registryWorld();
  ada = await world.person("ada");
  const admin = await world.stranger("admin");
  const bob = await world.person("bob");
  const parties = [await world.connector("north"), await world.connector("south"), await world.connector("west")];
  const keyring = await world.keyring(admin, parties);
  keyringId = keyring.keyringId;
  workspaceId = (await world.workspace([ada])).workspaceId;
  await world.workspace([bob], { name: "other" });
  await world.control["registry.credit"]({ workspaceId, amount: 100, note: "" });
  request = keyRequest(workspaceId, ada, keyring.manifest.manifest.federationId);
  requestId = keyringRequestIdOf(keyringId, workspaceId, [requestIdOf(request.request)]);
  await world.call("keyring.request", { workspaceId, keyringId, items: [request], feeMax: null }, ada);
  others = [await world.stranger("sam"), bob, admin, await world.connector("east")];
});
afterEach(() => world.close());

const NOBODYS = asHashId<WorkspaceId>("ab".repeat(32));

async function said(work: Promise<unknown>): Promise<readonly [string, string]> {
  try {
    return ["ok", JSON.stringify(await work)];
  } catch (error) {
    if (error instanceof Fault) return [error.code, error.message];
    throw error;
  }
}

type Ask<N extends RegistryOperation> = (
  ids: { readonly workspaceId: WorkspaceId; readonly requestId: KeyringRequestId },
  who: RegistryPerson,
) => InputOf<N>;
type Asks = { readonly [N in RegistryOperation]: Ask<N> | "another" };

/** How an operation takes another's id; "another" where it takes none that tells anything. */
const ASKS: Asks = {
  "keyring.enrol": "another",
  "workspace.create": "another",
  "workspace.list": ({ workspaceId: after }) => ({ after }),
  "workspace.get": ({ workspaceId: id }) => ({ workspaceId: id }),
  "workspace.policy": ({ workspaceId: id }) => ({ workspaceId: id, after: 0 }),
  // the hash of a link that others do not know: below
  "workspace.policy.set": "another",
  "workspace.ledger": ({ workspaceId: id }) => ({ workspaceId: id, after: 0 }),
  "workspace.events": ({ workspaceId: id }) => ({ workspaceId: id, after: 0 }),
  "workspace.inbox": ({ requestId: after }) => ({ after }),
  "workspace.token.create": ({ workspaceId: id }) => ({
    workspaceId: id,
    name: "reader",
    expiresAtMs: world.nowMs + 1_000,
  }),
  "workspace.token.list": ({ workspaceId: id }) => ({ workspaceId: id }),
  "workspace.token.revoke": ({ workspaceId: id }) => ({ workspaceId: id, tokenId: "1" }),
  // tests/server/keyring/keyrings.test.ts: whoever has a key here sees keyrings
  "keyring.create": "another",
  "keyring.list": "another",
  "keyring.get": "another",
  "keyring.change": "another",
  "keyring.request": ({ workspaceId: id }, who) => ({
    workspaceId: id,
    keyringId,
    items: [keyRequest(id, who, request.request.federationId)],
    feeMax: null,
  }),
  "keyring.request.get": ({ requestId: id }) => ({ requestId: id }),
  "keyring.requests": ({ workspaceId: id }) => ({ workspaceId: id, status: null, after: null }),
  "keyring.vote": ({ requestId: id }, who) => ({
    requestId: id,
    votes: [
      signVote(who.owner, {
        federationId: request.request.federationId,
        epoch: 1,
        requestId: requestIdOf(request.request),
        verdict: "approve",
        policyHash: new Uint8Array(32),
        castAtMs: world.nowMs,
        expiresAtMs: world.nowMs + 1_000,
        reason: "",
      }),
    ],
  }),
  "keyring.cancel": ({ requestId: id }) => ({ requestId: id }),
  "keyring.finish": ({ requestId: id }) => ({
    requestId: id,
    results: [{ itemId: requestIdOf(request.request), signature: new Uint8Array(64) }],
  }),
  "keyring.keys": ({ workspaceId: id }) => ({ workspaceId: id, keyringId: null, type: null, after: null }),
  "keyring.key": "another",
  "party.tasks": "another",
  "party.report": "another",
};

test("every operation of a registry's session is in the table", () => {
  const all = (Object.keys(operations) as SessionOperation[]).filter(
    (name) => operations[name].auth === "session" && /^(keyring|workspace|party)\./.test(name),
  );
  expect(Object.keys(ASKS).toSorted()).toEqual(all.toSorted());
});

/** Everything that is hers, as the registry shows it to her. */
const hers = async () =>
  JSON.stringify([
    await world.call("workspace.get", { workspaceId }, ada),
    await world.call("keyring.request.get", { requestId }, ada),
    await world.call("workspace.ledger", { workspaceId, after: 0 }, ada),
    await world.call("workspace.events", { workspaceId, after: 0 }, ada),
    await world.call("workspace.token.list", { workspaceId }, ada),
  ]);

const ASKED = Object.entries(ASKS).flatMap(([name, ask]) =>
  typeof ask === "function" ? [[name as RegistryOperation, ask as Ask<RegistryOperation>] as const] : [],
);

test.each(ASKED)("%s answers hers and nobody's alike", async (name, ask) => {
  const before = await hers();
  for (const who of others) {
    const real = await said(world.call(name, ask({ workspaceId, requestId }, who), who));
    const nobodys = { workspaceId: NOBODYS, requestId: asHashId<KeyringRequestId>(NOBODYS) };
    expect(real).toEqual(await said(world.call(name, ask(nobodys, who), who)));
    expect(real[1]).not.toContain(workspaceId);
    expect(real[1]).not.toContain(requestId);
    if (name !== "workspace.list" && name !== "workspace.inbox") expect(real[0]).not.toBe("ok");
  }
  expect(await hers()).toBe(before);
});

test("a link of hers, brought by another, tells and changes nothing", async () => {
  const before = await hers();
  const view = await world.call("workspace.get", { workspaceId }, ada);
  const real = nextLink(view, { rules: [] }, [ada]);
  const none = { ...real, document: { ...real.document, previous: seedOf("nothing") } };
  for (const who of others) {
    const set = (policy: typeof real) => said(world.call("workspace.policy.set", { policy }, who));
    expect(await set(real)).toEqual(await set(none));
    expect((await set(real))[0]).not.toBe("ok");
    const made = await said(world.call("workspace.create", { name: "treasury", policy: view.policy }, who));
    expect(made[0]).not.toBe("ok");
  }
  expect(await hers()).toBe(before);
});
