import { randomBytes } from "node:crypto";
import { copyFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import type { PlainItem } from "../src/formats/index.ts";
import { json } from "../src/formats/json.ts";
import { keyhold, type Measured, median, report, timed } from "./harness.ts";
import { makeKdbx } from "./kdbx.ts";
import { inWorld, run, startServe, type World } from "./processes.ts";

/**
 * F12: an account of 10,000 secrets by the command line with a running agent: list, search, open one; and what one
 * store costs there against an account of ten. The peers are `pass` and `keepassxc-cli`; `bw` lists nothing without a
 * server of its own.
 */

const asked = process.argv.indexOf("--secrets");
const SECRETS = asked < 0 ? 10_000 : Number(process.argv[asked + 1]);
const FEW = 10;
const PER_FILE = 2_000;
const ROUNDS = 9;
const PASSWORD = "correct horse battery staple";

const nameOf = (at: number): string => `team-${at % 97}/service-${at}`;

async function startPass(world: World): Promise<{ list: () => Promise<unknown>; end: () => Promise<unknown> } | null> {
  if (!Bun.which("pass") || !Bun.which("gpg") || !Bun.which("tree")) return null;
  const home = join(world.dir, "pass");
  mkdirSync(home, { mode: 0o700 });
  const store = join(home, "store");
  const env = { HOME: home, GNUPGHOME: home, PASSWORD_STORE_DIR: store };
  const make = ["gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", "", "--quick-generate-key"];
  await run([...make, "bench@localhost", "default", "default"], { env });
  await run(["pass", "init", "bench@localhost"], { env });
  await run(["pass", "insert", "-m", nameOf(0)], { env, stdin: "s3cret line\n" });
  // its list is one of file names: what stands in the files does not matter to it
  for (let at = 1; at < SECRETS; at++) {
    mkdirSync(join(store, `team-${at % 97}`), { recursive: true });
    copyFileSync(join(store, `${nameOf(0)}.gpg`), join(store, `${nameOf(at)}.gpg`));
  }
  return {
    list: () => run(["pass", "ls"], { env }),
    end: () => run(["gpgconf", "--kill", "all"], { env }),
  };
}

/** The peer that opens its whole database at each command, by one round of AES-KDF: next to nothing. */
async function keepass(world: World): Promise<((...args: readonly string[]) => Promise<unknown>) | null> {
  if (!Bun.which("keepassxc-cli")) return null;
  const titles = Array.from({ length: SECRETS }, (_, at) => `service-${at}`);
  const file = world.file("peer.kdbx", await makeKdbx(PASSWORD, titles, { rounds: 1 }));
  const env = { HOME: world.dir, QT_QPA_PLATFORM: "offscreen" };
  return (command = "ls", ...rest) =>
    run(["keepassxc-cli", command, "-q", file, ...rest], { env, stdin: `${PASSWORD}\n` });
}

/** One account with `count` secrets, its agent unlocked. */
async function account(world: World, served: { url: string; pin: string }, name: string, count: number) {
  const bin = await keyhold();
  const env = { KEYHOLD_HOME: join(world.dir, name) };
  const own = (...args: string[]) => run([bin, ...args], { env, cwd: world.dir });
  const file = world.file(`${name}.password`, PASSWORD);
  await own("register", "--server", served.url, "--pin", served.pin, "--account", name, "--password-file", file);
  await own("login", "--password-file", file);
  await own("unlock", "--password-file", file);
  for (let from = 0; from < count; from += PER_FILE) {
    const items: PlainItem[] = Array.from({ length: Math.min(PER_FILE, count - from) }, (_, at) => ({
      name: nameOf(from + at),
      type: "bytes",
      tags: [],
      value: new Uint8Array(randomBytes(32)),
      createdAt: null,
    }));
    await own("import", world.file(`${name}-${from}.json`, json.write(items)), "--from", "json");
  }
  const value = world.file(`${name}.value`, "a value");
  return {
    list: () => own("list"),
    listJson: () => own("list", "--json"),
    search: () => own("search", `service-${count - 1}`),
    get: () => own("get", nameOf(count - 1), "--reveal"),
    store: (at: number) => own("store", `new/${at}`, "--in-file", value),
    lock: () => own("lock"),
  };
}

await inWorld(async (world) => {
  const served = await startServe(world);
  const many = await account(world, served, "many", SECRETS);
  const few = await account(world, served, "few", FEW);
  const pass = await startPass(world);
  const kdbx = await keepass(world);
  const works: Record<string, (round: number) => Promise<unknown>> = {
    list: many.list,
    search: many.search,
    get: many.get,
    store: many.store,
    storeFew: few.store,
    listJson: many.listJson,
    ...(pass ? { pass: pass.list } : {}),
    ...(kdbx
      ? {
          kdbxList: () => kdbx("ls"),
          kdbxSearch: () => kdbx("search", `service-${SECRETS - 1}`),
          kdbxShow: () => kdbx("show", `service-${SECRETS - 1}`),
        }
      : {}),
  };
  const all: Record<string, number[]> = {};
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [name, work] of Object.entries(works)) {
      const ms = await timed(() => work(round));
      if (round > 0) all[name] = [...(all[name] ?? []), ms];
    }
  }
  const of = (name: string) => median(all[name] ?? []);
  const against = (name: string, work: string) => (all[work] ? { peer: { name, value: of(work) } } : {});
  const goal = { atMost: 300 };
  const measured: Measured[] = [
    { what: "list", unit: "ms", value: of("list"), goal, ...against("pass ls", "pass") },
    { what: "list --json", unit: "ms", value: of("listJson"), goal, ...against("keepassxc-cli ls", "kdbxList") },
    { what: "search", unit: "ms", value: of("search"), goal, ...against("keepassxc-cli search", "kdbxSearch") },
    { what: "get", unit: "ms", value: of("get"), goal, ...against("keepassxc-cli show", "kdbxShow") },
    { what: "store", unit: "ms", value: of("store") },
    { what: `store, of that with ${FEW}`, unit: "×", value: of("store") / of("storeFew"), goal: { atMost: 1.5 } },
  ];
  report("F12", `account of ${SECRETS} secrets`, measured, [
    `whole commands with a running agent, ${ROUNDS} rounds in turn`,
    ...(pass ? [] : ["peer left out: pass is not installed (Debian: pass, gnupg, tree)"]),
    ...(kdbx ? [] : ["peer left out: keepassxc-cli is not installed (Debian: keepassxc)"]),
    "peer left out: bw lists nothing without a server of its own",
  ]);
  await many.lock();
  await few.lock();
  await pass?.end();
});
