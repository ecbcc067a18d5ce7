import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { root } from "../../src/commands/index.ts";
import { newAgeIdentity } from "../../src/formats/age.ts";
import { type Group, isGroup } from "../../src/ui/command.ts";
import { dataOf, errorOf, type Home, keyhold, openWorld, SETUP_MS, spawn, type World } from "./world.ts";

/** Far more than any of these needs; a command that waits for somebody would take for ever. */
const PATIENCE_MS = 30_000;
/** For every command after the other, on a machine that does much else. */
const EACH_MS = 300_000;

interface Expected {
  readonly argv: readonly string[];
  /** Exit codes: in a home without anything, in one that is locked, in one whose agent runs. */
  readonly fresh: number;
  readonly locked: number;
  readonly unlocked: number;
  /** Prints something else than one JSON line even with `--json`. */
  readonly raw?: true;
}

const same = (argv: readonly string[], exit: number): Expected => ({ argv, fresh: exit, locked: exit, unlocked: exit });
/** For commands that need keys: no account, no password, done. */
const keyed = (...argv: readonly string[]): Expected => ({ argv, fresh: 4, locked: 4, unlocked: 0 });
/** For commands that need a federation: as `keyed`, and then that there is none. */
const unjoined = (...argv: readonly string[]): Expected => ({ argv, fresh: 4, locked: 4, unlocked: 3 });
/** For commands that need a registry: as `keyed`, and then that the server is none. */
const outside = (...argv: readonly string[]): Expected => ({ argv, fresh: 4, locked: 4, unlocked: 2 });
const PLACE = `https://127.0.0.1:1#sha256:${"A".repeat(43)}`;
const PUBLIC_KEY = "03ca27ea7b0641497b19a723e3b92590801c7e79b114253fc1e99df1fd9730526b";
const POLICY = {
  name: "board",
  approvers: [{ name: "alice", key: "c5505c9d4f4d0d5764144b42fcc8894996d568cbc30a1cc830f78c3353548a1d" }],
  admins: "alice",
  rules: [{ name: "all", effect: "allow", require: "alice" }],
};
const URL_AND_PIN = ["--server", "https://127.0.0.1:1", "--pin", `sha256:${"A".repeat(43)}`];

/** Every command with words that are well-formed, run where nobody can be asked. In this order. */
const COMMANDS: Readonly<Record<string, Expected>> = {
  "server init": same(["--dir", "SERVER"], 0),
  "server check": same(["--dir", "SERVER"], 0),
  "server status": same(["--dir", "SERVER"], 0),
  "server backup": same(["--data", "DATA", "--keys", "KEYS", "--recipient", "RECIPIENT", "--dir", "SERVER"], 0),
  // no password for the keys
  "server restore": same(["--data", "DATA", "--keys", "KEYS", "--dir", "SERVER"], 4),
  "server rotate": same(["--tls", "--dir", "SERVER"], 0),
  "server invite create": same(["--dir", "SERVER"], 0),
  "server invite list": same(["--dir", "SERVER"], 0),
  "server invite revoke": same(["ZZZZ", "--dir", "SERVER"], 3),
  "server user list": same(["--dir", "SERVER"], 0),
  "server ceremony list": same(["--dir", "SERVER"], 0),
  "server user disable": same(["nobody", "--dir", "SERVER"], 3),
  "server user enable": same(["nobody", "--dir", "SERVER"], 3),
  "server user remove": same(["nobody", "--dir", "SERVER"], 2),
  "server user factor-reset": same(["nobody", "--dir", "SERVER"], 2),
  // of a server that runs, and none does
  "server federation list": same(["--dir", "SERVER"], 7),
  "server federation accept": same(["nothing", "--dir", "SERVER"], 7),
  "server federation leave": same(["nothing", "--dir", "SERVER"], 7),
  "server connector allow": same(["nobody", "--registry", "a1".repeat(32), "--dir", "SERVER"], 7),
  "server connector list": same(["--dir", "SERVER"], 7),
  "server connector revoke": same(["nobody", "--dir", "SERVER"], 7),
  "server policy show": same(["--dir", "SERVER"], 7),
  "server policy set": same(["VALUE", "--dir", "SERVER"], 7),
  // a home that is there is said
  init: { argv: [], fresh: 2, locked: 0, unlocked: 0 },
  register: same([...URL_AND_PIN, "--account", "x"], 4),
  login: keyed(),
  status: { argv: [], fresh: 4, locked: 0, unlocked: 0 },
  "account password": same([], 4),
  "account sessions": keyed(),
  "account factor enable": same([], 4),
  // a confirmation
  "account factor disable": { argv: [], fresh: 2, locked: 2, unlocked: 2 },
  "account factor status": keyed(),
  // there is none
  "account factor codes": { argv: [], fresh: 4, locked: 4, unlocked: 3 },
  "account delete": same([], 4),
  "account recovery-kit": same([], 4),
  "account recover": same([], 2),
  "account device link": keyed(),
  "account device accept": same(["keyhold-link-x"], 4),
  "account device revoke": { argv: ["0000"], fresh: 4, locked: 2, unlocked: 2 },
  "account device list": keyed(),
  unlock: same([], 4),
  "agent start": same([], 4),
  "agent status": { argv: [], fresh: 4, locked: 0, unlocked: 0 },
  doctor: same([], 0),
  "git-credential": same(["get"], 2),
  "otp add": keyed("code", "--in-file", "VALUE"),
  "otp code": { argv: ["nothing"], fresh: 4, locked: 4, unlocked: 3 },
  "otp qr": { argv: ["nothing"], fresh: 4, locked: 4, unlocked: 3 },
  "ceremony open": keyed("opened", "--purpose", "p", "--output", "bytes", "--participants", "2"),
  "ceremony join": same(["keyhold-ceremony:x"], 2),
  "ceremony status": keyed(),
  "ceremony invites": keyed("opened"),
  "ceremony close": keyed("opened", "--abort", "--yes"),
  "ceremony transcript": keyed("opened", "--out", "TRANSCRIPT"),
  // a file that is no transcript
  "ceremony verify": same(["VALUE"], 8),
  // its organiser took no part, and it has no value
  "ceremony opening": { argv: ["opened", "--out", "OPENING"], fresh: 4, locked: 4, unlocked: 3 },
  "ceremony collect": { argv: ["opened"], fresh: 4, locked: 4, unlocked: 6 },
  "ceremony approve": { argv: ["opened", "--yes"], fresh: 4, locked: 4, unlocked: 3 },
  "otp issue": keyed("codes", "--output", "totp"),
  "otp entries": keyed(),
  "otp handouts": keyed("codes"),
  // nobody may ask for it yet
  "otp request": { argv: ["codes"], fresh: 4, locked: 4, unlocked: 5 },
  "otp verify": { argv: ["codes", "--in-file", "CODE"], fresh: 4, locked: 4, unlocked: 5 },
  "otp token create": keyed("codes", "--name", "gate"),
  "otp token list": keyed("codes"),
  "otp token revoke": { argv: ["codes", "nothing", "--yes"], fresh: 4, locked: 4, unlocked: 3 },
  "otp revoke": keyed("codes", "--yes"),
  "otp device": keyed(),
  "otp receive": { argv: ["VALUE"], fresh: 4, locked: 4, unlocked: 2 },
  generate: keyed("made"),
  store: keyed("stored", "--in-file", "VALUE"),
  get: keyed("there"),
  read: { ...keyed("there"), raw: true },
  edit: keyed("there", "--set", "user=ada"),
  list: keyed(),
  search: keyed("there"),
  rename: keyed("there", "there2"),
  tag: keyed("there2", "--add", "x"),
  remove: { argv: ["there2"], fresh: 2, locked: 2, unlocked: 2 },
  history: keyed("there2"),
  restore: keyed("there2", "--version", "1"),
  report: keyed(),
  import: keyed("EXPORT"),
  export: keyed("--all", "--to", "json", "--out", "OUT"),
  run: { argv: ["--env", "A=kh://there2", "--", "true"], fresh: 4, locked: 4, unlocked: 0, raw: true },
  inject: { ...keyed("TEMPLATE"), raw: true },
  "key list": keyed(),
  "key public": keyed("signer"),
  "key sign": keyed("signer", "--message-file", "VALUE"),
  // keys of a federation, and none was joined
  "key generate": unjoined("key1"),
  "key import": unjoined("key1", "--in-file", "VALUE"),
  "key show": unjoined("key1"),
  "key retrieve": unjoined("key1", "--out", "SHARED"),
  "key export": unjoined("key1", "--out", "SHARED", "--yes"),
  "key repair": unjoined("key1"),
  "key refresh": unjoined("key1"),
  "key reshare": unjoined("key1", "--threshold", "2"),
  "key address": same(["--as", "evm", "--public-key", PUBLIC_KEY], 0),
  "key encrypt": keyed("signer", "--in-file", "VALUE", "--out", "SEALED"),
  // the value is no encrypted file
  "key decrypt": { argv: ["signer", "--in-file", "VALUE"], fresh: 4, locked: 4, unlocked: 2 },
  "federation create": {
    argv: ["--name", "trio", "--server", PLACE, "--server", PLACE.replace("127.0.0.1:1", "127.0.0.1:2")],
    fresh: 4,
    locked: 4,
    unlocked: 7,
  },
  "federation join": { argv: [PLACE], fresh: 4, locked: 4, unlocked: 7 },
  "federation show": unjoined(),
  "federation check": unjoined(),
  "federation members": unjoined(),
  "connector init": same(["--dir", "CONNECTOR", "--registry", PLACE, "--server", PLACE], 7),
  "connector run": same(["--dir", "CONNECTOR"], 3),
  "connector status": same(["--dir", "CONNECTOR"], 3),
  "connector dead-letters": same(["--dir", "CONNECTOR"], 3),
  "connector replay": same(["--all", "--dir", "CONNECTOR"], 3),
  // the server of these homes is no registry
  "workspace me": outside(),
  "workspace create": outside("--name", "treasury"),
  "workspace list": outside(),
  "workspace show": outside("treasury"),
  "workspace owner add": outside("treasury", `eve=${"c5".repeat(32)}`),
  "workspace owner remove": outside("treasury", "eve", "--yes"),
  "workspace policy": outside("treasury"),
  "workspace agree": outside("treasury", "--yes"),
  "workspace inbox": outside(),
  "workspace keys": outside("treasury"),
  "workspace ledger": outside("treasury"),
  "workspace events": outside("treasury"),
  "workspace token create": outside("treasury", "--name", "billing"),
  "workspace token list": outside("treasury"),
  "workspace token revoke": outside("treasury", "9c1e44"),
  // of a server that runs, and none does
  "workspace credit": same(["c5".repeat(32), "100", "--dir", "SERVER"], 7),
  "keyring create": unjoined("--name", "vaults", "--federation", "trio", "--party", `north@1=${"c5".repeat(32)}`),
  "keyring list": outside(),
  "keyring show": outside("vaults"),
  "keyring status": outside("vaults"),
  "keyring party add": outside("vaults", `north@1=${"c5".repeat(32)}`),
  "keyring party remove": outside("vaults", "north", "--yes"),
  "keyring party clear": outside("vaults", "north", "--yes"),
  "keyring fees": outside("vaults"),
  "keyring threshold": outside("vaults", "--threshold", "2"),
  "keyring follow": outside("vaults"),
  "keyring open": outside("vaults"),
  "keyring close": outside("vaults", "--yes"),
  "keyring balances": same(["--dir", "SERVER"], 7),
  "keyring events": same(["--dir", "SERVER"], 7),
  "keyring payout": same(["c5".repeat(32), "north", "30", "--dir", "SERVER"], 7),
  "request key": outside("--workspace", "treasury", "--keyring", "vaults", "--type", "schnorr", "--yes"),
  "request signature": outside("--key", "77aa01c2e4", "--message-file", "VALUE", "--yes"),
  "policy show": unjoined(),
  "policy set": unjoined("POLICY"),
  "policy test": same(["POLICY"], 0),
  "approval list": keyed(),
  "approval show": unjoined("4f1c2a"),
  "approval approve": unjoined("4f1c2a", "--yes"),
  "approval reject": unjoined("4f1c2a", "--reason", "no"),
  "request list": keyed(),
  "request show": unjoined("4f1c2a"),
  "request watch": unjoined("4f1c2a"),
  "request cancel": unjoined("4f1c2a", "--yes"),
  sync: keyed(),
  "audit list": keyed(),
  "audit verify": keyed(),
  "audit export": { ...keyed(), raw: true },
  "vault status": { argv: [], fresh: 4, locked: 0, unlocked: 0 },
  "vault check": same([], 4),
  "vault rekey": same([], 4),
  "vault backup": { argv: ["--out", "BACKUP"], fresh: 4, locked: 0, unlocked: 0 },
  "vault detach": { argv: [], fresh: 4, locked: 2, unlocked: 2 },
  "vault restore": { argv: ["BACKUP"], fresh: 4, locked: 2, unlocked: 2 },
  "vault recovery-kit": { argv: [], fresh: 4, locked: 2, unlocked: 2 },
  "vault recover": { argv: [], fresh: 4, locked: 2, unlocked: 2 },
  "profile add": same(["another"], 0),
  "profile use": { argv: ["default"], fresh: 3, locked: 0, unlocked: 0 },
  "profile list": same([], 0),
  // those homes have a server at 127.0.0.1 under an authority of its own
  "profile authority": { argv: [], fresh: 3, locked: 0, unlocked: 0 },
  "profile remove": { argv: ["default"], fresh: 3, locked: 2, unlocked: 2 },
  "config show": same([], 0),
  "config defaults": same([], 0),
  "config path": same([], 0),
  completion: same(["bash"], 0),
  man: same([], 0),
  openapi: same([], 0),
  help: same(["get"], 0),
  version: same([], 0),
  // last: they end the agent
  lock: { argv: [], fresh: 4, locked: 0, unlocked: 0 },
  "agent stop": { argv: [], fresh: 4, locked: 0, unlocked: 0 },
  logout: { argv: [], fresh: 4, locked: 0, unlocked: 0 },
};
/** These run until they are told to stop, or for long: see below. */
const ELSEWHERE = ["serve", "demo", "ssh-agent"];

function leaves(group: Group, path: readonly string[] = []): string[] {
  return Object.entries(group.commands).flatMap(([name, node]) =>
    isGroup(node) ? leaves(node, [...path, name]) : [[...path, name].join(" ")],
  );
}

/** Runs work on all items, two at a time: the machine has few cores. */
async function pairwise<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items];
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all([worker(), worker()]);
}

async function inTime<T>(what: string, work: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} hangs`)), PATIENCE_MS);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

setDefaultTimeout(EACH_MS);
let world: World;
let fresh: Home;
let locked: Home;
let unlocked: Home;
let recipient: string;
beforeAll(async () => {
  world = await openWorld();
  ({ recipient } = await newAgeIdentity());
  fresh = world.home("fresh");
  locked = await world.home("locked").register("locked", { login: false });
  unlocked = await world.home("unlocked").register("unlocked");
  await unlocked.ok(["store", "there"], { stdin: "value" });
  await unlocked.ok(["generate", "signer", "--type", "ed25519"]);
  const items = [{ name: "imported", type: "note", value: "v", tags: [], createdAt: null }];
  world.file("export.json", JSON.stringify({ keyhold: "export", v: 1, items }));
  world.file("value", "value");
}, SETUP_MS);
afterAll(() => world.close());

const written = new Map<string, Readonly<Record<string, string>>>();

/** The files of a place, written once: commands of other places run meanwhile. */
function filesOf(place: string): Readonly<Record<string, string>> {
  const known = written.get(place);
  if (known) return known;
  const files = {
    SERVER: join(world.dir, `${place}-server`),
    CONNECTOR: join(world.dir, `${place}-connector`),
    DATA: world.file(`${place}-data.db`),
    KEYS: world.file(`${place}-keys.age`),
    RECIPIENT: recipient,
    VALUE: world.file("value"),
    CODE: world.file(`${place}-code`, "123456"),
    TRANSCRIPT: world.file(`${place}-transcript`),
    OPENING: world.file(`${place}-opening`),
    EXPORT: world.file("export.json"),
    TEMPLATE: world.file(`${place}-template`, "{{ kh://there2 }}"),
    OUT: world.file(`${place}-out.json`),
    SEALED: world.file(`${place}-sealed`),
    SHARED: world.file(`${place}-shared`),
    POLICY: world.file(`${place}-policy.json`, JSON.stringify(POLICY)),
    BACKUP: world.file(`${place}-backup`),
  };
  written.set(place, files);
  return files;
}

function words(name: string, place: string): string[] {
  const files = filesOf(place);
  return [...name.split(" "), ...(COMMANDS[name]?.argv ?? []).map((word) => files[word] ?? word)];
}

function withJson(argv: readonly string[]): string[] {
  const at = argv.indexOf("--");
  return at === -1 ? [...argv, "--json"] : [...argv.slice(0, at), "--json", ...argv.slice(at)];
}

test("the table holds every command", () => {
  expect([...Object.keys(COMMANDS), ...ELSEWHERE].sort()).toEqual(leaves(root).sort());
});

describe("nobody to ask: no command hangs, each ends with its documented code", () => {
  test("bare, with stdin at /dev/null, closed, an empty pipe, and CI=1", async () => {
    const codes: string[] = [];
    const stdins = [undefined, "closed", []] as const;
    await pairwise(
      Object.keys(COMMANDS).flatMap((name) => stdins.map((stdin) => ({ name, stdin }))),
      async ({ name, stdin }) => {
        const home = stdin === "closed" ? locked : fresh;
        if (name === "logout" || name === "server init") return;
        const options = { ...(stdin === undefined ? { env: { CI: "1" } } : { stdin: stdin as "closed" | [] }) };
        const ran = await inTime(name, home.run([...name.split(" "), "--json"], options));
        if (ran.code === 0) {
          expect([name, ran.out.trimEnd().split("\n").length]).toEqual([name, 1]);
        } else {
          codes.push(`${name} ${ran.code}`);
          const error = errorOf(ran);
          expect([name, [2, 3, 4, 7].includes(ran.code)]).toEqual([name, true]);
          expect([name, error.hint]).toEqual([name, expect.any(String)]);
        }
      },
    );
    expect(codes.length).toBeGreaterThan(80);
  });

  for (const place of ["fresh", "locked"] as const) {
    test.concurrent(`with its words, in a home that is ${place}`, async () => {
      const home = { fresh, locked }[place];
      const found: Record<string, number> = {};
      const wanted: Record<string, number> = {};
      for (const [name, expected] of Object.entries(COMMANDS)) {
        if (name === "logout") continue;
        const ran = await inTime(name, home.run(withJson(words(name, place)), { stdin: "closed" }));
        found[name] = ran.code;
        wanted[name] = expected[place];
        if (ran.code === 0) dataOf(ran);
        else errorOf(ran);
      }
      expect(found).toEqual(wanted);
    });
  }

  test.concurrent("with its words, in a home whose agent runs", async () => {
    const found: Record<string, number> = {};
    const wanted: Record<string, number> = {};
    for (const [name, expected] of Object.entries(COMMANDS)) {
      const argv = words(name, "unlocked");
      // a login without the password asks for it, whatever the agent holds
      const more = name === "login" ? [...unlocked.password] : [];
      const ran = await inTime(name, unlocked.run([...withJson(argv), ...(name === "run" ? [] : more)]));
      found[name] = ran.code;
      wanted[name] = expected.unlocked;
      if (ran.code !== 0) errorOf(ran);
      else if (expected.raw !== true) dataOf(ran);
    }
    expect(found).toEqual(wanted);
  });

  test("the human form of each failure says what, why or fix, and the code", async () => {
    await pairwise(Object.keys(COMMANDS), async (name) => {
      const ran = await fresh.run(words(name, "fresh"));
      if (ran.code === 0) return;
      expect([name, ran.out]).toEqual([name, ""]);
      expect([name, ran.err]).toEqual([
        name,
        expect.stringMatching(/^(! .*\n)*keyhold: .+\n(.*\n)*.*\[[a-z_]+, exit \d+\]\n$/),
      ]);
      expect([name, ran.err.includes(`exit ${ran.code}]`)]).toEqual([name, true]);
    });
  });
});

test("serve runs with stdin at /dev/null until SIGTERM, with one ready line", async () => {
  const dir = world.file("served");
  mkdirSync(dir);
  const child = await spawn(dir, ["serve", "--listen", "127.0.0.1:0", "--json"], { stdin: "closed" });
  const reader = child.stdout.getReader();
  const { value } = await reader.read();
  const { v, ready } = JSON.parse(new TextDecoder().decode(value));
  expect({ v, ready }).toEqual({
    v: 1,
    ready: { url: expect.stringMatching(/^https:/), pin: expect.stringMatching(/^sha256:/), pid: child.pid },
  });
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
  expect((await reader.read()).done).toBe(true);
});

/** A demo starts up to eight processes, mostly waits for what they do together, and knows of no other demo. */
const DEMO_MS = 240_000;

test.concurrent.each([
  ["the main job", []],
  ["keys of three servers", ["federation"]],
  ["a workspace that requests keys of three parties", ["keyring"]],
  ["a key that several people make, and one-time codes of it", ["ceremony"]],
])(
  "the demo walks %s with nobody at the terminal",
  async (_what, tour) => {
    const options = { stdin: "closed", env: { CI: "1" }, hangMs: DEMO_MS } as const;
    const ran = await keyhold(fresh.dir, ["demo", ...tour, "--json"], options);
    const steps = ran.out
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect({ code: ran.code, err: ran.code === 0 ? "" : ran.err }).toEqual({ code: 0, err: "" });
    expect(steps.length).toBeGreaterThanOrEqual(8);
    const wrong = steps.filter((step) => step.v !== 1 || !step.ok || typeof step.detail !== "string");
    expect(wrong).toEqual([]);
  },
  DEMO_MS + 10_000,
);
