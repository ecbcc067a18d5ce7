import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Home, openWorld, type World } from "./world.ts";

const OLD = "correct horse battery staple old";
const NEW = "another horse battery staple new";

let world: World;
let ada: Home;

beforeAll(async () => {
  world = await openWorld();
  ada = world.home("ada", OLD);
  await ada.register("ada");
  await ada.ok(["store", "db/prod"], { stdin: "s3cret" });
});
afterAll(() => world.close());

/** The kit's file with one line replaced. */
function bent(file: string, from: RegExp, to: string): string {
  const path = join(world.dir, `bent-${crypto.randomUUID()}.txt`);
  const text = readFileSync(file, "utf8");
  expect(text).toMatch(from);
  writeFileSync(path, text.replace(from, to), { mode: 0o600 });
  return path;
}

describe("recovery kit", () => {
  test("without one, and for a name that nobody has, recovery fails alike", async () => {
    const words = join(world.dir, "words.txt");
    writeFileSync(words, `${"abandon ".repeat(23)}art\n`, { mode: 0o600 });
    const stranger = world.home("stranger", NEW);
    const refused = async (account: string) => {
      const flags = [
        "--server",
        world.server.url,
        "--pin",
        world.server.pin,
        "--account",
        account,
        "--kit-file",
        words,
      ];
      const error = await stranger.fails(4, ["account", "recover", ...flags, ...stranger.password, "--kdf", "test"]);
      return { ...error, requestId: undefined };
    };
    expect(await refused("ada")).toEqual(await refused("nobody"));
    expect((await refused("ada")).code).toBe("login_failed");
  });

  test("opens the account on a new machine: new password, everything readable, the old password and sessions dead", async () => {
    const file = join(world.dir, "kit.txt");
    const made = await ada.ok(["account", "recovery-kit", "--out", file, ...ada.password]);
    expect(made.data).toMatchObject({ account: "ada", out: file, replaced: false });
    expect(JSON.stringify(made)).not.toContain("words");
    expect(statSync(file).mode & 0o777).toBe(0o600);

    const fresh = world.home("fresh", NEW);
    const { data } = await fresh.ok(["account", "recover", "--kit-file", file, ...fresh.password, "--kdf", "test"]);
    expect(data).toEqual({ account: "ada", userId: made.data.userId, profile: "default" });
    expect((await fresh.run(["read", "db/prod", ...fresh.password])).out).toBe("s3cret");

    const old = world.home("old", OLD);
    await old.fails(4, [
      ...["login", "--server", world.server.url, "--pin", world.server.pin, "--account", "ada", "--kdf", "test"],
      ...old.password,
    ]);
    // the first device: its session is over, the new password opens its vault and account again
    await ada.fails(4, ["list", "--fresh"]);
    const follows = world.home("ada", NEW);
    await follows.ok(["login", ...follows.password]);
    expect((await follows.run(["read", "db/prod", "--fresh"])).out).toBe("s3cret");
    const { data: devices } = await follows.ok(["account", "device", "list"]);
    expect(devices.items).toHaveLength(2);

    const { data: log } = await follows.ok(["audit", "list", "--action", "account.recover"]);
    expect(log.items.map(({ status }: { status: string }) => status)).toEqual(["login_failed", "ok"]);
    expect((await follows.ok(["audit", "verify"])).data.ok).toBe(true);
  });

  test("a new kit replaces the old one", async () => {
    const owner = world.home("owner", OLD);
    await owner.register("owner", { login: false });
    const [first, second] = [join(world.dir, "first.txt"), join(world.dir, "second.txt")];
    await owner.ok(["account", "recovery-kit", "--out", first, ...owner.password]);
    const { data } = await owner.ok(["account", "recovery-kit", "--out", second, ...owner.password]);
    expect(data.replaced).toBe(true);
    const fresh = world.home("owner-fresh", NEW);
    const recover = (file: string) => ["account", "recover", "--kit-file", file, ...fresh.password, "--kdf", "test"];
    expect((await fresh.fails(4, recover(first))).hint).toContain("words");
    await fresh.ok(recover(second));
  });

  test("a file that cannot be written is refused before the old kit is given up", async () => {
    const owner = world.home("careful", OLD);
    await owner.register("careful", { login: false });
    const file = join(world.dir, "careful.txt");
    const make = (out: string) => ["account", "recovery-kit", "--out", out, ...owner.password];
    await owner.ok(make(file));
    await owner.fails(6, make(file));
    await owner.fails(3, make(join(world.dir, "nowhere", "kit.txt")));
    const wrong = world.home("careful", NEW);
    await wrong.fails(4, ["account", "recovery-kit", "--out", join(world.dir, "unmade.txt"), ...wrong.password]);
    expect(existsSync(join(world.dir, "unmade.txt"))).toBe(false);
    const fresh = world.home("careful-fresh", NEW);
    await fresh.ok(["account", "recover", "--kit-file", file, ...fresh.password, "--kdf", "test"]);
  });

  test("made before the keys were renewed it still opens the account, and nothing alarms", async () => {
    const owner = world.home("renewed", OLD);
    await owner.register("renewed", { login: false });
    await owner.ok(["store", "wifi", ...owner.password], { stdin: "pass" });
    const file = join(world.dir, "renewed.txt");
    await owner.ok(["account", "recovery-kit", "--out", file, ...owner.password]);
    await owner.ok(["account", "password", "--rotate-key", "--keep-password", ...owner.password]);
    const fresh = world.home("renewed-fresh", NEW);
    const ran = await fresh.run(["account", "recover", "--kit-file", file, ...fresh.password, "--kdf", "test"]);
    expect(ran.code).toBe(0);
    expect(ran.err.split("\n").filter((line) => line !== "" && !line.includes("insecure"))).toEqual([]);
    expect((await fresh.run(["read", "wifi", ...fresh.password])).out).toBe("pass");
  });

  test("a wrong word is named, words in another order are refused, before the server is asked", async () => {
    const owner = world.home("wordy", OLD);
    await owner.register("wordy", { login: false });
    const file = join(world.dir, "wordy.txt");
    await owner.ok(["account", "recovery-kit", "--out", file, ...owner.password]);
    const fresh = world.home("wordy-fresh", NEW);
    const recover = async (kit: string) =>
      fresh.fails(2, ["account", "recover", "--kit-file", kit, ...fresh.password, "--kdf", "test"]);
    expect((await recover(bent(file, / 3 [a-z]+/, " 3 keyhold"))).message).toContain("word 3");
    expect((await recover(bent(file, / 3 [a-z]+/, ""))).message).toContain("23");
    const words = /^ {3}1 ([a-z]+) +2 ([a-z]+)/m.exec(readFileSync(file, "utf8"));
    const swapped = bent(file, /^ {3}1 [a-z]+ +2 [a-z]+/m, `   1 ${words?.[2]}   2 ${words?.[1]}`);
    if (words?.[1] !== words?.[2]) expect((await recover(swapped)).message).toContain("no words of one recovery kit");
  });

  test("an account that does not lead from the kit's head is refused", async () => {
    const owner = world.home("headed", OLD);
    await owner.register("headed", { login: false });
    const file = join(world.dir, "headed.txt");
    await owner.ok(["account", "recovery-kit", "--out", file, ...owner.password]);
    const fresh = world.home("headed-fresh", NEW);
    const recover = (kit: string) => ["account", "recover", "--kit-file", kit, ...fresh.password, "--kdf", "test"];
    await fresh.fails(8, recover(bent(file, /^head +(\d+):./m, "head        $1:f")));
    await fresh.fails(8, recover(bent(file, /^head +\d+/m, "head        999")));
    await fresh.fails(8, recover(bent(file, /^account-id +./m, "account-id  0")));
    await fresh.ok(recover(file));
  });

  test("is shown on stdout when no file is named, and never in the log of the server", async () => {
    const owner = world.home("shown", OLD);
    await owner.register("shown", { login: false });
    const { data } = await owner.ok(["account", "recovery-kit", ...owner.password]);
    expect(data.words).toHaveLength(24);
    const ran = await owner.run(["account", "recovery-kit", ...owner.password]);
    expect(ran.code).toBe(0);
    expect(ran.out).toContain("keyhold recovery kit\n");
    expect(world.server.log()).not.toContain(data.words.slice(0, 3).join(" "));
  });
});

describe("device link", () => {
  test("a code sets a new device up, once", async () => {
    const owner = world.home("linker", OLD);
    await owner.register("linker");
    await owner.ok(["store", "wifi"], { stdin: "pass" });
    const { data: link } = await owner.ok(["account", "device", "link"]);
    expect(link.code).toMatch(/^keyhold-link-[A-Za-z0-9_-]+$/);
    const phone = world.home("phone", OLD);
    const accept = ["account", "device", "accept", link.code, ...phone.password, "--kdf", "test"];
    expect((await phone.ok(accept)).data).toMatchObject({ account: "linker", profile: "default" });
    expect((await phone.run(["read", "wifi", ...phone.password])).out).toBe("pass");
    const again = world.home("thief", OLD);
    const used = await again.fails(3, ["account", "device", "accept", link.code, ...again.password, "--kdf", "test"]);
    expect(used.hint).toContain("keyhold account device link");
    const { data: log } = await owner.ok(["audit", "list", "--action", "account.device.accept"]);
    expect(log.items).toHaveLength(1);
    expect((await phone.ok(["audit", "verify", ...phone.password])).data.ok).toBe(true);
  });

  test("the password is asked for: a code alone opens nothing", async () => {
    const owner = world.home("linker2", OLD);
    await owner.register("linker2");
    const { data: link } = await owner.ok(["account", "device", "link"]);
    const other = world.home("guesser", NEW);
    const error = await other.fails(4, ["account", "device", "accept", link.code, ...other.password, "--kdf", "test"]);
    expect(error).toMatchObject({ code: "login_failed", hint: expect.stringContaining("keyhold account device link") });
  });

  test("an existing profile and a garbled code are refused before the code is spent", async () => {
    const owner = world.home("linker3", OLD);
    await owner.register("linker3");
    const { data: link } = await owner.ok(["account", "device", "link"]);
    await owner.fails(6, ["account", "device", "accept", link.code, ...owner.password]);
    const phone = world.home("phone3", OLD);
    const accept = (code: string) => ["account", "device", "accept", code, ...phone.password, "--kdf", "test"];
    await phone.fails(2, accept(`${link.code.slice(0, -3)}`));
    await phone.fails(2, accept("keyhold-link-"));
    await phone.fails(2, accept("nonsense"));
    await phone.fails(4, ["account", "device", "accept", link.code]);
    await phone.fails(3, ["account", "device", "accept", link.code, "--password-file", world.file("no-such-file")]);
    await phone.ok(accept(link.code));
  });
});
