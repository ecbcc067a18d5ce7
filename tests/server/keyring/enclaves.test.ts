import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { hpkeKeyPair } from "../../../src/crypto/hpke.ts";
import { certificateHash, type SignedCertificate } from "../../../src/protocol/federation/certificate.ts";
import type { FederatedType } from "../../../src/protocol/federation/kinds.ts";
import { type RequestBody, signRequest } from "../../../src/protocol/federation/request.ts";
import { signatureHolds } from "../../../src/protocol/federation/signing.ts";
import { signVote } from "../../../src/protocol/federation/votes.ts";
import { signResponse } from "../../../src/protocol/keyring/response.ts";
import type { KeyringRequestView, Report, Task, WorkspaceView } from "../../../src/wire/keyring/views.ts";
import { keyringGenerateBody, keyringUseBody } from "../../support/keyringrequests.ts";
import { HOUR, rule, seedOf } from "../../support/policies.ts";
import { partyOf, type RegistryPerson, type RegistryWorld, registryWorld } from "../../support/registryworld.ts";
import { type FederationWorld, federationWorld } from "../federation/world.ts";

setDefaultTimeout(60_000);

/** The registry before the real servers and enclaves of a federation; connectors that believe everything. */

let servers: FederationWorld | undefined;
let registry: RegistryWorld | undefined;
afterEach(async () => {
  await registry?.close();
  await servers?.close();
  [registry, servers] = [undefined, undefined];
});

async function started() {
  const federation = await federationWorld();
  servers = federation;
  const world = await registryWorld({ registry: federation.enclaves.registry });
  registry = world;
  world.nowMs = federation.enclaves.nowMs;
  const ann = await world.person("ann");
  const ben = await world.person("ben");
  const two = { kind: "group", name: "owners", atLeast: 2 } as const;
  const actions = ["generate", "sign", "release"] as const;
  const space = await world.workspace([ann, ben], {
    rules: [rule({ name: "use", actions, require: two, requesterMayApprove: true })],
  });
  await world.control["registry.credit"]({ workspaceId: space.workspaceId, amount: 1_000, note: "" } as never);
  const people: RegistryPerson[] = [];
  for (const { index } of federation.parties) people.push(await world.connector(`p${index}`));
  const { keyringId } = await world.keyring(ann, people, {
    manifest: federation.enclaves.signed,
    parties: people.map((who, i) => partyOf(who, i + 1)),
  });
  return { federation, world, ann, ben, space, people, keyringId };
}
type Started = Awaited<ReturnType<typeof started>>;

function responseOf(who: RegistryPerson, task: Task, attempt: number, { certificate }: SignedCertificate): Report {
  const { keyId, publicKey } = certificate;
  const response = signResponse(who.party, {
    keyringId: task.keyringId,
    requestId: task.itemId,
    verdict: "fulfilled",
    attempt,
    keyId,
    publicKey,
    certificateHash: certificateHash(certificate),
    policyHash: task.policyHash,
    reason: "",
  });
  return { did: "response", response };
}

async function answer({ federation }: Started, space: WorkspaceView, who: RegistryPerson, index: number, task: Task) {
  const server = federation.party(index);
  const { connector } = federation;
  const { work, itemId, request } = task;
  const said = (attempt: number, { messages, outcome }: { messages: never[]; outcome: never }): Report => ({
    did: "said",
    attempt,
    messages,
    outcome,
  });
  switch (work.do) {
    case "prepare": {
      await server.call("federation.policy.set", { policy: space.policy }, connector);
      await server.call("federation.submit", { request, label: null }, connector);
      for (const vote of work.votes) await server.call("federation.vote", { vote }, connector);
      const { status } = await server.call("federation.request", { requestId: itemId }, connector);
      expect(status).toBe("pending");
      return { did: "ready" } as const;
    }
    case "begin":
      return said(
        work.order.order.attempt,
        (await server.call("federation.begin", { order: work.order }, connector)) as never,
      );
    case "relay": {
      const { attempt, messages } = work;
      return said(
        attempt,
        (await server.call("federation.relay", { requestId: itemId, attempt, messages }, connector)) as never,
      );
    }
    case "decide": {
      const { decision, certificate } = work;
      await server.call("federation.decide", { decision, certificate }, connector);
      return certificate
        ? responseOf(who, task, certificate.certificate.attempt, certificate)
        : ({ did: "decided" } as const);
    }
    case "respond":
      return responseOf(who, task, work.attempt, work.certificate);
    case "drop":
      return { did: "dropped" } as const;
  }
}

async function work(all: Started): Promise<void> {
  const { world, people, ann, space } = all;
  const now = await world.call("workspace.get", { workspaceId: space.workspaceId }, ann);
  for (let idle = false; !idle; ) {
    idle = true;
    for (const [i, who] of people.entries()) {
      const health = { version: "test", state: "ok", deadLetters: 0 };
      const { tasks } = await world.call("party.tasks", { waitMs: 0, max: 16, health }, who);
      for (const task of tasks) {
        idle = false;
        const report = await answer(all, now, who, i + 1, task);
        await world.call("party.report", { reports: [{ itemId: task.itemId, seq: task.seq, report }] }, who);
      }
    }
  }
}

async function request(all: Started, body: RequestBody, nonce: string): Promise<KeyringRequestView> {
  const { world, ann, ben, space, keyringId, federation } = all;
  const { federationId, epoch } = federation.enclaves.manifest;
  const { workspaceId } = space;
  const signed = signRequest(ann.owner, {
    federationId,
    epoch,
    requester: ann.owner.publicKey,
    nonce: seedOf(nonce),
    createdAtMs: world.nowMs,
    expiresAtMs: world.nowMs + HOUR,
    keyring: { registry: world.registry.publicKey, keyringId, workspaceId },
    body,
  });
  const view = await world.call("keyring.request", { workspaceId, keyringId, items: [signed], feeMax: null }, ann);
  const { requestId, policyHash } = view;
  for (const who of [ann, ben]) {
    const votes = view.items.map(({ itemId }) =>
      signVote(who.owner, {
        federationId,
        epoch,
        requestId: itemId,
        verdict: "approve",
        policyHash,
        castAtMs: world.nowMs,
        expiresAtMs: world.nowMs + HOUR,
        reason: "",
      }),
    );
    await world.call("keyring.vote", { requestId, votes }, who);
  }
  await work(all);
  return world.call("keyring.request.get", { requestId }, ann);
}

test("enclaves make keys of each type and sign, on orders of a registry that can start nothing by itself", async () => {
  const all = await started();
  const { publicKey: sealing } = await hpkeKeyPair(all.world.site.sealingSeed);
  for (const type of ["ed25519", "schnorr", "secp256k1", "p256"] satisfies FederatedType[]) {
    const made = await request(all, keyringGenerateBody(all.space.workspaceId, type), `key ${type}`);
    expect(made).toMatchObject({ status: "fulfilled", why: "" });
    const certificate = made.items[0]?.certificate?.certificate;
    if (!certificate) throw new Error("no key");
    expect(certificate.owner).toEqual(all.world.registry.publicKey);
    const frost = type === "ed25519" || type === "schnorr";
    const client = (await hpkeKeyPair(seedOf("client"))).publicKey;
    const used = await request(all, keyringUseBody(certificate, frost ? sealing : client), `use ${type}`);
    if (!frost) {
      expect(used).toMatchObject({ status: "partial", why: "" });
      expect(used.items[0]?.partials).toHaveLength(2);
      continue;
    }
    expect(used).toMatchObject({ status: "fulfilled", why: "" });
    const signature = used.items[0]?.result ?? new Uint8Array(64);
    expect(signatureHolds(certificate, new TextEncoder().encode("message"), signature)).toBe(true);
  }
});
