import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { modulesOf } from "./traces.ts";
import { binary, environment, type Home, openWorld, SETUP_MS, type World } from "./world.ts";

/** What each command loads: a command of every day pays for nothing that it does not use. */

let world: World;
let home: Home;
setDefaultTimeout(60_000);

beforeAll(async () => {
  world = await openWorld({ server: false });
  home = world.home("person");
  await home.ok(["init", "--local", ...home.password, "--kdf", "test"]);
  await home.ok(["unlock", ...home.password, "--kdf", "test"]);
  await home.ok(["generate", "db/prod", "--type", "token"]);
}, SETUP_MS);
afterAll(async () => {
  await home.run(["lock"]);
  await world.close();
});

/** Comparing and encoding bytes, and the names of signature schemes: nothing that computes. */
const HARMLESS = ["src/crypto/bytes.ts", "src/crypto/schemes.ts"];
const CRYPTO =
  /^src\/crypto\/|^src\/protocol\/(vault|secret|state|leaf|keygen|channel)\.ts$|@noble|@scure|@hpke|opaque|jose/;
const HEAVY = /zxcvbn|^src\/formats\/|@clack|kdbxweb|age-encryption|consola|@peculiar|^src\/(server|storage)\//;

async function loadedBy(...argv: readonly string[]) {
  const { code, modules } = await modulesOf(home.dir, argv);
  expect(code).toBe(0);
  expect(modules).toContain("src/version.ts");
  const crypto = modules.filter((path) => CRYPTO.test(path) && !HARMLESS.includes(path));
  return { modules, crypto, heavy: modules.filter((path) => HEAVY.test(path)) };
}

describe("modules", () => {
  test("the version as a flag is said with nothing else loaded", async () => {
    expect((await loadedBy("--version")).modules.toSorted()).toEqual(["src/main.ts", "src/version.ts"]);
  });

  test.each([[["version"]], [["help"]], [["help", "list"]], [["get", "--help"]]])(
    "%j loads no cryptography",
    async (argv) => {
      const { crypto, heavy } = await loadedBy(...argv);
      expect([crypto, heavy]).toEqual([[], []]);
    },
  );

  test.each([[["get", "db/prod"]], [["get", "db/prod", "--reveal", "--json"]], [["list"]], [["search", "db"]]])(
    "%j by the agent loads no cryptography, no OPAQUE, no strength estimator, no formats and no client",
    async (argv) => {
      const { crypto, heavy, modules } = await loadedBy(...argv);
      expect([crypto, heavy]).toEqual([[], []]);
      expect(modules).toContain("src/client/agentsocket.ts");
      expect(modules.filter((path) => /src\/client\/(home|client|model|session|opaque)\.ts/.test(path))).toEqual([]);
    },
  );

  test("what needs the vault does load it: the lists above are not empty by accident", async () => {
    const { crypto, modules } = await loadedBy("vault", "check", ...home.password, "--kdf", "test");
    expect(crypto).toContain("src/crypto/xaes.ts");
    expect(modules).toContain("src/client/vaultfile.ts");
  });
});

describe("--version where nothing can be written", () => {
  test("a full disk is a clear error and exit 1", async () => {
    const { code, err } = await throughShell('exec "$0" --version >/dev/full');
    expect([code, err]).toEqual([1, expect.stringContaining("the disk is full")]);
    expect(err).toContain("[storage, exit 1]");
  });

  test("a reader that has gone is not spoken of", async () => {
    // the first read ends at once, so that the pipe has no reader by the time of the write
    const { code, err } = await throughShell('{ sleep 0.2; "$0" --version; echo $? >&2; } | true');
    expect([code, err]).toEqual([0, "141\n"]);
  });

  async function throughShell(script: string): Promise<{ code: number; err: string }> {
    const child = Bun.spawn(["bash", "-c", script, await binary()], {
      env: environment(home.dir),
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    const [err, code] = await Promise.all([child.stderr.text(), child.exited]);
    return { code, err };
  }
});
