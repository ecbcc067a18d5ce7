import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, statSync } from "node:fs";
import { onTerminal } from "./terminal.ts";
import { type Home, openWorld, SETUP_MS, type World } from "./world.ts";

setDefaultTimeout(30_000);
let world: World;
beforeAll(async () => {
  world = await openWorld();
}, SETUP_MS);
afterAll(() => world.close());

async function local(name: string): Promise<Home> {
  const home = world.home(name);
  await home.ok(["init", "--local", ...home.password, "--kdf", "test"]);
  await home.ok(["store", "a", ...home.password], { stdin: "value of a" });
  return home;
}
const next = () => ["--password-file", world.file("next", "the next password")];

test("a lost password is replaced by the kit's file, by bare words and by a descriptor", async () => {
  const home = await local("lost");
  const kit = world.file("lost-kit");
  const made = await home.ok(["vault", "recovery-kit", "--out", kit, ...home.password]);
  expect(made.data).toEqual({
    profile: "default",
    vaultId: expect.stringMatching(/^[0-9a-f]{32}$/),
    replaced: false,
    confirmed: false,
    out: kit,
  });
  expect(statSync(kit).mode & 0o777).toBe(0o600);
  expect((await home.ok(["vault", "recover", "--kit-file", kit, ...next()])).data).toEqual({
    profile: "default",
    recovered: true,
  });
  expect((await home.run(["read", "a", ...next()])).out).toBe("value of a");
  expect((await home.fails(4, ["read", "a", ...home.password])).code).toBe("wrong_password");
  const words = readFileSync(kit, "utf8").split("\nwords\n")[1]?.split("\n\n")[0] ?? "";
  await home.ok(["vault", "recover", "--kit-fd", "0", ...home.password], { stdin: words });
  expect((await home.run(["read", "a", ...home.password])).out).toBe("value of a");
});

test("refused: a word that is none, another vault's kit, one that was replaced, an account's; the vault stays", async () => {
  const [home, other] = [await local("refuses"), await local("other")];
  const kit = async (of: Home, name: string) => {
    const path = world.file(name);
    await of.ok(["vault", "recovery-kit", "--out", path, ...of.password]);
    return path;
  };
  const voided = await kit(home, "voided");
  const current = await kit(home, "current");
  const strangers = await kit(other, "strangers");
  const text = readFileSync(current, "utf8");
  const broken = world.file("broken", text.replace(/^( +1 )[a-z]+/m, "$1keyholds"));
  const recover = (file: string) => ["vault", "recover", "--kit-file", file, ...next()];
  expect(await home.fails(2, recover(broken))).toMatchObject({ message: "word 1 is not a word of a recovery kit" });
  expect((await home.fails(4, recover(strangers))).message).toBe("this is the recovery kit of another vault");
  expect((await home.fails(4, recover(voided))).why).toContain("a kit made later");
  const account = await world.home("kitted").register("kitted");
  const ofAccount = world.file("of-account");
  await account.ok(["account", "recovery-kit", "--out", ofAccount, ...account.password]);
  expect((await home.fails(2, recover(ofAccount))).hint).toContain("keyhold account recover");
  const newHome = world.home("newhome");
  const wrongKind = ["account", "recover", "--kit-file", current, ...newHome.password];
  expect((await newHome.fails(2, wrongKind)).hint).toContain("keyhold vault recover");
  expect((await account.fails(2, ["vault", "recover", "--kit-file", current, ...next()])).code).toBe("bad_input");
  expect((await account.fails(2, ["vault", "recovery-kit", ...account.password])).hint).toContain(
    "account recovery-kit",
  );
  expect((await home.fails(2, ["account", "recovery-kit", ...home.password])).hint).toContain("vault recovery-kit");
  expect((await home.run(["read", "a", ...home.password])).out).toBe("value of a");
});

test("at a terminal two words confirm it; a new password is asked for only after the kit was found right", async () => {
  const home = await local("shown");
  const password = readFileSync(home.password[1], "utf8");
  const cut = await onTerminal(
    home.dir,
    ["vault", "recovery-kit"],
    [
      { expect: "Password", type: `${password}\r` },
      { expect: /Word \d+ of the kit/, type: "zzz\r" },
      { expect: "look at the kit again", type: "\u0003" },
    ],
  );
  expect([cut.code, cut.shown.includes("in force all the same")]).toEqual([130, true]);
  const wrong = await onTerminal(home.dir, ["vault", "recover"], [{ expect: "24 words", type: "abandon ability\r" }]);
  expect([wrong.code, wrong.shown.includes("New password")]).toEqual([2, false]);
});
