import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { SignedManifest } from "../../../src/protocol/federation/manifest.ts";
import { CONNECTORS_MAX } from "../../../src/server/federation/connectors.ts";
import { rejection } from "../../storage/rejection.ts";
import { call, output, type RawSession } from "../../support/attacker.ts";
import { accountAt, type FederatedServer, federate, startFederated } from "../../support/federatedserver.ts";
import { keyringGenerateBody, makeKeyringRequest, makeWorkspacePolicy } from "../../support/keyringrequests.ts";
import { keyOf } from "../../support/policies.ts";

const REGISTRY = keyOf("registry");
let a: FederatedServer;
let other: FederatedServer;
let federation: SignedManifest;
let session: RawSession;

beforeEach(async () => {
  [a, other] = [await startFederated(), await startFederated()];
  federation = await federate([a, other]);
  session = await accountAt(a, "north");
});
afterEach(async () => {
  for (const one of [a, other]) {
    expect(one.server.faults).toEqual([]);
    await one.close();
  }
});

const control = () => a.service.control;
const allow = (account = "north", registry = REGISTRY) => control()["connector.allow"]({ account, registry });
const listed = async () => (await control()["connector.list"]({})).items;
const space = makeWorkspacePolicy({ registry: REGISTRY });

async function set(who = session): Promise<string> {
  const [policy] = space.chain;
  if (!policy) throw new Error("no link");
  return (await call(a.server, who, "federation.policy.set", { policy })).code;
}

function submitted() {
  const { federationId } = federation.manifest;
  const nowMs = a.site.ctx.now();
  const body = keyringGenerateBody(space.workspaceId);
  const request = makeKeyringRequest({ federationId, workspace: space, body, nonce: keyOf("nonce"), nowMs });
  return call(a.server, session, "federation.submit", { request, label: null });
}

describe("the operator's word on connectors", () => {
  test("an account is allowed once, for each registry by itself", async () => {
    const first = await allow();
    expect(first).toMatchObject({ account: "north", registry: REGISTRY });
    expect(await allow()).toEqual(first);
    await allow("north", keyOf("another"));
    expect((await listed()).map(({ account, registry }) => [account, registry.toHex()]).sort()).toEqual(
      [REGISTRY, keyOf("another")].map((key) => ["north", key.toHex()]).sort(),
    );
  });

  test("is needed: without it the account is a stranger, with it its first request waits for approval", async () => {
    expect([await set(), (await submitted()).code]).toEqual(["not_found", "denied"]);
    await allow();
    expect(await set()).toBe("ok");
    expect(output("federation.submit", await submitted()).status).toBe("awaiting_approval");
  });

  test("is for that registry alone", async () => {
    await allow("north", keyOf("another"));
    expect([await set(), (await submitted()).code]).toEqual(["not_found", "denied"]);
  });

  test("is taken back at once, of one registry or of all", async () => {
    await allow();
    await allow("north", keyOf("another"));
    const revoke = (registry: Uint8Array | null) => control()["connector.revoke"]({ account: "north", registry });
    expect(await set()).toBe("ok");
    expect(await revoke(REGISTRY)).toMatchObject({ revoked: 1 });
    expect(await set()).toBe("not_found");
    expect(await revoke(null)).toMatchObject({ revoked: 1 });
    expect(await listed()).toEqual([]);
    expect(await rejection(revoke(null))).toMatchObject({ code: "not_found" });
  });

  test("goes with the account", async () => {
    await allow();
    await a.server.store.transaction((tx) => tx.removeAccount(session.userId));
    expect(await listed()).toEqual([]);
  });

  test("names accounts that are there, and not without end", async () => {
    expect(await rejection(allow("nobody"))).toMatchObject({ code: "not_found" });
    expect(await rejection(control()["connector.revoke"]({ account: "nobody", registry: null }))).toMatchObject({
      code: "not_found",
    });
    for (let n = 0; n < CONNECTORS_MAX; n++) await allow("north", keyOf(`registry ${n}`));
    expect(await rejection(allow())).toMatchObject({ code: "too_large" });
    expect(await listed()).toHaveLength(CONNECTORS_MAX);
  });
});
