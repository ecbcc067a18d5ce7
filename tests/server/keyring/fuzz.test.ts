import { afterAll, beforeAll, expect, test } from "bun:test";
import fc from "fast-check";
import { isErrorCode } from "../../../src/errors.ts";
import type { RegistryOperation } from "../../../src/server/context.ts";
import { type Codec, decodeJson, schemaOf } from "../../../src/wire/codec.ts";
import type { InputOf, SessionOperation } from "../../../src/wire/operations.ts";
import { operations } from "../../../src/wire/operations.ts";
import { codeOf, type RegistryPerson, type RegistryWorld, registryWorld } from "../../support/registryworld.ts";
import { valuesOf } from "../../support/schemavalues.ts";

/** Whatever well-formed input comes, also about what is the caller's own: a typed refusal, and nothing that breaks. */

let world: RegistryWorld;
let who: RegistryPerson;
let own: Record<string, unknown>;
beforeAll(async () => {
  world = await registryWorld();
  who = await world.person("ada");
  await world.enrol(who, "party");
  const parties = [who, await world.connector("south"), await world.connector("west")];
  const { workspaceId } = await world.workspace([who]);
  const { keyringId } = await world.keyring(who, parties);
  await world.control["registry.credit"]({ workspaceId, amount: 1_000, note: "" });
  own = { workspaceId, keyringId, after: null, waitMs: 0 };
});
afterAll(() => world.close());

const NAMES = (Object.keys(operations) as SessionOperation[]).filter(
  (name): name is RegistryOperation => operations[name].auth === "session" && /^(keyring|workspace|party)\./.test(name),
);

test.each(NAMES)("%s", async (name) => {
  const codec = operations[name].input as Codec<unknown>;
  await fc.assert(
    fc.asyncProperty(valuesOf(schemaOf(codec)), fc.boolean(), async (value, mine) => {
      const given = value as Record<string, unknown>;
      const ids = Object.entries(own).filter(([field]) => field in given && (mine || field === "waitMs"));
      const json = JSON.stringify({ ...given, ...Object.fromEntries(ids) });
      let input: unknown;
      try {
        input = decodeJson(codec, new TextEncoder().encode(json));
      } catch {
        // the schema says less than the codec
        return;
      }
      const code = await codeOf(world.call(name, input as InputOf<RegistryOperation>, who));
      expect(code === "ok" || isErrorCode(code)).toBe(true);
      expect(["internal", "corrupt", "storage"]).not.toContain(code);
    }),
    { numRuns: 40 },
  );
  expect(await world.control["registry.balances"]({})).toMatchObject({ sound: true });
});
