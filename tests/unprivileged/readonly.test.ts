import { afterAll, beforeAll, expect, setDefaultTimeout } from "bun:test";
import { chmodSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { errorOf, type Home, keyhold, openWorld, SETUP_MS, serve, type World } from "../binary/world.ts";
import { testUnprivileged } from "../support/skip.ts";

/** Directories and files that may not be written: refused with the reason, left as they are, and fine afterwards. */

setDefaultTimeout(60_000);
let world: World;
beforeAll(async () => {
  if (process.getuid?.() !== 0) world = await openWorld({ server: false });
}, SETUP_MS);
afterAll(() => world?.close());

const serveOnce = (dir: string) => keyhold(world.dir, ["serve", "--dir", dir, "--listen", "127.0.0.1:0", "--json"]);

async function servedOnce(name: string): Promise<string> {
  const { dir } = world.home(name);
  await (await serve(dir)).stop();
  return dir;
}

testUnprivileged("a server whose database or directory is read-only does not start, and says why", async () => {
  const dir = await servedOnce("read-only");
  const database = join(dir, "keyhold.db");
  for (const [path, closed, open] of [
    [database, 0o400, 0o600],
    [dir, 0o500, 0o700],
  ] as const) {
    const before = readFileSync(database);
    chmodSync(path, closed);
    const ran = await serveOnce(dir);
    chmodSync(path, open);
    expect([ran.code === 0, ran.out]).toEqual([false, ""]);
    const { code, message } = errorOf(ran);
    expect([code, message]).toEqual([expect.stringMatching(/^(storage|denied)$/), expect.stringContaining(dir)]);
    expect(readFileSync(database)).toEqual(before);
  }
  await servedOnce("read-only");
});

testUnprivileged("a vault in a read-only directory is read, not written, and takes changes again later", async () => {
  const home: Home = world.home("vault");
  await home.ok(["init", "--local", ...home.password, "--kdf", "test"]);
  await home.ok(["store", "kept", ...home.password], { stdin: "kept" });
  const { data } = await home.ok(["vault", "status"]);
  const vault: string = data.path;
  const before = readFileSync(vault);
  chmodSync(join(vault, ".."), 0o500);
  const error = await home.fails(1, ["store", "lost", ...home.password], { stdin: "lost" });
  chmodSync(join(vault, ".."), 0o700);
  expect(error.code).toBe("storage");
  expect(readFileSync(vault)).toEqual(before);
  expect(statSync(vault).mode & 0o777).toBe(0o600);
  await home.ok(["store", "next", ...home.password], { stdin: "next" });
  expect((await home.ok(["vault", "check", ...home.password])).data).toMatchObject({ ok: true, secrets: 2 });
});
