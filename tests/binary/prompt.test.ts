import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { onTerminal } from "./terminal.ts";
import { type Home, openWorld, SETUP_MS, serverFlags, type World } from "./world.ts";

setDefaultTimeout(60_000);
let world: World;
let locked: Home;
beforeAll(async () => {
  world = await openWorld();
  locked = await world.home("locked").register("locked", { login: false });
}, SETUP_MS);
afterAll(() => world.close());

describe("at a terminal", () => {
  const password = () => readFileSync(locked.password[1], "utf8");

  test("the password is asked for, not echoed, and opens", async () => {
    const steps = [{ expect: "Password", type: `${password()}\r` }];
    const { shown, code } = await onTerminal(locked.dir, ["list"], steps);
    expect(code).toBe(0);
    expect(shown).not.toContain("correct horse");
    expect(shown).not.toMatch(/[•▪*]{2}/);
    const wrong = await onTerminal(locked.dir, ["list"], [{ expect: "Password", type: "something else\r" }]);
    expect(wrong.code).toBe(4);
  });

  test("Ctrl-C in the prompt exits 130, SIGTERM 143; the terminal is as before", async () => {
    expect((await onTerminal(locked.dir, ["list"], [{ expect: "Password", type: "half\u0003" }])).code).toBe(130);
    expect((await onTerminal(locked.dir, ["list"], [{ expect: "Password", signal: "SIGTERM" }])).code).toBe(143);
    expect((await onTerminal(locked.dir, ["list"], [{ expect: "Password", signal: "SIGINT" }])).code).toBe(130);
  });

  test("CI or --no-input asks nobody, also at a terminal", async () => {
    for (const extra of [{ env: { CI: "1" } }, {}]) {
      const argv = ["list", "--json", ...("env" in extra ? [] : ["--no-input"])];
      const { shown, code } = await onTerminal(locked.dir, argv, [], extra);
      expect([code, shown.includes("password_needed")]).toEqual([4, true]);
    }
  });

  test("a recovery kit asks for two of its words; Ctrl-C there says that the kit is in force", async () => {
    const argv = ["account", "recovery-kit"];
    const cut = await onTerminal(locked.dir, argv, [
      { expect: "Password", type: `${password()}\r` },
      { expect: /Word \d+ of the kit/, type: "keyhold\r" },
      { expect: "look at the kit again", type: "\u0003" },
    ]);
    expect(cut.code).toBe(130);
    expect(cut.shown).toContain("in force all the same");
    expect(cut.shown).not.toContain("nothing was done");
  });

  test("registering asks for what is missing, the password twice", async () => {
    const fresh = world.home("asked");
    const { url, pin } = world.server;
    const typed = "a password typed twice";
    const asked = await onTerminal(
      fresh.dir,
      ["register", "--kdf", "test"],
      [
        { expect: "URL of the server", type: `${url}\r` },
        { expect: "Pin of the server", type: `${pin}\r` },
        { expect: "Account name", type: "asked\r" },
        { expect: "Password", type: `${typed}\r` },
        { expect: "Again", type: `${typed}\r` },
      ],
    );
    expect([asked.code, asked.shown.includes(typed)]).toEqual([0, false]);
    const login = await onTerminal(fresh.dir, ["login"], [{ expect: "Password", type: `${typed}\r` }]);
    expect(login.code).toBe(0);
    const stored = await onTerminal(fresh.dir, ["store", "typed"], [{ expect: "Value", type: "typed value\r" }]);
    expect(stored.code).toBe(0);
    expect((await fresh.run(["read", "typed"])).out).toBe("typed value");
    const no = await onTerminal(fresh.dir, ["remove", "typed"], [{ expect: "Remove typed?", type: "\r" }]);
    expect(no.code).toBe(130);
    const yes = await onTerminal(fresh.dir, ["remove", "typed"], [{ expect: "Remove typed?", type: "y" }]);
    expect(yes.code).toBe(0);
    await fresh.fails(3, ["get", "typed"]);
  });

  test("two passwords that differ register nobody: they are asked for again", async () => {
    const fresh = world.home("differ");
    const argv = ["register", ...serverFlags(world.server, "differ"), "--kdf", "test"];
    const ran = await onTerminal(fresh.dir, argv, [
      { expect: "Password", type: "the first password\r" },
      { expect: "Again", type: "the other password\r" },
      { expect: /the two differ: try again.*Password/s, type: "\u0003" },
    ]);
    expect([ran.code, ran.shown.includes("differ")]).toEqual([130, true]);
    expect((await fresh.ok(["profile", "list"])).data.items).toEqual([]);
  });
});
