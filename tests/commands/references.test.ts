import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { parseReference, referenceText, withReferences } from "../../src/commands/references.ts";
import { Fault } from "../../src/errors.ts";
import { loadSettings } from "../../src/ui/config.ts";
import { createOutput } from "../../src/ui/output.ts";
import { directories } from "../../src/ui/paths.ts";
import type { SessionContext } from "../../src/ui/session.ts";
import { createTerminal } from "../../src/ui/terminal.ts";
import { type Home, openWorld, SETUP_MS, type World } from "../binary/world.ts";
import { rejected } from "../support/hostile.ts";

setDefaultTimeout(60_000);
let world: World;
let home: Home;
beforeAll(async () => {
  world = await openWorld({ server: false });
  home = world.home("home");
  await home.ok(["init", "--local", "--kdf", "test", ...home.password]);
  await home.ok(["store", "a", ...home.password], { stdin: "first value" });
  await home.ok(["store", "b", ...home.password], { stdin: "second value" });
}, SETUP_MS);
afterAll(() => world.close());

describe("a reference", () => {
  test("has a name, and may have a version, a profile and a field", () => {
    const none = { version: null, profile: null, field: null };
    for (const [text, meaning] of [
      ["kh://db/prod", { ...none, name: "db/prod" }],
      ["kh://a%20b%23c%3f", { ...none, name: "a b#c?" }],
      ["kh://x?version=12&profile=w%20p#user", { name: "x", version: 12, profile: "w p", field: "user" }],
      ["kh://x#a%23b", { ...none, name: "x", field: "a#b" }],
      ["kh://x#", { ...none, name: "x" }],
      ["kh://\u00e9", { ...none, name: "\u00e9" }],
    ] as const) {
      expect([text, parseReference(text)]).toEqual([text, meaning]);
    }
  });

  test("anything else is refused", () => {
    for (const text of ["", "x", "kh:/x", "kh://", "kh://?version=1", "kh://%zz", "kh://x?version=0"]) {
      expect(() => parseReference(text)).toThrow(Fault);
    }
    for (const query of ["version=1.5", "version=01", "version=99999999999", "profile=", "v=1", "=", "version"]) {
      expect(() => parseReference(`kh://x?${query}`)).toThrow("is not a reference");
    }
  });

  test("written out means the same again", () => {
    fc.assert(
      fc.property(
        fc.string({ unit: "grapheme", minLength: 1 }),
        fc.option(fc.string({ minLength: 1 })),
        (name, field) => {
          expect(parseReference(referenceText({ name, field }))).toMatchObject({ name, field });
        },
      ),
    );
  });
});

/** What a command gets, in the home of these tests. */
function context(): SessionContext {
  const env = { KEYHOLD_HOME: home.dir };
  const dirs = directories(env);
  const out = createOutput({ json: false, quiet: true, verbose: false, color: "never", env, write: () => undefined });
  const term = createTerminal({ out, noInput: true, yes: false, env, signal: new AbortController().signal });
  const flags = {
    json: false,
    quiet: true,
    verbose: false,
    color: null,
    noInput: true,
    yes: false,
    noPager: true,
    profile: null,
    config: null,
    passwordFd: null,
    passwordFile: home.password[1],
    passwordStdin: false,
    factorFd: null,
    factorFile: null,
    kdf: "test",
  } as const;
  return {
    out,
    term,
    flags,
    env,
    dirs,
    stdin: { claim: () => undefined },
    settings: async () => loadSettings({ env, file: null, userDirectory: dirs.config, flags: { profile: null } }),
  };
}

describe("values of references", () => {
  const references = ["kh://a", "kh://b", "kh://a"].map(parseReference);

  test("come in order, and are wiped when the work has ended, well or not", async () => {
    for (const fails of [false, true]) {
      let held: readonly Uint8Array[] = [];
      const work = withReferences(context(), references, { fresh: false }, async (values) => {
        held = values.map(({ bytes }) => bytes);
        expect(held.map((bytes) => new TextDecoder().decode(bytes))).toEqual([
          "first value",
          "second value",
          "first value",
        ]);
        if (fails) throw new Fault("denied", "no");
        return "done";
      });
      expect(await work.catch((error: unknown) => (error instanceof Fault ? error.code : error))).toBe(
        fails ? "denied" : "done",
      );
      expect(held).toHaveLength(3);
      for (const bytes of held) expect(bytes.every((byte) => byte === 0)).toBe(true);
    }
  });

  test("all or none: with one that is not there the work is not begun", async () => {
    for (const [missing, code] of [
      ["kh://none", "not_found"],
      ["kh://a?version=9", "not_found"],
      ["kh://b#none", "not_found"],
      ["kh://a?profile=none", "not_logged_in"],
    ] as const) {
      let begun = false;
      const work = withReferences(context(), [...references, parseReference(missing)], { fresh: false }, async () => {
        begun = true;
      });
      expect([missing, await rejected(work, code)]).toEqual([missing, expect.any(Fault)]);
      expect(begun).toBe(false);
    }
  });

  test("none of them open nothing", async () => {
    const nowhere = { ...context(), dirs: directories({ KEYHOLD_HOME: join(home.dir, "nowhere") }) };
    expect(await withReferences(nowhere, [], { fresh: false }, async (values) => values.length)).toBe(0);
  });
});
