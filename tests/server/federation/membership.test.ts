import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { signerFromSeed } from "../../../src/crypto/identity.ts";
import type { FederationId } from "../../../src/ids.ts";
import { signEnrolment } from "../../../src/protocol/federation/enrolment.ts";
import { type Manifest, manifestHash, signManifest } from "../../../src/protocol/federation/manifest.ts";
import { eraseFederated } from "../../../src/server/federation/erasing.ts";
import { encodeJson } from "../../../src/wire/codec.ts";
import { signedManifest } from "../../../src/wire/federation/records.ts";
import { rejection } from "../../storage/rejection.ts";
import { call, errorOf, logOf, outputOf, postInput } from "../../support/attacker.ts";
import {
  accept,
  accountAt,
  complete,
  draftOf,
  enrolment,
  type FederatedServer,
  federate,
  lineOf,
  nextOf,
  propose,
  signedBy,
  startFederated,
} from "../../support/federatedserver.ts";
import { random } from "../../support/harness.ts";

let servers: FederatedServer[];
let a: FederatedServer;
let b: FederatedServer;

beforeEach(async () => {
  a = await startFederated();
  b = await startFederated();
  servers = [a, b];
});
afterEach(async () => {
  for (const one of servers) {
    expect(one.server.faults).toEqual([]);
    await one.close();
  }
});

const info = async (one: FederatedServer) =>
  outputOf("federation.info", await postInput(one.server, "federation.info", {}));
const proposal = (one: FederatedServer, { federationId, epoch }: Manifest) =>
  postInput(one.server, "federation.proposal", { federationId, epoch });
const stateOf = async (one: FederatedServer, manifest: Manifest) =>
  outputOf("federation.proposal", await proposal(one, manifest)).state;
const listed = async (one: FederatedServer) =>
  (await one.service.control["federation.list"]({})).items.map(({ state, index }) => [state, index] as const);

describe("a federation is made", () => {
  test("of a draft, each operator's acceptance, and all signatures", async () => {
    const manifest = draftOf(servers);
    expect((await info(a)).federations).toEqual([]);
    for (const one of servers) {
      expect((await propose(one, manifest)).status).toBe(200);
      expect(await stateOf(one, manifest)).toBe("waiting");
      expect(await listed(one)).toEqual([["waiting", servers.indexOf(one) + 1]]);
      expect(await accept(one, manifest)).toEqual({ state: "accepted" });
      expect(await accept(one, manifest)).toEqual({ state: "accepted" });
      expect(await stateOf(one, manifest)).toBe("accepted");
    }
    const signed = await signedBy(servers, manifest);
    for (const one of servers) {
      expect((await complete(one, signed)).status).toBe(200);
      expect(await stateOf(one, manifest)).toBe("member");
      expect(await listed(one)).toEqual([["member", servers.indexOf(one) + 1]]);
      const { federations, ...facts } = await info(one);
      expect(federations.map((held) => encodeJson(signedManifest, held))).toEqual([encodeJson(signedManifest, signed)]);
      expect(facts).toMatchObject({ identity: one.enclaveKeys.signer.publicKey, policy: null, version: "1.2.3" });
    }
    expect(a.told.map(({ event }) => event)).toEqual([
      "federation.proposed",
      "federation.proposed",
      "federation.joined",
    ]);
  });

  test("once, however often it is brought", async () => {
    const signed = await federate(servers);
    const before = await info(a);
    expect((await complete(a, signed)).status).toBe(200);
    expect((await propose(a, signed.manifest)).status).toBe(200);
    expect(await listed(a)).toEqual([["member", 1]]);
    expect({ ...(await info(a)), atMs: 0 }).toEqual({ ...before, atMs: 0 });
    expect(await accept(a, signed.manifest)).toEqual({ state: "member" });
  });

  test("not without this server's operator", async () => {
    const manifest = draftOf(servers);
    const signed = await signedBy([b], manifest);
    expect((await propose(a, manifest)).status).toBe(200);
    expect(errorOf(await complete(a, signed)).code).toBe("denied");
    // a signature that only looks like ours is none
    const other = signManifest(signerFromSeed(random(32)), manifest);
    const forged = { manifest, signatures: [...signed.signatures, { ...other, identity: lineOf(a, 1).identity }] };
    expect(errorOf(await complete(a, forged)).code).toBe("denied");
    expect(await listed(a)).toEqual([["waiting", 1]]);
  });

  test("not with a signature missing", async () => {
    const manifest = draftOf(servers);
    const signed = await signedBy([a], manifest);
    expect(errorOf(await complete(a, signed)).code).toBe("integrity");
    expect(await stateOf(a, manifest)).toBe("accepted");
  });

  test("keeping nothing but signatures that count", async () => {
    const signed = await signedBy(servers, draftOf(servers));
    const stranger = signManifest(signerFromSeed(random(32)), signed.manifest);
    const twice = { ...signed, signatures: [stranger, ...signed.signatures, ...signed.signatures] };
    expect((await complete(a, twice)).status).toBe(200);
    expect((await info(a)).federations[0]?.signatures).toEqual([...signed.signatures]);
  });
});

describe("a draft is refused", () => {
  const refused = async (manifest: Manifest) => errorOf(await propose(a, manifest));

  test("that names this server as it is not", async () => {
    const line = lineOf(a, 1);
    const wrong = [
      { ...line, identity: random(32) },
      { ...line, sealing: random(32) },
      { ...line, pin: `sha256:${"A".repeat(43)}` },
      { ...line, policy: "ab".repeat(32) as never },
    ];
    for (const one of wrong) {
      const error = await refused(draftOf(servers, { servers: [one, lineOf(b, 2)] }));
      expect(error.code).toBe("bad_input");
      expect(error.message).toMatch(/server/);
    }
    expect(await listed(a)).toEqual([]);
  });

  test("that no manifest can be", async () => {
    const good = draftOf(servers);
    const bad = [
      { ...good, federationId: "ab".repeat(32) as FederationId },
      { ...good, threshold: 1 },
      { ...good, epoch: 2 },
    ];
    for (const one of bad) expect((await refused(one)).code).toBe("bad_input");
    // of one federation and epoch there is one draft: another name makes another federation
    expect((await propose(a, good)).status).toBe(200);
    const later = { ...good, epoch: 2, name: "other", previous: manifestHash(good) };
    expect((await refused(later)).code).toBe("bad_input");
  });

  test("beyond a few from one address, and beyond some in all", async () => {
    const from = (n: number) => `192.0.2.${n}`;
    const codes: string[] = [];
    for (let n = 0; n < 5; n++) {
      const reply = await propose(a, draftOf(servers), null, from(1));
      codes.push(reply.outcome);
    }
    expect(codes).toEqual(["ok", "ok", "ok", "ok", "conflict"]);
    for (let n = 0; n < 12; n++) expect((await propose(a, draftOf(servers), null, from(10 + n))).outcome).toBe("ok");
    expect((await propose(a, draftOf(servers), null, from(99))).outcome).toBe("conflict");
    expect((await listed(a)).length).toBe(16);
    // time and the operator make room
    const [first] = (await a.service.control["federation.list"]({})).items;
    if (!first) throw new Error("no draft");
    const { federationId } = first.manifest;
    expect(await a.service.control["federation.leave"]({ federationId })).toEqual({ drafts: 1, left: false });
    expect((await propose(a, draftOf(servers), null, from(99))).outcome).toBe("ok");
    a.server.advance(25 * 3_600_000);
    await a.service.sweep();
    expect(await listed(a)).toEqual([]);
  });

  test("of those that keep asking, sooner or later by the clock", async () => {
    const outcomes: string[] = [];
    for (let n = 0; n < 12; n++) {
      const manifest = draftOf(servers);
      outcomes.push((await propose(a, manifest, null, "192.0.2.7")).outcome);
      await a.service.control["federation.leave"]({ federationId: manifest.federationId }).catch(() => undefined);
    }
    expect(outcomes).toContain("rate_limited");
    expect(outcomes.indexOf("rate_limited")).toBeGreaterThanOrEqual(10);
  });
});

describe("the operator", () => {
  test("accepts what was seen and nothing else", async () => {
    const manifest = draftOf(servers);
    await propose(a, manifest);
    const { federationId } = manifest;
    const control = a.service.control["federation.accept"];
    expect(await rejection(control({ federationId, epoch: 1, hash: random(32) }))).toMatchObject({ code: "conflict" });
    expect(await rejection(control({ federationId, epoch: 2, hash: manifestHash(manifest) }))).toMatchObject({
      code: "not_found",
    });
    a.server.advance(25 * 3_600_000);
    expect(await rejection(accept(a, manifest))).toMatchObject({ code: "not_found" });
    expect(errorOf(await proposal(a, manifest)).code).toBe("not_found");
  });

  test("leaves, and comes back by the own word alone", async () => {
    const signed = await federate(servers);
    const { federationId } = signed.manifest;
    const session = await accountAt(a, "ada");
    const { input } = enrolment(federationId, 1, session);
    expect((await call(a.server, session, "federation.enrol", input)).code).toBe("ok");
    expect(await a.service.control["federation.leave"]({ federationId })).toEqual({ drafts: 0, left: true });
    expect(await listed(a)).toEqual([["left", 1]]);
    expect((await info(a)).federations).toEqual([]);
    expect((await call(a.server, session, "federation.enrol", input)).code).toBe("not_found");
    // whoever still has the manifest cannot undo that
    expect(errorOf(await complete(a, signed)).code).toBe("denied");
    expect(await rejection(a.service.control["federation.leave"]({ federationId }))).toMatchObject({
      code: "not_found",
    });
    expect(await accept(a, signed.manifest)).toEqual({ state: "member" });
    expect(await listed(a)).toEqual([["member", 1]]);
    expect((await call(a.server, session, "federation.enrol", input)).code).toBe("ok");
  });
});

describe("a later epoch", () => {
  test("brings a server in and lets one go", async () => {
    const c = await startFederated();
    servers.push(c);
    const first = await federate([a, b]);
    const lines = [lineOf(b, 2), lineOf(c, 3)];
    const manifest = nextOf(first, { servers: lines });
    const signed = await signedBy([a, b, c], manifest, first);
    for (const one of servers) expect((await complete(one, signed)).status).toBe(200);
    expect(await listed(a)).toEqual([["member", null]]);
    expect(await listed(c)).toEqual([["member", 3]]);
    expect((await info(c)).federations[0]?.manifest.epoch).toBe(2);
    // who has left enrols nobody, who has come does
    const { federationId } = manifest;
    const [atA, atC] = [await accountAt(a, "ada"), await accountAt(c, "ada")];
    expect((await call(a.server, atA, "federation.enrol", enrolment(federationId, 1, atA).input)).code).toBe(
      "not_found",
    );
    expect((await call(c.server, atC, "federation.enrol", enrolment(federationId, 3, atC).input)).code).toBe("ok");
  });

  test("follows the one that is held", async () => {
    const first = await federate(servers);
    const other = await signedBy(servers, draftOf(servers, { name: "other" }));
    const wrong = [
      nextOf(first, { previous: random(32) }),
      nextOf(first, { nonce: random(32) }),
      nextOf(first, { epoch: 3 }),
      nextOf(first, { servers: [lineOf(b, 1), lineOf(a, 2)] }),
    ];
    for (const one of wrong) {
      expect(["integrity", "bad_input"]).toContain(errorOf(await propose(a, one, first)).code);
    }
    expect(errorOf(await propose(a, nextOf(other, { name: "x" }), null)).code).toBe("bad_input");
    expect(errorOf(await propose(a, { ...nextOf(first, {}), epoch: 1 }, null)).code).not.toBe("ok");
    expect((await listed(a)).filter(([state]) => state === "member")).toEqual([["member", 1]]);
  });

  test("needs the word of enough old members", async () => {
    const c = await startFederated();
    servers.push(c);
    const first = await federate([a, b]);
    const manifest = nextOf(first, { servers: [lineOf(b, 2), lineOf(c, 3)] });
    const signed = await signedBy([b, c], manifest, first);
    expect(errorOf(await complete(b, signed)).code).toBe("integrity");
    expect(errorOf(await complete(c, signed)).code).toBe("integrity");
    expect(errorOf(await complete(a, signed)).code).toBe("integrity");
  });
});

describe("an account", () => {
  test("is enrolled with keys that have signed for it, once", async () => {
    const { manifest } = await federate(servers);
    const { federationId } = manifest;
    const ada = await accountAt(a, "ada");
    const eve = await accountAt(a, "eve");
    const { input } = enrolment(federationId, 1, ada, new Uint8Array([1]));
    expect((await call(a.server, ada, "federation.enrol", input)).code).toBe("ok");
    expect((await call(a.server, ada, "federation.enrol", input)).code).toBe("ok");
    // other keys, another's keys, another's proofs
    const others = enrolment(federationId, 1, ada, new Uint8Array([8])).input;
    expect((await call(a.server, ada, "federation.enrol", others)).code).toBe("conflict");
    expect((await call(a.server, eve, "federation.enrol", input)).code).toBe("integrity");
    const same = enrolment(federationId, 1, eve, new Uint8Array([1])).input;
    expect((await call(a.server, eve, "federation.enrol", same)).code).toBe("conflict");
    // and what was refused left nothing
    const own = enrolment(federationId, 1, eve, new Uint8Array([32])).input;
    expect((await call(a.server, eve, "federation.enrol", own)).code).toBe("ok");
  });

  test("is enrolled with no proof that was made for something else", async () => {
    const { manifest } = await federate(servers);
    const { federationId } = manifest;
    const ada = await accountAt(a, "ada");
    const { input, request } = enrolment(federationId, 1, ada);
    const at = { federationId, server: 1, userId: ada.userId };
    const wrong = [
      signEnrolment(request, { ...at, role: "approval" }),
      signEnrolment(request, { ...at, role: "request", server: 2 }),
      signEnrolment(request, { ...at, role: "request", federationId: "ab".repeat(32) as FederationId }),
      signEnrolment(request, { ...at, role: "request", userId: "ab".repeat(16) as never }),
      signEnrolment(signerFromSeed(random(32)), { ...at, role: "request" }),
    ];
    for (const requestProof of wrong) {
      expect((await call(a.server, ada, "federation.enrol", { ...input, requestProof })).code).toBe("integrity");
    }
    const one = { ...input, approvalKey: request.publicKey, approvalProof: wrong[0] ?? random(64) };
    expect((await call(a.server, ada, "federation.enrol", one)).code).toBe("bad_input");
    const nowhere = { ...input, federationId: "cd".repeat(32) as FederationId };
    expect((await call(a.server, ada, "federation.enrol", nowhere)).code).toBe("not_found");
  });

  test("that ends takes its enrolment with it", async () => {
    const { manifest } = await federate(servers);
    const ada = await accountAt(a, "ada");
    const { input } = enrolment(manifest.federationId, 1, ada, new Uint8Array([1]));
    expect((await call(a.server, ada, "federation.enrol", input)).code).toBe("ok");
    await a.server.ctx.store.transaction(async (tx) => {
      await eraseFederated(tx, ada.userId);
      await tx.removeAccount(ada.userId);
    });
    const again = await accountAt(a, "ada");
    const same = enrolment(manifest.federationId, 1, again, new Uint8Array([1])).input;
    expect((await call(a.server, again, "federation.enrol", same)).code).toBe("ok");
  });

  test("finds what it did in its log, under the first half of the id", async () => {
    const { manifest } = await federate(servers);
    const ada = await accountAt(a, "ada");
    const { input } = enrolment(manifest.federationId, 1, ada);
    await call(a.server, ada, "federation.enrol", { ...input, requestProof: random(64) });
    await call(a.server, ada, "federation.enrol", input);
    const entries = (await logOf(a.server, ada.userId)).filter((entry) => entry.action === "federation.enrol");
    expect(entries.map(({ status }) => status)).toEqual(["integrity", "ok"]);
    for (const { keyId } of entries) expect(keyId as string).toBe(manifest.federationId.slice(0, 32));
  });
});
