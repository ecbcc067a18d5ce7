import { randomBytes } from "node:crypto";
import { join } from "node:path";
import {
  clientRegisterFinish,
  clientRegisterStart,
  createServerSetup,
  opaqueReady,
  serverRegister,
} from "../src/crypto/opaque.ts";
import { KDF } from "../src/protocol/defaults.ts";
import { createVault, openVaultWithPassword, writeVault } from "../src/protocol/vault.ts";
import { keyhold, type Measured, median, medianOf, report, timed } from "./harness.ts";
import { type Ended, inWorld, memory, run, startServe, type World } from "./processes.ts";

/** F7: opening a vault at both costs, what an online command pays, and memory at the peak and afterwards. */

const ROUNDS = 5;
const PASSWORD = "correct horse battery staple";
const random = (length: number) => new Uint8Array(randomBytes(length));
const password = () => new TextEncoder().encode(PASSWORD);

async function unlockMs(cost: (typeof KDF)["vault" | "vaultSmall"]): Promise<number> {
  const vault = await createVault(password(), { cost }, random);
  const file = writeVault(vault, new TextEncoder().encode("{}"), random);
  return medianOf(ROUNDS, () => openVaultWithPassword(file, password()));
}

/** The key stretching of one login alone, by the library that the client uses. */
async function stretchMs(): Promise<number> {
  await opaqueReady();
  const setup = createServerSetup();
  return medianOf(3, async () => {
    const { request, state } = clientRegisterStart(PASSWORD);
    clientRegisterFinish(PASSWORD, "ada", state, serverRegister(setup, random(32), request), KDF.opaque);
  });
}

async function keepass(world: World): Promise<{ open: () => Promise<unknown>; kdf: string } | null> {
  if (!Bun.which("keepassxc-cli")) return null;
  const file = join(world.dir, "peer.kdbx");
  const env = { HOME: world.dir, QT_QPA_PLATFORM: "offscreen" };
  await run(["keepassxc-cli", "db-create", "-q", "-p", file], { env, stdin: `${PASSWORD}\n${PASSWORD}\n` });
  const told = await run(["keepassxc-cli", "db-info", "-q", file], { env, stdin: `${PASSWORD}\n` });
  return {
    open: () => run(["keepassxc-cli", "ls", "-q", file], { env, stdin: `${PASSWORD}\n` }),
    kdf: /^KDF: *(.+)$/m.exec(told.stdout)?.[1] ?? "unknown",
  };
}

await inWorld(async (world) => {
  const bin = await keyhold();
  const served = await startServe(world);
  const env = { KEYHOLD_HOME: join(world.dir, "home") };
  const own = (...args: string[]) => run([bin, ...args], { env, cwd: world.dir, watchMemory: true });
  const file = world.file("password", PASSWORD);
  await own("register", "--server", served.url, "--pin", served.pin, "--account", "ada", "--password-file", file);
  await own("login", "--password-file", file);
  await own("generate", "db/prod", "--type", "token");
  await own("lock");

  const small = await unlockMs(KDF.vaultSmall);
  const large = await unlockMs(KDF.vault);
  const alone = await stretchMs();
  const peaks: number[] = [];
  const noting = async (work: Promise<Ended>) => peaks.push((await work).peakMb);
  const online = await medianOf(ROUNDS, () => noting(own("get", "db/prod", "--reveal", "--password-file", file)));
  const onlinePeak = median(peaks.splice(0));
  const peer = await keepass(world);
  const check: number[] = [];
  const peerMs: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    check.push(await timed(() => noting(own("vault", "check", "--password-file", file))));
    if (peer) peerMs.push(await timed(peer.open));
  }
  await own("unlock", "--password-file", file);
  const status = JSON.parse((await own("agent", "status", "--json")).stdout) as { data: { pid: number } };
  await Bun.sleep(500);
  const after = memory(status.data.pid);
  await own("lock");

  const against = peer ? { peer: { name: "keepassxc-cli ls", value: median(peerMs) } } : {};
  const measured: Measured[] = [
    { what: "unlock at 64 MiB", unit: "ms", value: small, goal: { atMost: 600 } },
    { what: "unlock at 256 MiB", unit: "ms", value: large, goal: { atMost: 1_400 } },
    { what: "vault check, whole command", unit: "ms", value: median(check), ...against },
    { what: "online get without an agent", unit: "ms", value: online },
    { what: "in key derivations", unit: "×", value: online / alone, goal: { atMost: 1.9 } },
    { what: "peak of the online get", unit: "MB", value: onlinePeak, goal: { atMost: 350 } },
    { what: "peak of vault check", unit: "MB", value: median(peaks), goal: { atMost: 350 } },
    { what: "agent after unlock", unit: "MB", value: after.now, goal: { atMost: 80 } },
  ];
  report("F7", "vault", measured, [
    `one OPAQUE stretching alone: ${alone.toFixed(0)} ms`,
    peer
      ? `keepassxc-cli as it makes a database: ${peer.kdf}`
      : "peer left out: keepassxc-cli is not installed (Debian: keepassxc)",
  ]);
});
