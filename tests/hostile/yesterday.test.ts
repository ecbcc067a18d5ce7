import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, rmSync } from "node:fs";
import { openWorld, SETUP_MS, serve, type World } from "../binary/world.ts";

/** Yesterday's copy of the server's directory put back by hand, without `server restore`: real processes throughout. */

setDefaultTimeout(60_000);
let world: World;
beforeAll(async () => {
  world = await openWorld();
}, SETUP_MS);
afterAll(() => world.close());

/** Ends the server, changes its directory and starts it again on the same port. */
async function meanwhile(work: (dir: string) => void): Promise<void> {
  const { port } = world.server;
  const dir = world.file("server");
  await world.server.stop();
  work(dir);
  world.server = await serve(dir, ["--listen", `127.0.0.1:${port}`]);
}

const save = (copy: string) => (dir: string) => cpSync(dir, world.file(copy), { recursive: true });
const putBack = (copy: string) => (dir: string) => {
  rmSync(dir, { recursive: true });
  cpSync(world.file(copy), dir, { recursive: true });
};

test("today's clients refuse yesterday's directory, with an agent, without one, and after a login; today's serves again", async () => {
  const desk = await world.home("desk", "a password of ada's own").register("ada");
  const phone = await world.home("phone", "a password of ada's own").login("ada");
  await desk.ok(["store", "a"], { stdin: "yesterday" });
  await phone.ok(["sync"]);
  await meanwhile(save("yesterday"));
  await desk.ok(["store", "a"], { stdin: "today" });
  // what only the second device has seen counts for it as well
  await phone.ok(["get", "a", "--fresh"]);
  await meanwhile(save("today"));
  const commands = [
    ["list", "--fresh"],
    ["get", "a", "--reveal", "--fresh"],
    ["sync"],
    ["audit", "verify"],
    ["history", "a"],
  ];
  await meanwhile(putBack("yesterday"));
  for (const home of [desk, phone]) {
    for (const command of commands) {
      expect([command, (await home.fails(8, command)).code]).toEqual([command, "integrity"]);
      const alone = await home.fails(8, [...command, ...home.password]);
      expect([command, alone.code]).toEqual([command, "integrity"]);
    }
    expect((await home.fails(8, ["login", ...home.password])).code).toBe("integrity");
  }
  await meanwhile(putBack("today"));
  for (const home of [desk, phone]) {
    expect((await home.run(["read", "a", "--fresh", ...home.password])).out).toBe("today");
    await home.login();
    expect((await home.run(["read", "a", "--fresh"])).out).toBe("today");
    expect((await home.ok(["audit", "verify"])).data.ok).toBe(true);
  }
});

test("two devices that are each shown a continuation of their own notice once they are shown the other's", async () => {
  const desk = await world.home("fork-desk", "a password of bob's own").register("bob");
  const phone = await world.home("fork-phone", "a password of bob's own").login("bob");
  await desk.ok(["store", "shared"], { stdin: "before" });
  await phone.ok(["sync"]);
  await desk.ok(["sync"]);
  await meanwhile(save("base"));
  await desk.ok(["store", "of-the-desk"], { stdin: "value" });
  await desk.ok(["agent", "stop"]);
  await meanwhile(save("of-the-desk"));
  await meanwhile(putBack("base"));
  await phone.ok(["store", "of-the-phone", ...phone.password], { stdin: "value" });
  await phone.ok(["store", "of-the-phone", ...phone.password], { stdin: "again" });
  await phone.ok(["agent", "stop"]);
  // each of them in new processes, which know no more than the vault does
  expect((await desk.fails(8, ["list", "--fresh", ...desk.password])).code).toBe("integrity");
  // a login only opens a session: what it leads to is refused
  await desk.login();
  expect((await desk.fails(8, ["list"])).code).toBe("integrity");
  await desk.ok(["agent", "stop"]);
  await meanwhile(putBack("of-the-desk"));
  expect((await phone.fails(8, ["list", "--fresh", ...phone.password])).code).toBe("integrity");
  expect((await desk.run(["read", "of-the-desk", "--fresh", ...desk.password])).out).toBe("value");
});
