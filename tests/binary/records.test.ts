import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import { chmodSync, existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { onTerminal } from "./terminal.ts";
import { binary, ended, environment, HANG_MS, type Home, openWorld, SETUP_MS, spawn, type World } from "./world.ts";

setDefaultTimeout(2 * HANG_MS);

const MIB = 1_048_576;
const CANARY = "c4narY-0f-the-vault";
let world: World;
let ada: Home;

beforeAll(async () => {
  world = await openWorld();
  ada = await world.home("ada").register("ada");
}, SETUP_MS);
afterAll(() => world.close());

const fieldsOf = (data: { fields: { name: string; value: string | null }[] }) =>
  Object.fromEntries(data.fields.map(({ name, value }) => [name, value]));

/** Content that is another one at every place. */
function content(length: number): Uint8Array {
  const seed = crypto.getRandomValues(new Uint8Array(4_099));
  return Uint8Array.from({ length }, (_, i) => (seed[i % 4_099] ?? 0) ^ (i >>> 12));
}
const sum = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

describe("fields", () => {
  test("are stored by flags, shown without the hidden ones, and revealed on request", async () => {
    const pin = world.file("pin", `${CANARY}\n`);
    const otp = world.file("otp", "JBSWY3DPEHPK3PXP");
    const made = await ada.ok(
      [
        ...["store", "web/shop", "--type", "login", "--set", "user=ada", "--set", "url=https://shop.example"],
        ...["--url", "https://www.shop.example", "--set-file", `pin=${pin}`, "--set-file", `otp=${otp}`],
        ...["--expires", "2027-01-31"],
      ],
      { stdin: "the password" },
    );
    expect(made.data).toMatchObject({ name: "web/shop", type: "login", version: 1, where: "both" });
    const shown = await ada.ok(["get", "web/shop"]);
    expect(shown.data).toMatchObject({
      user: "ada",
      urls: ["https://shop.example", "https://www.shop.example"],
      expiresAt: "2027-01-31T00:00:00.000Z",
    });
    expect(fieldsOf(shown.data)).toMatchObject({ user: "ada", pin: null, otp: null });
    expect(JSON.stringify(shown.data)).not.toContain(CANARY);
    const text = await ada.run(["get", "web/shop"]);
    expect(text.out).toMatch(/^pin +\(hidden\)$/m);
    expect(text.out).not.toContain(CANARY);
    const all = await ada.ok(["get", "web/shop", "--reveal"]);
    expect(all.data.value).toBe("the password");
    expect(fieldsOf(all.data)).toMatchObject({ pin: CANARY });
    expect(fieldsOf(all.data)["otp"]).toMatch(/^otpauth:\/\/totp\/.*secret=JBSWY3DPEHPK3PXP/);
    expect((await ada.run(["get", "web/shop", "--field", "pin"])).out).toBe(`${CANARY}\n`);
    expect((await ada.run(["get", "web/shop", "--field", "value"])).out).toBe("the password\n");
    expect((await ada.fails(5, ["get", "web/shop", "--field", "otp"])).hint).toContain("otp code");
    expect((await ada.run(["get", "web/shop", "--field", "otp", "--reveal"])).out).toStartWith("otpauth://");
    expect((await ada.fails(3, ["get", "web/shop", "--field", "nothing"])).hint).toContain("user");
    const [listed] = (await ada.ok(["list", "web/shop"])).data.items;
    expect(listed).toMatchObject({ user: "ada", urls: ["https://shop.example", "https://www.shop.example"] });
  });

  test("a hidden field never stands in the command line", async () => {
    for (const field of ["pin", "otp", "password", "code", "api token"]) {
      const { code, hint } = await ada.fails(2, ["edit", "web/shop", "--set", `${field}=x`]);
      expect([field, code]).toEqual([field, "usage"]);
      expect(hint).toContain("--ask");
    }
    expect((await ada.ok(["get", "web/shop"])).data.version).toBe(1);
  });

  test("are changed one by one, and nothing else with them", async () => {
    await ada.ok([
      "edit",
      "web/shop",
      "--set",
      "user=eve",
      "--unset",
      "pin",
      "--expires",
      "never",
      "--set",
      "colour=red",
    ]);
    const { data } = await ada.ok(["get", "web/shop", "--reveal"]);
    expect(data).toMatchObject({ value: "the password", version: 2, expiresAt: null, user: "eve" });
    expect(fieldsOf(data)).toMatchObject({ user: "eve", colour: "red" });
    expect(fieldsOf(data)).not.toHaveProperty("pin");
    await ada.ok(["store", "web/shop", "--set", "colour=blue"], { stdin: "another" });
    const after = await ada.ok(["get", "web/shop", "--reveal"]);
    expect(after.data).toMatchObject({ value: "another", user: "eve" });
    expect(fieldsOf(after.data)).toMatchObject({ colour: "blue" });
    await ada.fails(3, ["edit", "web/shop", "--unset", "pin"]);
    await ada.fails(3, ["edit", "nowhere", "--set", "user=x"]);
    await ada.fails(2, ["edit", "web/shop"]);
    await ada.fails(2, ["edit", "web/shop", "--expires", "soon"]);
  });

  test("a login is generated with its fields, and a new password keeps them", async () => {
    await ada.ok(["generate", "web/mail", "--type", "login", "--user", "ada", "--url", "https://mail.example"]);
    const first = (await ada.ok(["get", "web/mail", "--reveal"])).data;
    expect(first.value).toHaveLength(24);
    await ada.ok(["generate", "web/mail", "--type", "login", "--replace", "--expires", "90d"]);
    const second = (await ada.ok(["get", "web/mail", "--reveal"])).data;
    expect(second.value).not.toBe(first.value);
    expect(second.fields).toEqual(first.fields);
    const days = (Date.parse(second.expiresAt) - Date.now()) / 86_400_000;
    expect(Math.round(days)).toBe(90);
  });

  test("a card is asked for at a terminal; a wrong check digit is a warning", async () => {
    const { shown, code } = await onTerminal(
      ada.dir,
      ["store", "bank/card", "--type", "card"],
      [
        { expect: "Card number", type: "4111 1111 1111 1112\r" },
        { expect: /check digit[\s\S]*Holder/, type: "Ada L\r" },
        { expect: "Expiry", type: "01/29\r" },
        { expect: "Code", type: "12\r" },
        { expect: /three or four digits[\s\S]*Code/, type: "123\r" },
        { expect: "Pin", type: "\r" },
        { expect: "Notes", type: "\r" },
        { expect: "version 1" },
      ],
    );
    expect(code).toBe(0);
    expect(shown).not.toContain("4111");
    const { data } = await ada.ok(["get", "bank/card", "--reveal"]);
    expect(data.value).toBe("4111111111111112");
    expect(fieldsOf(data)).toEqual({ holder: "Ada L", expiry: "01/29", code: "123" });
  });

  test("a login's password is asked for, and made where none is typed", async () => {
    const argv = ["store", "web/asked", "--type", "login", "--user", "ada"];
    const asked = await onTerminal(ada.dir, argv, [
      { expect: "Password (empty generates one)", type: "typed unseen\r" },
      { expect: "version 1" },
    ]);
    expect([asked.code, asked.shown.includes("typed unseen")]).toEqual([0, false]);
    expect((await ada.ok(["get", "web/asked", "--reveal"])).data).toMatchObject({ value: "typed unseen", user: "ada" });
    await onTerminal(
      ada.dir,
      ["store", "web/made", "--type", "login"],
      [
        { expect: "User", type: "eve\r" },
        { expect: "Password (empty generates one)", type: "\r" },
        { expect: "Url", type: "https://made.example\r" },
        { expect: "Otp", type: "0189!\r" },
        { expect: /▲[\s\S]*◆[\s\S]*Otp/, type: "\u001b" },
        { expect: "Url", type: "/x\r" },
        { expect: "Otp", type: "JBSWY3DPEHPK3PXP\r" },
        { expect: "Notes", type: "\r" },
        { expect: "version 1" },
      ],
    );
    const { data } = await ada.ok(["get", "web/made", "--reveal"]);
    expect(data.value).toHaveLength(24);
    expect(fieldsOf(data)).toMatchObject({ user: "eve", url: "https://made.example/x" });
    expect(fieldsOf(data)["otp"]).toContain("secret=JBSWY3DPEHPK3PXP");
    expect((await ada.fails(2, ["store", "web/none", "--type", "login"])).code).toBe("input_needed");
  });

  test("questions have what is there as their answer; an empty hidden one stays", async () => {
    const { code } = await onTerminal(
      ada.dir,
      ["edit", "bank/card"],
      [
        { expect: "Card number", type: "\r" },
        { expect: "Holder", type: " Lovelace\r" },
        { expect: "Expiry", type: "\r" },
        { expect: "Code", type: "\r" },
        { expect: "Pin", type: "9876\r" },
        { expect: "Notes", type: "\r" },
        { expect: "version 2" },
      ],
    );
    expect(code).toBe(0);
    const { data } = await ada.ok(["get", "bank/card", "--reveal"]);
    expect(data.value).toBe("4111111111111112");
    expect(fieldsOf(data)).toEqual({ holder: "Ada L Lovelace", expiry: "01/29", code: "123", pin: "9876" });
  });
});

describe("the editor", () => {
  /** A program that does what a shell script says with the file in $1. */
  function editor(name: string, script: string): Record<string, string> {
    const path = world.file(name, `#!/bin/bash\n${script}\n`);
    chmodSync(path, 0o700);
    return { EDITOR: path, WORLD: world.dir };
  }
  const left = () => readdirSync("/dev/shm").filter((name) => name.startsWith("keyhold-edit-"));

  test("gets a private file, and nothing of it stays", async () => {
    const env = editor(
      "change",
      `stat -c %a "$1" "$(dirname "$1")" > "$WORLD/modes"
echo "$1" > "$WORLD/where"; env > "$WORLD/editor.env"; cp "$1" "$1~"
cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2> /dev/null | tr '\\0' '\\n' > "$WORLD/processes"
grep -o '^door.*' "$1" > "$WORLD/seen"
sed -i 's/^user: .*/user: grace/; s/^value: .*/value: changed/' "$1"`,
    );
    await ada.ok(["edit", "web/shop", "--set-file", `door=${world.file("door", CANARY)}`]);
    const { data } = await ada.ok(["edit", "web/shop", "--editor"], { env });
    expect(data.version).toBeGreaterThan(1);
    expect(readFileSync(world.file("modes"), "utf8")).toBe("600\n700\n");
    expect(existsSync(readFileSync(world.file("where"), "utf8").trim())).toBe(false);
    expect(left()).toEqual([]);
    expect(readFileSync(world.file("editor.env"), "utf8")).not.toMatch(/KEYHOLD|another|BUN_/);
    expect(readFileSync(world.file("seen"), "utf8")).toBe(`door (hidden): ${CANARY}\n`);
    const processes = readFileSync(world.file("processes"), "utf8");
    expect(processes).toContain("--editor");
    expect(processes).not.toContain(CANARY);
    expect((await ada.ok(["get", "web/shop", "--reveal"])).data).toMatchObject({ value: "changed", user: "grace" });
    const before = (await ada.ok(["get", "web/shop"])).data.version;
    const same = await ada.ok(["edit", "web/shop", "--editor"], { env });
    expect(same.data).toEqual({ name: "web/shop", version: before, unchanged: true });
  });

  test("that fails, or leaves what cannot be read, stores nothing", async () => {
    const before = (await ada.ok(["get", "web/shop"])).data.version;
    await ada.fails(130, ["edit", "web/shop", "--editor"], { env: editor("fails", 'echo "user: x" > "$1"; exit 3') });
    await ada.fails(130, ["edit", "web/shop", "--editor"], { env: { EDITOR: "/nowhere/editor" } });
    const { why, message } = await ada.fails(2, ["edit", "web/shop", "--editor"], {
      env: editor("nonsense", `echo "what is ${CANARY}" > "$1"`),
    });
    expect(`${why}${message}`).not.toContain(CANARY);
    expect((await ada.ok(["get", "web/shop"])).data.version).toBe(before);
    expect(left()).toEqual([]);
  });

  test("a change that came in meanwhile is a conflict", async () => {
    const env = editor(
      "slow",
      `touch "$WORLD/editing"; while [ ! -e "$WORLD/go" ]; do sleep 0.05; done; sed -i 's/^user: .*/user: late/' "$1"`,
    );
    const late = ada.fails(6, ["edit", "web/shop", "--editor"], { env });
    while (!existsSync(world.file("editing"))) await Bun.sleep(20);
    await ada.ok(["edit", "web/shop", "--set", "user=early"]);
    world.file("go", "");
    expect((await late).code).toBe("conflict");
    expect((await ada.ok(["get", "web/shop"])).data.user).toBe("early");
    expect(left()).toEqual([]);
  });

  test("at a terminal, what was typed on top of another change can be stored under another name", async () => {
    const env = editor(
      "slower",
      `touch "$WORLD/editing2"; while [ ! -e "$WORLD/go2" ]; do sleep 0.05; done; sed -i 's/^user: .*/user: typed/' "$1"`,
    );
    const dialogue = onTerminal(
      ada.dir,
      ["edit", "web/shop", "--editor"],
      [
        { expect: "changed meanwhile", type: "\u001b[B\r" },
        { expect: "Name to store", type: "web/mine\r" },
        { expect: /web\/mine +login/ },
      ],
      { env },
    );
    while (!existsSync(world.file("editing2"))) await Bun.sleep(20);
    await ada.ok(["edit", "web/shop", "--set", "user=other"]);
    world.file("go2", "");
    expect((await dialogue).code).toBe(0);
    expect((await ada.ok(["get", "web/shop"])).data.user).toBe("other");
    const mine = (await ada.ok(["get", "web/mine", "--reveal"])).data;
    expect(mine).toMatchObject({ user: "typed", version: 1, type: "login", value: "changed" });
    expect(left()).toEqual([]);
  });

  test("ended by a signal, it leaves nothing", async () => {
    for (const [signal, exit] of [
      ["SIGTERM", 143],
      ["SIGINT", 130],
      ["SIGHUP", 129],
    ] as const) {
      const env = editor("waits", `echo $$ > "$WORLD/pid.$EXIT"; while :; do sleep 0.1; echo x >> "$1"; done`);
      const child = await spawn(ada.dir, ["edit", "web/shop", "--editor"], { env: { ...env, EXIT: String(exit) } });
      const pidFile = world.file(`pid.${exit}`);
      while (!existsSync(pidFile) || readFileSync(pidFile, "utf8") === "") await Bun.sleep(20);
      expect(left().length).toBeGreaterThan(0);
      child.kill(signal);
      await child.exited;
      expect([signal, child.exitCode]).toEqual([signal, exit]);
      expect(left()).toEqual([]);
      expect(ended(Number(readFileSync(pidFile, "utf8")))).toBe(true);
    }
  });

  test("a record that cannot be read opens again, with what was typed; vim works", async () => {
    const env = editor(
      "twice",
      `if [ -e "$WORLD/once" ]; then grep -q broken "$1" && sed -i 's/^broken$/shade: green/' "$1"; else touch "$WORLD/once"; echo broken >> "$1"; fi`,
    );
    const { code } = await onTerminal(
      ada.dir,
      ["edit", "web/shop", "--editor"],
      [{ expect: "edit again", type: "\r" }, { expect: /version \d/ }],
      { env },
    );
    expect(code).toBe(0);
    expect(fieldsOf((await ada.ok(["get", "web/shop"])).data)).toMatchObject({ shade: "green" });
    const vim = await onTerminal(
      ada.dir,
      ["edit", "web/shop", "--editor"],
      [{ expect: "shade", type: ":%s/green/violet/\r:wq\r" }, { expect: /version \d/ }],
      { env: { EDITOR: "vim" } },
    );
    expect(vim.code).toBe(0);
    expect(fieldsOf((await ada.ok(["get", "web/shop"])).data)).toMatchObject({ shade: "violet" });
    expect(left()).toEqual([]);
  });
});

describe("files", () => {
  test("of 16 MiB go in and out through the agent, piece by piece", async () => {
    const value = content(16 * MIB);
    const path = world.file("big.bin", value);
    const { data } = await ada.ok(["store", "papers/big", "--in-file", path]);
    expect(data).toMatchObject({ type: "file", where: "server", version: 1 });
    const out = world.file("out.bin");
    expect((await ada.ok(["read", "papers/big", "--out", out])).data).toEqual({ name: "papers/big", version: 1, out });
    expect(sum(readFileSync(out))).toBe(sum(value));
    expect(statSync(out).mode & 0o777).toBe(0o600);
    const { items } = (await ada.ok(["list"])).data;
    expect(items.filter(({ type }: { type: string }) => type === "part")).toEqual([]);
    expect((await ada.ok(["get", "papers/big"])).data.size).toBe(16 * MIB);
    expect((await ada.fails(2, ["get", "papers/big", "--reveal"])).hint).toContain("read");
    await ada.ok(["edit", "papers/big", "--set", "notes=of the office"]);
    expect((await ada.run(["get", "papers/big", "--field", "notes"])).out).toBe("of the office\n");
    await ada.ok(["remove", "papers/big", "--purge", "--yes"]);
    expect((await ada.ok(["audit", "verify"])).data.ok).toBe(true);
  });

  test("on stdin, with their type, and to stdout", async () => {
    const value = content(300_000);
    const { data } = await ada.ok(["store", "papers/pipe"], { stdin: value });
    expect(data.type).toBe("file");
    const { bytes, code } = await ada.run(["read", "papers/pipe"]);
    expect([code, sum(bytes)]).toEqual([0, sum(value)]);
    await ada.ok(["store", "papers/small", "--type", "file"], { stdin: new Uint8Array([1, 2, 3]) });
    expect((await ada.run(["read", "papers/small"])).bytes).toEqual(new Uint8Array([1, 2, 3]));
    expect((await ada.fails(2, ["store", "x", "--type", "token"], { stdin: value })).code).toBe("too_large");
    expect((await ada.fails(2, ["store", "x"], { stdin: [] })).code).toBe("bad_input");
  });

  test("one byte too long is refused before anything is sent; one that fails leaves nothing in its place", async () => {
    const path = world.file("long.bin", new Uint8Array(16 * MIB + 1));
    const before = (await ada.ok(["audit", "list", "--action", "secret.reserve"])).data.items.length;
    expect((await ada.fails(2, ["store", "papers/long", "--in-file", path])).code).toBe("too_large");
    expect((await ada.ok(["audit", "list", "--action", "secret.reserve"])).data.items).toHaveLength(before);
    await ada.fails(3, ["read", "papers/long", "--out", world.file("none.bin")]);
    expect(existsSync(world.file("none.bin"))).toBe(false);
    expect(readdirSync(world.dir).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  });

  test("killed in the middle, there is no file, and the next one goes through", async () => {
    const value = content(8 * MIB);
    const path = world.file("cut.bin", value);
    const bob = await world.home("bob").register("bob");
    // a pipe that stops half-way holds it there, however slow the machine
    const half = async (args: readonly string[]) => {
      const command = [await binary(), ...args];
      const child = Bun.spawn(command, {
        env: environment(bob.dir),
        stdin: "pipe",
        stdout: "ignore",
        stderr: "ignore",
      });
      child.stdin.write(value.subarray(0, value.length / 2));
      await child.stdin.flush();
      return child;
    };
    const child = await half(["store", "cut"]);
    const parts = async () =>
      (await bob.ok(["audit", "list", "--action", "secret.import", "--limit", "8"])).data.items.length;
    while ((await parts()) < 8) await Bun.sleep(20);
    child.kill("SIGKILL");
    await child.exited;
    await bob.fails(3, ["get", "cut"]);
    expect((await bob.ok(["list"])).data.items).toEqual([]);
    await bob.ok(["store", "cut", "--in-file", path]);
    expect(sum((await bob.run(["read", "cut"])).bytes)).toBe(sum(value));
    await bob.run(["lock"]);
    // the same without an agent
    const own = [...bob.password, "--kdf", "test"];
    const imports = async () =>
      (await bob.ok(["audit", "list", "--action", "secret.import", ...own])).data.items.length;
    const before = await imports();
    const alone = await half(["store", "alone", ...own]);
    while ((await imports()) < before + 8) await Bun.sleep(5);
    alone.kill("SIGKILL");
    await alone.exited;
    await bob.fails(3, ["get", "alone", ...own]);
    const { data } = await bob.ok(["store", "cut", "--in-file", path, ...own]);
    expect(data.version).toBe(2);
    expect((await bob.ok(["list", ...own])).data.items).toHaveLength(1);
  });

  test("ended by a signal while its pipe gives nothing, it takes back what was sent", async () => {
    const purged = async () => (await ada.ok(["audit", "list", "--action", "secret.purge"])).data.items.length;
    const sent = async () => (await ada.ok(["audit", "list", "--action", "secret.import"])).data.items.length;
    const [purgedBefore, sentBefore] = [await purged(), await sent()];
    const command = [await binary(), "store", "papers/half"];
    const child = Bun.spawn(command, { env: environment(ada.dir), stdin: "pipe", stdout: "ignore", stderr: "ignore" });
    child.stdin.write(content(600_000));
    child.stdin.flush();
    while ((await sent()) < sentBefore + 8) await Bun.sleep(20);
    child.kill("SIGTERM");
    await child.exited;
    expect(child.exitCode).toBe(143);
    await ada.fails(3, ["get", "papers/half"]);
    expect((await purged()) - purgedBefore).toBe((await sent()) - sentBefore);
  });

  test("in a vault without a server, and with a copy in the vault while the server is away", async () => {
    const local = world.home("local");
    await local.ok(["init", "--local", ...local.password, "--kdf", "test"]);
    const value = content(3 * MIB);
    const path = world.file("local.bin", value);
    const { data } = await local.ok(["store", "f", "--in-file", path, ...local.password]);
    expect(data.where).toBe("local");
    expect(sum((await local.run(["read", "f", ...local.password])).bytes)).toBe(sum(value));
    await local.ok(["remove", "f", "--purge", "--yes", ...local.password]);
    expect((await local.ok(["status", ...local.password])).data.vault.secrets).toBe(0);
  });
});

describe("the report", () => {
  test("names what is expired, reused and weak, and shows no value", async () => {
    const eve = await world.home("eve").register("eve");
    const weak = "password1";
    const strong = "kT9#vq2LwZ8!mB4x";
    await eve.ok(["store", "a", "--type", "login", "--user", "eve"], { stdin: strong });
    await eve.ok(["store", "b", "--type", "password"], { stdin: strong });
    await eve.ok(["store", "c", "--type", "password"], { stdin: weak });
    await eve.ok(["store", "d", "--type", "pin"], { stdin: "1234" });
    await eve.ok(["store", "e", "--type", "token", "--expires", "2020-01-01"], { stdin: "short" });
    await eve.ok(["generate", "f", "--type", "password", "--expires", "10d"]);
    await eve.ok(["generate", "g", "--type", "ssh"]);
    const { data } = await eve.ok(["report"]);
    expect(data.checked).toBe(7);
    const found = data.items.map(({ name, issue }: { name: string; issue: string }) => [name, issue]);
    expect(found).toEqual([
      ["e", "expired"],
      ["f", "expires-soon"],
      ["a", "reused"],
      ["b", "reused"],
      ["c", "weak"],
      ["d", "weak"],
    ]);
    expect(JSON.stringify(data)).not.toMatch(/password1|kT9#|1234/);
    const only = await eve.ok(["report", "--weak", "--fail"]);
    expect([only.code, only.data.items.length]).toEqual([10, 2]);
    expect((await eve.ok(["report", "--old", "365d", "--fail"])).code).toBe(0);
    const read = (await eve.ok(["audit", "list", "--action", "secret.get"])).data.items;
    expect(read.length).toBeGreaterThanOrEqual(6);
    await eve.run(["lock"]);
  });
});
