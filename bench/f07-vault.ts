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
import { type KdbxCost, makeKdbx } from "./kdbx.ts";
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

/** The peer opening a database of its own form at one cost; null where it is not installed. */
async function keepass(world: World, name: string, cost: KdbxCost): Promise<(() => Promise<Ended>) | null> {
  if (!Bun.which("keepassxc-cli")) return null;
  const file = world.file(`${name}.kdbx`, await makeKdbx(PASSWORD, ["db/prod"], cost));
  const env = { HOME: world.dir, QT_QPA_PLATFORM: "offscreen" };
  return () => run(["keepassxc-cli", "ls", "-q", file], { env, stdin: `${PASSWORD}\n`, watchMemory: true });
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
  const smallPeer = await keepass(world, "small", KDF.vaultSmall);
  const largePeer = await keepass(world, "large", KDF.vault);
  const check: number[] = [];
  const peerMs = { small: [] as number[], large: [] as number[], peak: [] as number[] };
  for (let round = 0; round < ROUNDS; round++) {
    check.push(await timed(() => noting(own("vault", "check", "--password-file", file))));
    if (smallPeer) peerMs.small.push(await timed(smallPeer));
    if (largePeer) peerMs.large.push(await timed(async () => peerMs.peak.push((await largePeer()).peakMb)));
  }
  await own("unlock", "--password-file", file);
  const status = JSON.parse((await own("agent", "status", "--json")).stdout) as { data: { pid: number } };
  await Bun.sleep(500);
  const after = memory(status.data.pid);
  await own("lock");

  const against = (values: readonly number[]) =>
    values.length > 0 ? { peer: { name: "keepassxc-cli ls", value: median(values) } } : {};
  const measured: Measured[] = [
    { what: "unlock at 64 MiB", unit: "ms", value: small, goal: { atMost: 600 }, ...against(peerMs.small) },
    { what: "unlock at 256 MiB", unit: "ms", value: large, goal: { atMost: 1_400 }, ...against(peerMs.large) },
    { what: "vault check, whole command", unit: "ms", value: median(check), ...against(peerMs.large) },
    { what: "online get without an agent", unit: "ms", value: online },
    { what: "in key derivations", unit: "×", value: online / alone, goal: { atMost: 1.9 } },
    { what: "peak of the online get", unit: "MB", value: onlinePeak, goal: { atMost: 350 } },
    { what: "peak of vault check", unit: "MB", value: median(peaks), goal: { atMost: 350 }, ...against(peerMs.peak) },
    { what: "agent after unlock", unit: "MB", value: after.now, goal: { atMost: 80 } },
  ];
  const cost = ({ memoryKib, passes, lanes }: (typeof KDF)["vault" | "vaultSmall"]) =>
    `${memoryKib / 1_024} MiB, ${passes} passes, ${lanes} lanes`;
  report("F7", "vault", measured, [
    `one OPAQUE stretching alone: ${alone.toFixed(0)} ms`,
    largePeer
      ? `keepassxc-cli as a whole process, KDBX 4 by Argon2id at the same costs: ${cost(KDF.vaultSmall)}; ${cost(KDF.vault)}`
      : "peer left out: keepassxc-cli is not installed (Debian: keepassxc)",
  ]);
});
