import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { keyhold, type Measured, median, report, timed } from "./harness.ts";
import { makeKdbx } from "./kdbx.ts";
import { inWorld, run, startServe, untilShown, type World } from "./processes.ts";

/** F6: how long a command takes from nothing: `--version`, `get` by a running agent, the first prompt on a terminal. */

const ROUNDS = 21;
const SLOW_ROUNDS = 5;
const PASSWORD = "correct horse battery staple";

/** `bw` is looked for in PATH and in KEYHOLD_BENCH_BW; it is never installed by this. */
const BW = process.env["KEYHOLD_BENCH_BW"] ?? Bun.which("bw");

async function times(rounds: number, works: readonly (() => Promise<unknown>)[]): Promise<number[]> {
  const all = works.map((): number[] => []);
  for (const work of works) await work();
  for (let round = 0; round < rounds; round++) {
    for (const [at, work] of works.entries()) all[at]?.push(await timed(work));
  }
  return all.map(median);
}

async function startPass(world: World): Promise<{ show: () => Promise<unknown>; end: () => Promise<unknown> } | null> {
  if (!Bun.which("pass") || !Bun.which("gpg")) return null;
  const home = join(world.dir, "pass");
  mkdirSync(home, { mode: 0o700 });
  const env = { HOME: home, GNUPGHOME: home, PASSWORD_STORE_DIR: join(home, "store") };
  const make = ["gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", "", "--quick-generate-key"];
  await run([...make, "bench@localhost", "default", "default"], { env });
  await run(["pass", "init", "bench@localhost"], { env });
  await run(["pass", "insert", "-m", "db/prod"], { env, stdin: "s3cret line\n" });
  return {
    show: () => run(["pass", "show", "db/prod"], { env }),
    end: () => run(["gpgconf", "--kill", "all"], { env }),
  };
}

await inWorld(async (world) => {
  const bin = await keyhold();
  const notes: string[] = [];
  const measured: Measured[] = [];
  const age = Bun.which("age");
  const served = await startServe(world);
  const env = { KEYHOLD_HOME: join(world.dir, "home") };
  const own = (...args: string[]) => run([bin, ...args], { env, cwd: world.dir });
  const file = world.file("password", PASSWORD);
  await own("register", "--server", served.url, "--pin", served.pin, "--account", "ada", "--password-file", file);
  await own("login", "--password-file", file);
  await own("generate", "db/prod", "--type", "token");

  const version = { what: "--version", unit: "ms", goal: { atMost: 15 } } as const;
  if (age) {
    const [ours = Number.NaN, theirs = Number.NaN] = await times(ROUNDS, [
      () => own("--version"),
      () => run([age, "--version"]),
    ]);
    measured.push({ ...version, value: ours, peer: { name: "age --version", value: theirs } });
  } else {
    const [value = Number.NaN] = await times(ROUNDS, [() => own("--version")]);
    measured.push({ ...version, value });
    notes.push("peer left out: age is not installed (Debian: age)");
  }
  const bw = BW && existsSync(BW) ? BW : null;
  const bwEnv = { BITWARDENCLI_APPDATA_DIR: join(world.dir, "bw") };
  if (bw) {
    const [ours = Number.NaN, theirs = Number.NaN] = await times(SLOW_ROUNDS, [
      () => own("--version"),
      () => run([bw, "--version"], { env: bwEnv }),
    ]);
    measured.push({ what: "--version", unit: "ms", value: ours, peer: { name: "bw --version", value: theirs } });
    // without a server of its own it has nothing to get: its status is the least that each of its commands does
    const [get = Number.NaN, status = Number.NaN] = await times(SLOW_ROUNDS, [
      () => own("get", "db/prod", "--reveal"),
      () => run([bw, "status"], { env: bwEnv }),
    ]);
    const tenth = { goal: { atMost: status / 10 }, peer: { name: "bw status", value: status } };
    measured.push({ what: "get by the agent", unit: "ms", value: get, ...tenth });
  } else notes.push("peer left out: bw is not installed (npm: @bitwarden/cli; name it in KEYHOLD_BENCH_BW)");

  const get = { what: "get by the agent", unit: "ms", goal: { atMost: 60 } } as const;
  const pass = await startPass(world);
  const getOnce = () => own("get", "db/prod", "--reveal");
  if (pass) {
    const [ours = Number.NaN, theirs = Number.NaN] = await times(ROUNDS, [getOnce, pass.show]);
    await pass.end();
    measured.push({ ...get, value: ours, peer: { name: "pass show", value: theirs } });
  } else {
    const [value = Number.NaN] = await times(ROUNDS, [getOnce]);
    measured.push({ ...get, value });
    notes.push("peer left out: pass is not installed (Debian: pass, gnupg)");
  }
  if (age && Bun.which("age-keygen")) {
    const identity = join(world.dir, "identity");
    await run(["age-keygen", "-o", identity]);
    const recipient = (await run(["age-keygen", "-y", identity])).stdout.trim();
    const sealed = join(world.dir, "sealed.age");
    await run([age, "-r", recipient, "-o", sealed, file]);
    const [ours = Number.NaN, theirs = Number.NaN] = await times(ROUNDS, [
      getOnce,
      () => run([age, "-d", "-i", identity, sealed]),
    ]);
    measured.push({ ...get, value: ours, peer: { name: "age -d by a key file", value: theirs } });
  }
  if (Bun.which("keepassxc-cli")) {
    const kdbx = world.file("peer.kdbx", await makeKdbx(PASSWORD, ["db-prod"], { rounds: 1 }));
    const show = ["keepassxc-cli", "show", "-q", "-s", "-a", "Password", kdbx, "db-prod"];
    const kdbxEnv = { HOME: world.dir, QT_QPA_PLATFORM: "offscreen" };
    const [ours = Number.NaN, theirs = Number.NaN] = await times(ROUNDS, [
      getOnce,
      () => run(show, { env: kdbxEnv, stdin: `${PASSWORD}\n` }),
    ]);
    measured.push({
      ...get,
      value: ours,
      peer: { name: "keepassxc-cli show, without a key derivation", value: theirs },
    });
  } else notes.push("peer left out: keepassxc-cli is not installed (Debian: keepassxc)");
  await own("lock");

  const fresh = { KEYHOLD_HOME: join(world.dir, "fresh") };
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    ours.push(await untilShown([bin, "init", "--local"], /assword/, fresh));
    if (age) theirs.push(await untilShown([age, "-p", "-o", "/dev/null", file], /assphrase/, {}));
  }
  const prompt = { what: "first prompt", unit: "ms", value: median(ours), goal: { atMost: 100 } } as const;
  measured.push(age ? { ...prompt, peer: { name: "age -p", value: median(theirs) } } : prompt);
  if (bw) {
    const bwMs: number[] = [];
    for (let round = 0; round < SLOW_ROUNDS; round++)
      bwMs.push(await untilShown([bw, "login"], /Email address/, bwEnv));
    measured.push({ ...prompt, goal: { atMost: median(bwMs) / 10 }, peer: { name: "bw login", value: median(bwMs) } });
  }
  report("F6", "cold start", measured, [`${ROUNDS} rounds each, in turn with the peer`, ...notes]);
});
