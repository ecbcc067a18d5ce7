import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Dialogue, type DialogueStep, onTerminal } from "./terminal.ts";
import { filesBelow, traces } from "./traces.ts";
import { ended, environment, type Home, openWorld, SETUP_MS, serve, serverFlags, spawn, type World } from "./world.ts";

setDefaultTimeout(15_000);
const MASTER = "seven grey geese walk by";
const [ENTER, ESC, DOWN, CTRL_C] = ["\r", "\u001b", "\u001b[B", "\u0003"];
let world: World;
beforeAll(async () => {
  world = await openWorld();
}, SETUP_MS);
afterAll(() => world.close());

const WHERE = "Where shall your secrets live?";
const where = (kind: "local" | "join" | "here"): DialogueStep => ({
  expect: WHERE,
  type: { local: "", join: DOWN, here: DOWN + DOWN }[kind] + ENTER,
});
const twice = (password = MASTER): DialogueStep[] => [
  { expect: "Master password", type: `${password}${ENTER}` },
  { expect: "Again", type: `${password}${ENTER}` },
];
const LATER: DialogueStep = { expect: "recovery kit?", type: DOWN + DOWN + ENTER };
const cheap = ["init", "--kdf", "test"];
/** SHELL without a known shell: the question about completion stays out. */
const plainShell = { env: { SHELL: "/bin/sh" } };
const play = (home: Home, steps: readonly DialogueStep[], argv: readonly string[] = cheap, extra = {}) =>
  onTerminal(home.dir, argv, steps, { ...plainShell, ...extra });
const profileOf = (home: Home) =>
  JSON.parse(readFileSync(join(home.dir, "config/profiles/profiles/default.json"), "utf8"));
const passwordFile = (text = MASTER) => {
  const path = world.file(`password-${Bun.hash(text)}`, text);
  return ["--password-file", path];
};

/** The words of a kit's file, by their place from 1. */
function wordsIn(file: string): ReadonlyMap<string, string> {
  const [, text = ""] = readFileSync(file, "utf8").split("\nwords\n");
  return new Map([...text.matchAll(/(\d+) ([a-z]+)/g)].map(([, place = "", word = ""]) => [place, word]));
}

/** Plays a dialogue in which two words of a kit are asked for, which only its file tells. */
async function withWords(home: Home, kit: string, steps: readonly DialogueStep[], argv = cheap): Promise<Dialogue> {
  // the question that is open, not one that was answered and is drawn again
  const asked = /◆[^◇]*Word (\d+) of the kit/;
  return play(
    home,
    [
      ...steps,
      { expect: asked, type: (shown) => `${wordsIn(kit).get(asked.exec(shown)?.[1] ?? "")}${ENTER}` },
      { expect: asked, type: (shown) => `${wordsIn(kit).get(asked.exec(shown)?.[1] ?? "")}${ENTER}` },
    ],
    argv,
  );
}

describe("the first run at a terminal", () => {
  test("on this device alone: a vault, a kit in a file, two of its words", async () => {
    const home = world.home("alone");
    const kit = join(home.dir, "keyhold-recovery-kit.txt");
    const ran = await withWords(home, kit, [
      where("local"),
      ...twice(),
      { expect: "Make a recovery kit?", type: DOWN + ENTER },
      { expect: "New file for the kit", type: ENTER },
    ]);
    expect([ran.code, ran.shown.includes(MASTER)]).toEqual([0, false]);
    expect(ran.shown).toContain("Strength: ");
    expect(ran.shown).toContain("kit      confirmed");
    expect(statSync(kit).mode & 0o777).toBe(0o600);
    expect(profileOf(home).kit.confirmed).toBe(true);
    // the kit opens it
    const next = passwordFile("another password altogether");
    await home.ok(["vault", "recover", "--kit-file", kit, ...next, "--kdf", "test"]);
    await home.ok(["vault", "check", ...next]);
    expect((await home.fails(4, ["vault", "check", ...passwordFile()])).code).toBe("wrong_password");
    // again: nothing is asked, nothing changes
    const before = filesBelow(home.dir).map(({ path, bytes }) => [path, Bun.hash(bytes)]);
    const again = await play(home, [], ["init"]);
    expect([again.code, again.shown.includes("there is a home already")]).toEqual([0, true]);
    expect(filesBelow(home.dir).map(({ path, bytes }) => [path, Bun.hash(bytes)])).toEqual(before);
  });

  test("joining a server by the pasted line, wrapped by the terminal; the wrong one is explained", async () => {
    const home = world.home("joins");
    const { url, pin } = world.server;
    const line = `keyhold register --server ${url} --pin ${pin} --account NAME`;
    const ran = await play(
      home,
      [
        where("join"),
        { expect: "Paste the line", type: `keyhold register --server ${url}${ENTER}` },
        { expect: "it has no --pin", type: `${line.replace(/(.{38})/g, "$1\r")}${ENTER}` },
        { expect: "Name of your account", type: `joins${ENTER}` },
        ...twice(),
        LATER,
      ],
      cheap,
      { cols: 40 },
    );
    expect([ran.code, profileOf(home).account, profileOf(home).server.pin]).toEqual([0, "joins", pin]);
    await home.ok(["login", ...passwordFile()]);
  });

  test("all that serve prints may be pasted at once", async () => {
    const home = world.home("pastes");
    const { url, pin } = world.server;
    const banner = [
      `keyhold serves ${url}`,
      `  pin           ${pin}`,
      "  registration  open",
      "",
      "Register from a client:",
      `  keyhold register --server ${url} --pin ${pin} --account NAME`,
      "",
      "Ctrl-C stops it.",
    ].join("\n");
    const ran = await play(home, [
      where("join"),
      { expect: "Paste the line", type: `${banner}\n`.replaceAll("\n", ENTER) },
      { expect: "Name of your account", type: `pastes${ENTER}` },
      ...twice(),
      LATER,
    ]);
    expect([ran.code, profileOf(home).account]).toEqual([0, "pastes"]);
  });

  test("piece by piece, and back: Esc leads to the question before", async () => {
    const home = world.home("pieces");
    const { url, pin } = world.server;
    const ran = await play(home, [
      where("join"),
      { expect: "Paste the line", type: ENTER },
      { expect: "URL of the server", type: ESC },
      { expect: "Paste the line", type: ESC },
      where("here"),
      { expect: "Name of your account", type: ESC },
      where("join"),
      { expect: "Paste the line", type: ENTER },
      { expect: "URL of the server", type: `\u0015ftp://nowhere${ENTER}` },
      { expect: "https://HOST:PORT", type: `\u0015${url}${ENTER}` },
      { expect: "Pin of the server", type: `sha256:short${ENTER}` },
      { expect: "5 of 43 characters", type: `\u0015${pin}${ENTER}` },
      { expect: "Name of your account", type: ESC },
      { expect: "Pin of the server", type: ENTER },
      { expect: "Name of your account", type: `pieces${ENTER}` },
      { expect: "Master password", type: ESC },
      { expect: "Name of your account", type: ENTER },
      { expect: "Master password", type: `${MASTER}${ENTER}` },
      { expect: "Again", type: ESC },
      ...twice(),
      LATER,
    ]);
    expect([ran.code, profileOf(home).account]).toEqual([0, "pieces"]);
  });

  test("a server started here registers, stays, and is found again", async () => {
    const home = world.home("hosts");
    // the usual port may be somebody else's
    const taken = await serve(mkdirOf("other-server"), ["--listen", "127.0.0.1:0"]);
    mkdirSync(join(home.dir, "config"), { recursive: true });
    writeFileSync(join(home.dir, "config", "config.json"), JSON.stringify({ listen: `127.0.0.1:${taken.port}` }));
    const ran = await play(home, [
      where("here"),
      { expect: "Name of your account", type: `hosts${ENTER}` },
      ...twice(),
      LATER,
    ]);
    await taken.stop();
    expect(ran.code).toBe(0);
    let pid = Number(/runs as process (\d+)/.exec(ran.shown)?.[1]);
    try {
      expect(ran.shown).toContain("docs/operations.md");
      expect(ran.shown).toContain(`keyhold serve --listen ${new URL(profileOf(home).server.url).host}`);
      await home.ok(["login", ...passwordFile()]);
      const second = await home.ok([
        "init",
        "--start-server",
        "--account",
        "more",
        "--profile",
        "more",
        ...passwordFile(),
        "--kdf",
        "test",
      ]);
      expect(second.data).toMatchObject({ account: "more", server: { url: profileOf(home).server.url, pid } });
      // one that wants codes gives its own administrator one
      process.kill(pid, "SIGTERM");
      while (!ended(pid)) await Bun.sleep(20);
      pid = Number(/"pid":(\d+)/.exec(await startInvited(home))?.[1]);
      const third = ["init", "--start-server", "--account", "third", "--profile", "third", ...passwordFile()];
      expect((await home.ok([...third, "--kdf", "test"])).data).toMatchObject({ account: "third", server: { pid } });
      expect(statSync(join(home.dir, "state", "serve.log")).mode & 0o777).toBe(0o600);
    } finally {
      process.kill(pid, "SIGTERM");
    }
    while (!ended(pid)) await Bun.sleep(20);
  });

  test("a taken name: another one, or this machine becomes a device of the account", async () => {
    const first = await world.home("twin").register("twin", { login: false });
    const second = world.home("twin2");
    const typed = readFileSync(first.password[1], "utf8");
    const argv = [...cheap, ...serverFlags(world.server, "twin")];
    const ran = await play(
      second,
      [
        ...twice(typed),
        { expect: "What now?", type: ESC },
        ...twice(typed),
        { expect: "What now?", type: DOWN + ENTER },
        LATER,
      ],
      argv,
    );
    expect([ran.code, ran.shown.includes("The account is mine")]).toEqual([0, true]);
    expect((await second.ok(["account", "device", "list", ...first.password])).data.items).toHaveLength(2);
  });

  test("a weak password is explained and must be confirmed; the account's name makes it weak", async () => {
    const home = world.home("weak");
    const ran = await play(home, [
      where("local"),
      { expect: "Master password", type: `short${ENTER}` },
      { expect: "at least 8 bytes", type: `password123${ENTER}` },
      { expect: "Take it all the same?", type: ENTER },
      { expect: "Master password", type: `password123${ENTER}` },
      { expect: "Take it all the same?", type: ESC },
      { expect: "Master password", type: `password123${ENTER}` },
      { expect: "Take it all the same?", type: DOWN + ENTER },
      { expect: "Again", type: `password124${ENTER}` },
      { expect: "the two differ", type: `password123${ENTER}` },
      { expect: "Take it all the same?", type: DOWN + ENTER },
      { expect: "Again", type: `password123${ENTER}` },
      LATER,
    ]);
    expect([ran.code, ran.shown.includes("very weak")]).toEqual([0, true]);
    expect(ran.shown).not.toContain("password12");
    await home.ok(["vault", "check", ...passwordFile("password123")]);
  });

  test("an empty answer suggests a passphrase, which is shown once and typed; it lies nowhere", async () => {
    const home = world.home("diceware");
    const phrase = /\n {4}([a-z-]+)\r?\n/;
    let drawn = "";
    const take = (shown: string) => {
      drawn = phrase.exec(shown)?.[1] ?? "";
      return "";
    };
    const ran = await play(home, [
      where("local"),
      { expect: "Master password", type: ENTER },
      { expect: "Enter when you have noted it", type: (shown) => `${take(shown)}${ENTER}` },
      { expect: "as you noted it", type: `not what was shown${ENTER}` },
      { expect: "Enter when you have noted it", type: ENTER },
      { expect: "as you noted it", type: () => `${drawn}${ENTER}` },
      LATER,
    ]);
    expect(ran.code).toBe(0);
    expect(drawn.split("-").length).toBeGreaterThanOrEqual(6);
    // on a screen of its own, twice since it was mistyped, and never elsewhere
    const screens = ran.shown
      .split("\u001b[?1049h")
      .slice(1)
      .map((rest) => rest.split("\u001b[?1049l")[0] ?? "");
    expect(screens.filter((screen) => screen.includes(drawn))).toHaveLength(2);
    expect(screens.reduce((rest, screen) => rest.replace(screen, ""), ran.shown)).not.toContain(drawn);
    const found = filesBelow(home.dir).filter(({ bytes }) => traces(drawn).some((trace) => bytes.includes(trace)));
    expect(found.map(({ path }) => path)).toEqual([]);
    await home.ok(["vault", "check", ...passwordFile(drawn)]);
  });

  test("completion is offered for the shell at hand; Esc goes back to the kit, and no means no", async () => {
    const home = world.home("completes");
    const steps = [where("local"), ...twice(), LATER];
    const fish = { env: { SHELL: "/usr/bin/fish" } };
    const question = "Complete commands with the Tab key in fish?";
    const no = await play(
      home,
      [...steps, { expect: question, type: ESC }, LATER, { expect: question, type: DOWN + ENTER }],
      cheap,
      fish,
    );
    const file = join(home.dir, ".config", "fish", "completions", "keyhold.fish");
    expect([no.code, existsSync(file)]).toEqual([0, false]);
    const yes = await play(home, [LATER, { expect: question, type: ENTER }], cheap, fish);
    expect([yes.code, readFileSync(file, "utf8").includes("complete -c keyhold")]).toEqual([0, true]);
    expect((await play(home, [LATER], cheap, fish)).code).toBe(0);
    expect(
      readdirSync(home.dir)
        .filter((name) => name.startsWith("."))
        .sort(),
    ).toEqual([".config"]);
  });
});

describe("leaving and coming back", () => {
  const kitFile = (home: Home) => join(home.dir, "keyhold-recovery-kit.txt");
  const paths: Readonly<Record<string, (home: Home) => readonly DialogueStep[]>> = {
    where: () => [{ expect: WHERE }],
    line: () => [where("join"), { expect: "Paste the line" }],
    url: () => [where("join"), { expect: "Paste the line", type: ENTER }, { expect: "URL of the server" }],
    account: () => [where("here"), { expect: "Name of your account" }],
    password: () => [where("local"), { expect: "Master password" }],
    again: () => [where("local"), { expect: "Master password", type: `${MASTER}${ENTER}` }, { expect: "Again" }],
    weak: () => [where("local"), { expect: "Master password", type: `password1${ENTER}` }, { expect: "all the same?" }],
    suggestion: () => [
      where("local"),
      { expect: "Master password", type: ENTER },
      { expect: "Enter when you have noted it" },
    ],
    noted: () => [
      where("local"),
      { expect: "Master password", type: ENTER },
      { expect: "Enter when you have noted it", type: ENTER },
      { expect: "as you noted it" },
    ],
    kit: () => [where("local"), ...twice(), { expect: "recovery kit?" }],
    file: () => [where("local"), ...twice(), { expect: "recovery kit?", type: DOWN + ENTER }, { expect: "New file" }],
    sheet: () => [where("local"), ...twice(), { expect: "recovery kit?", type: ENTER }, { expect: "on paper" }],
    word: () => [
      where("local"),
      ...twice(),
      { expect: "recovery kit?", type: DOWN + ENTER },
      { expect: "New file", type: ENTER },
      { expect: /Word \d+ of the kit/ },
    ],
  };
  /** What the next run begins with. */
  const afterwards: Readonly<Record<string, string>> = {
    kit: "Make a recovery kit?",
    file: "Make a recovery kit?",
    sheet: "Make a new recovery kit?",
    word: "Make a new recovery kit?",
  };

  test.each(Object.keys(paths))(
    "Ctrl-C at the question %s: 130, a terminal as before, and the next run goes on",
    async (name) => {
      const home = world.home(`leaves-${name}`);
      const steps = paths[name]?.(home) ?? [];
      const last = steps.at(-1);
      if (!last) throw new Error("no steps");
      const ran = await play(home, [...steps.slice(0, -1), { ...last, type: CTRL_C }]);
      expect(ran.code).toBe(130);
      expect(ran.shown).toContain("keyhold init goes on where you left");
      // every screen of its own was left again
      const count = (code: string) => ran.shown.split(code).length;
      expect(count("\u001b[?1049h")).toBe(count("\u001b[?1049l"));
      expect(ran.shown.lastIndexOf("\u001b[?25h")).toBeGreaterThanOrEqual(ran.shown.lastIndexOf("\u001b[?25l"));
      rmSync(kitFile(home), { force: true });
      const next = await play(home, [{ expect: afterwards[name] ?? WHERE, type: CTRL_C }]);
      expect(next.code).toBe(130);
    },
  );

  test("Esc at the first question leaves", async () => {
    const ran = await play(world.home("leaves-first"), [{ expect: WHERE, type: ESC }]);
    expect(ran.code).toBe(130);
  });

  test("Ctrl-D leaves too: nothing that is typed after it is echoed", async () => {
    for (const [question, before] of [
      [WHERE, []],
      ["Master password", [where("local")]],
    ] as const) {
      const ran = await play(world.home(`ends-${before.length}`), [...before, { expect: question, type: "\u0004" }]);
      expect(ran.code).toBe(130);
    }
  });

  test("SIGTERM on the screen with the passphrase: 143, the screen is left", async () => {
    const home = world.home("terminated");
    const ran = await play(home, [
      where("local"),
      { expect: "Master password", type: ENTER },
      { expect: "Enter when you have noted it", signal: "SIGTERM" },
    ]);
    expect([ran.code, ran.shown.split("\u001b[?1049h").length]).toEqual([143, ran.shown.split("\u001b[?1049l").length]);
  });

  test("a vault whose profile was not written yet is opened by its password and gone on with", async () => {
    const home = world.home("orphan");
    await home.ok(["init", "--local", ...passwordFile(), "--kdf", "test"]);
    rmSync(join(home.dir, "config"), { recursive: true });
    const ran = await play(home, [
      { expect: "Its password", type: `wrong one${ENTER}` },
      { expect: "wrong password", type: `${MASTER}${ENTER}` },
      LATER,
    ]);
    expect([ran.code, profileOf(home).server]).toEqual([0, null]);
    await home.ok(["vault", "check", ...passwordFile()]);
  });

  test("a registration that was cut short is gone on with, or dropped", async () => {
    for (const how of ["on", "anew"] as const) {
      const home = world.home(`cut-${how}`);
      const flags = [...serverFlags(world.server, `cut-${how}`), ...passwordFile(), "--kdf", "test"];
      await home.ok(["register", ...flags]);
      // as it is between the vault and the server's answer
      const file = join(home.dir, "config/profiles/profiles/default.json");
      writeFileSync(file, JSON.stringify({ ...profileOf(home), userId: null }), { mode: 0o600 });
      const on = [{ expect: "Go on with it?", type: ENTER }, ...twice(), LATER];
      const anew = [{ expect: "Go on with it?", type: DOWN + ENTER }, where("local"), ...twice(), LATER];
      const ran = await play(home, how === "on" ? on : anew);
      expect([ran.code, profileOf(home).account]).toEqual([0, how === "on" ? "cut-on" : null]);
    }
  });

  test("killed while it makes the home, at any moment: the next run ends well", async () => {
    for (const delay of [0, 40, 80, 160, 320]) {
      const home = world.home(`killed-${delay}`);
      const flags = [...serverFlags(world.server, `killed-${delay}`), ...passwordFile(), "--kdf", "test"];
      const child = await spawn(home.dir, ["init", ...flags, "--json"]);
      await Bun.sleep(delay);
      child.kill("SIGKILL");
      await child.exited;
      const state = existsSync(join(home.dir, "config/profiles/profiles/default.json")) ? profileOf(home) : null;
      const steps =
        state === null
          ? [...twice(), LATER]
          : state.userId === null
            ? [{ expect: "Go on with it?", type: ENTER }, ...twice(), LATER]
            : [LATER];
      const argv = state === null ? [...cheap, ...serverFlags(world.server, `killed-${delay}`)] : cheap;
      const ran = await play(home, steps, argv);
      expect([delay, ran.code, profileOf(home).account]).toEqual([delay, 0, `killed-${delay}`]);
    }
  });
});

describe("without questions", () => {
  test("a local home with its kit and completion, in one line", async () => {
    const home = world.home("script");
    const kit = world.file("script-kit");
    const argv = ["init", "--local", ...passwordFile(), "--kdf", "test", "--kit-out", kit, "--completion", "fish"];
    const { data } = await home.ok(argv);
    expect(data).toEqual({
      profile: "default",
      vault: join(home.dir, "data/vaults/default.vault"),
      kit: { out: kit, confirmed: false },
      completion: { shell: "fish", file: join(home.dir, ".config/fish/completions/keyhold.fish"), changed: true },
    });
    expect([statSync(kit).mode & 0o777, wordsIn(kit).size]).toEqual([0o600, 24]);
    expect((await home.ok(["status"])).data.kit).toBe("unconfirmed");
    expect((await home.run(["status"])).out).toContain("kit       not confirmed");
    // again: what there is, and nothing changed
    const again = await home.ok(["init"]);
    expect(again.data).toEqual({ profile: "default", vault: data.vault, kit: { confirmed: false } });
    expect((await home.fails(6, ["init", "--local", ...passwordFile()])).code).toBe("exists");
    // what is asked for is done, --yes says that the kit is kept
    const second = world.file("script-kit-2");
    const more = await home.ok(["init", "--kit-out", second, "--yes", ...passwordFile()]);
    expect(more.data.kit).toEqual({ out: second, confirmed: true });
    expect((await home.ok(["init"])).data.kit).toEqual({ confirmed: true });
    expect((await home.ok(["status"])).data.kit).toBe("confirmed");
  });

  test("an account on a server", async () => {
    const home = world.home("scripted");
    const kit = world.file("scripted-kit");
    const flags = [...serverFlags(world.server, "scripted"), ...passwordFile(), "--kdf", "test"];
    const { data } = await home.ok(["init", ...flags, "--kit-out", kit, "--yes"]);
    const { url, pin } = world.server;
    expect(data).toMatchObject({ account: "scripted", server: { url, pin }, kit: { out: kit, confirmed: true } });
    expect(data.userId).toMatch(/^[0-9A-Za-z_-]{16,}$/);
    expect((await home.fails(6, ["init", ...flags])).code).toBe("exists");
    await home.ok(["login", ...passwordFile()]);
  });

  test("what is missing is named, nothing is made, and a kit's file that is in the way stops it before", async () => {
    const home = world.home("lacking");
    const { url, pin } = world.server;
    const cases: readonly (readonly [number, string, readonly string[]])[] = [
      [2, "input_needed", []],
      [2, "input_needed", ["--server", url, "--account", "x"]],
      [2, "input_needed", ["--server", url, "--pin", pin]],
      [2, "input_needed", ["--start-server"]],
      [2, "usage", ["--local", "--server", url]],
      [2, "usage", ["--local", "--no-kit", "--kit-out", "x"]],
      [4, "password_needed", ["--local"]],
      [6, "exists", ["--local", "--kit-out", world.file("in-the-way", "something"), ...passwordFile()]],
    ];
    for (const [exit, code, argv] of cases) {
      expect([argv, (await home.fails(exit, ["init", ...argv])).code]).toEqual([argv, code]);
    }
    expect(filesBelow(home.dir).filter(({ path }) => /vault|profiles\/.*json/.test(path))).toEqual([]);
    expect(readFileSync(world.file("in-the-way"), "utf8")).toBe("something");
  });

  test("starts no server for a home that is there already", async () => {
    const home = world.home("no-server");
    await home.ok(["init", "--local", ...passwordFile(), "--kdf", "test"]);
    const again = ["init", "--start-server", "--account", "x", ...passwordFile(), "--kdf", "test"];
    expect((await home.fails(6, again)).code).toBe("exists");
    expect(existsSync(join(home.dir, "server"))).toBe(false);
  });

  test("a weak password of a script is taken as it is, without a word about it", async () => {
    const home = world.home("weak-script");
    const ran = await home.run(["init", "--local", ...passwordFile("password1"), "--kdf", "test"]);
    expect([ran.code, ran.err]).toEqual([0, expect.not.stringContaining("weak")]);
  });

  test("neither password nor kit stands in argv, environment, logs or files", async () => {
    const home = world.home("canary");
    const kit = world.file("canary-kit");
    await home.ok(["init", "--local", ...passwordFile(), "--kdf", "test", "--kit-out", kit]);
    const words = [...wordsIn(kit).values()].slice(0, 3).join(" ");
    for (const secret of [MASTER, words]) {
      const found = filesBelow(home.dir).filter(({ bytes }) => traces(secret).some((trace) => bytes.includes(trace)));
      expect(found.map(({ path }) => path)).toEqual([]);
    }
  });
});

test("no word list is loaded by version and by get", async () => {
  const home = world.home("lean");
  await home.ok(["init", "--local", ...passwordFile(), "--kdf", "test"]);
  await home.ok(["store", "a", ...passwordFile()], { stdin: "value" });
  const main = join(import.meta.dir, "..", "..", "src", "main.ts");
  const trace = async (argv: readonly string[]) => {
    const log = world.file(`trace-${argv[0]}`);
    const child = Bun.spawn(["strace", "-f", "-qq", "-e", "trace=openat", "-o", log, process.execPath, main, ...argv], {
      env: environment(home.dir),
      stdin: "ignore",
      stdout: "pipe",
      stderr: "ignore",
    });
    expect(await child.exited).toBe(0);
    return readFileSync(log, "utf8");
  };
  for (const argv of [["version"], ["get", "a", "--json", ...passwordFile()]]) {
    const opened = await trace(argv);
    expect([argv[0], opened.includes("src/main.ts"), /zxcvbn|newpassword|diceware/.test(opened)]).toEqual([
      argv[0],
      true,
      false,
    ]);
  }
});

/** Starts the home's own server so that it wants a code; its ready line. */
async function startInvited(home: Home): Promise<string> {
  const argv = ["serve", "--json", "--listen", "127.0.0.1:0", "--registration", "invite"];
  const child = await spawn(home.dir, argv);
  const { value } = await child.stdout.getReader().read();
  return new TextDecoder().decode(value);
}

function mkdirOf(name: string): string {
  const dir = world.file(name);
  mkdirSync(dir, { mode: 0o700 });
  return dir;
}
