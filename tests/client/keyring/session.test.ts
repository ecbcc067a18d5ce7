import { afterEach, describe, expect, test } from "bun:test";
import { decodeModel, encodeModel } from "../../../src/client/model.ts";
import type { Signer } from "../../../src/crypto/identity.ts";
import type { ServerContext } from "../../../src/server/context.ts";
import { assembleRegistry } from "../../../src/server/keyring/index.ts";
import type { RegistrySite } from "../../../src/server/keyring/service.ts";
import {
  addTestDevice,
  registerDevice,
  startTestServer,
  type TestDevice,
  type TestServer,
} from "../../support/harness.ts";
import { rejected } from "../../support/hostile.ts";
import { seedOf } from "../../support/policies.ts";

/* Keyrings over the account's own session: OPAQUE login, sealed frames, a vault on disk. */

const open: { end(): Promise<void> }[] = [];
afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one.end();
});

function registryAt(ctx: ServerContext, identity: Signer) {
  const site: RegistrySite = {
    ctx,
    version: "test",
    identity,
    sealingSeed: seedOf("registry sealing"),
    notify: () => undefined,
  };
  return assembleRegistry(site);
}

async function server(role: boolean): Promise<TestServer> {
  const started = await startTestServer(role ? { registry: registryAt } : {});
  open.push({ end: () => started.close() });
  return started;
}

async function register(at: TestServer, name: string, link = at.link()): Promise<TestDevice> {
  const device = await registerDevice(link, name, `password of ${name}`);
  open.push(device);
  return device;
}

const W = { workspace: "funds" } as const;

describe("over a real session", () => {
  test("two accounts make a workspace together; what was seen is in the vault, which opens again", async () => {
    const at = await server(true);
    const [ada, bob] = [await register(at, "ada"), await register(at, "bob")];
    const owners = [{ name: "bob", keyHex: (await bob.client.keyringOwner()).keyHex }];
    const wanted = { name: "funds", owners, self: "ada", admin: 2, sign: 2 };
    const made = await ada.client.createWorkspace(wanted);
    expect(made).toMatchObject({ version: 2, balance: 0, owners: [{ own: true }, { own: false }] });
    expect(await bob.client.workspace(W)).toMatchObject({ workspaceId: made.workspaceId });
    const { held } = ada.open.box.model;
    expect(held.federationSecret).toHaveLength(32);
    expect(held.workspacePins).toMatchObject([{ workspaceId: made.workspaceId, version: 2 }]);
    const again = decodeModel(encodeModel(ada.open.box.model));
    expect(again.held.workspacePins).toEqual(held.workspacePins);
    expect(again.held.federationSecret).toEqual(held.federationSecret);
    expect(await ada.client.keyrings()).toEqual([]);
    expect(await ada.client.keyringInbox()).toEqual([]);
    expect((await ada.client.status()).session?.valid).toBe(true);
  });

  test("a device without the federation secret says how to get it, and reads what it may", async () => {
    const at = await server(true);
    const ada = await register(at, "ada");
    const owner = await ada.client.keyringOwner();
    await ada.client.createWorkspace({ name: "funds", owners: [], self: "ada", admin: 1, sign: 1 });
    const further = await addTestDevice(at.link(), "ada", "password of ada");
    open.push(further);
    expect((await further.client.workspace(W)).owners[0]?.own).toBe(false);
    const change = { kind: "quorums", admin: 1, sign: 1 } as const;
    const fault = await rejected(further.client.changeWorkspace({ ...W, change }), "not_found");
    expect(fault.hint).toContain("device link");
    expect(await further.client.keyringInbox()).toEqual([]);
    // it has no owner key of its own either, and keeps no secret that it drew in vain
    expect((await rejected(further.client.keyringOwner(), "denied")).hint).toContain("device link");
    await rejected(further.client.createWorkspace({ name: "w", owners: [], self: "a", admin: 1, sign: 1 }), "denied");
    expect(further.open.box.model.held.federationSecret).toBeNull();
    expect(await ada.client.keyringOwner()).toEqual(owner);
  });

  test("a server that is no registry says so, and changes nothing", async () => {
    const ada = await register(await server(false), "ada");
    await rejected(ada.client.keyringOwner(), "unsupported");
    await rejected(ada.client.workspaces(), "unsupported");
    expect(ada.open.box.model.held.federationSecret).toBeNull();
  });

  test("a registry behind another identity than the pinned one is refused", async () => {
    const at = await server(true);
    const middle = at.link("127.0.0.1", async (operation, body, forward) => {
      const reply = await forward(operation, body);
      if (operation !== "keyring.info") return reply;
      const shown = JSON.parse(new TextDecoder().decode(new Uint8Array(Buffer.from(reply.body as never)))) as object;
      const registry = Buffer.from(seedOf("another")).toString("base64url");
      return { ...reply, body: JSON.stringify({ ...shown, registry }) };
    });
    const ada = await register(at, "ada", middle);
    await rejected(ada.client.keyringOwner(), "integrity");
  });

  test("without the server every call says that it is away", async () => {
    const ada = await register(await server(true), "ada");
    await ada.client.keyringOwner();
    const { createClient } = await import("../../../src/client/client.ts");
    const place = { profile: "test", server: { url: "https://127.0.0.1:1", pin: "" } };
    const client = createClient({ ...ada.open, session: null }, place, async () => undefined);
    const items = [{ key: "ab", form: "message", message: new Uint8Array(1), input: 0, amount: null }] as const;
    for (const call of [
      () => client.keyringOwner(),
      () => client.workspaces(),
      () => client.keyrings(),
      () => client.keyringInbox(),
      () => client.requestKey({ ...W, keyring: "k", type: "ed25519" }),
      () => client.requestSignatures({ items }),
      () => client.voteKeyring({ requestId: "ab".repeat(32), verdict: "reject", reason: "no" }),
      () => client.continueKeyringRequest({ requestId: "ab".repeat(32) }),
    ]) {
      await rejected(call(), "unreachable");
    }
  });
});
