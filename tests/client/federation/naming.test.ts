import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createFederation } from "../../../src/client/federation/creating.ts";
import { heldIn } from "../../../src/client/federation/keeping.ts";
import { rejected } from "../../support/hostile.ts";
import { type ClientWorld, clientWorld, createInput, type TestVault } from "./world.ts";

setDefaultTimeout(60_000);

describe("a federation's name", () => {
  let world: ClientWorld;
  let owner: TestVault;
  beforeAll(async () => {
    world = await clientWorld();
    owner = await world.vault();
  });
  afterAll(() => world.close());

  for (const name of ["Custody", "custody!", "", "-custody", "cus tody", "x".repeat(65), "kühl"]) {
    test(`"${name.slice(0, 10)}" is refused before anything is kept or asked`, async () => {
      const asked = world.calls.length;
      await rejected(createFederation(owner.open, { ...createInput(world), name }, world), "bad_input");
      expect(heldIn(owner.open).federationDrafts).toEqual([]);
      expect(world.calls).toHaveLength(asked);
    });
  }
});
