import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createFederationClient, type FederationPart } from "../../../src/client/federation/index.ts";
import { type ClientWorld, clientWorld, createInput, formed, join1, type TestVault } from "./world.ts";

setDefaultTimeout(60_000);

describe("what federation check proposes", () => {
  let world: ClientWorld;
  let owner: TestVault;
  let part: FederationPart;
  beforeAll(async () => {
    world = await clientWorld();
    owner = await world.vault();
    await formed(world, owner.open);
    await join1(world, owner.open);
    part = createFederationClient(owner.open, world);
    const wish = { federation: "trio", bytes: 32, custody: "delegated", control: "unilateral", policy: null } as const;
    await part.calls.generateFederated({ ...wish, name: "key", type: "ed25519" });
  });
  afterAll(async () => {
    await part.end();
    await world.close();
  });

  test("nothing where nothing is wrong", async () => {
    const check = await part.calls.checkFederation({ federation: "trio" });
    expect(check).toMatchObject({ ok: true, keys: [{ live: [1, 2, 3], certified: [1, 2, 3], proposal: null }] });
  });

  test("to bring a server back that is away: there is nothing to repair", async () => {
    world.server(3).away = true;
    const again = createFederationClient(owner.open, world);
    const check = await again.calls.checkFederation({ federation: "trio" });
    expect(check).toMatchObject({ ok: false, keys: [{ live: [1, 2], proposal: "bring server 3 back" }] });
    const audit = await again.calls.auditFederation({ federation: "trio" });
    expect(audit).toMatchObject({ ok: false, findings: [] });
    expect(audit.unasked).toEqual([expect.stringContaining("server 3")]);
    world.server(3).away = false;
    await again.end();
  });

  test("drafts go on by their name alone; without a draft there is nothing to go on with", async () => {
    const other = await world.vault();
    const another = createFederationClient(other.open, world);
    const input = createInput(world, "second");
    const made = await another.calls.createFederation(input);
    expect(await another.calls.createFederation({ ...input, threshold: 99, servers: [] })).toEqual(made);
    const none = another.calls.createFederation({ ...input, name: "third", servers: [] });
    expect(await none.catch((error: unknown) => error)).toMatchObject({ code: "not_found" });
    await another.end();
  });
});
