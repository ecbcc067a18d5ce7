import { rmSync } from "node:fs";
import { join } from "node:path";
import { scratchDirectory } from "../support/scratch.ts";
import { type Seeded, seeded } from "../support/seeded.ts";
import { act, type Seen } from "./act.ts";
import type { Bug } from "./bugs.ts";
import { virtualClock } from "./clock.ts";
import { type Device, restartDevice, type Surround, startDevice } from "./device.ts";
import { judge } from "./judge.ts";
import { CALM, simulatedServer, type Weather } from "./server.ts";
import type { Template } from "./template.ts";

export interface RunResult {
  readonly seed: number;
  readonly wrong: readonly string[];
  /** What happened, line by line: the same for the same seed. */
  readonly diary: readonly string[];
  readonly acknowledged: number;
  readonly crashes: number;
}

function weatherOf(random: Seeded): Weather {
  const often = (most: number) => (random.chance(0.3) ? 0 : random.next() * most);
  return {
    crash: often(0.02),
    storage: often(0.01),
    loseRequest: often(0.1),
    loseReply: often(0.15),
    duplicate: often(0.2),
    kill: often(0.02),
    delayMs: random.pick([2, 20, 200]),
  };
}

/** Plays one seed: devices of one account change it at random while everything around them fails; then judges. */
export async function play(template: Template, seed: number, makeBug: () => Bug, changes = 12): Promise<RunResult> {
  const random = seeded(seed);
  const scratch = scratchDirectory("keyhold-simulation-");
  const clock = virtualClock(template.startMs);
  const server = await simulatedServer(template, join(scratch, "server.db"), clock, random.fork(), makeBug());
  const diary: string[] = [];
  const note = (line: string) => diary.push(`${(clock.now() - template.startMs).toFixed(3)} ${line}`);
  const at: Surround = { template, clock, server, sent: new Map(), note, scratch };
  const seen: Seen = { attempts: [], reads: [], wrong: [], floors: new Map() };
  const buried: Device[] = [];
  const devices: Device[] = [];
  try {
    for (let number = 0; number < template.devices; number++) {
      const box = template.vault(number, join(scratch, `device-${number}`));
      devices.push(await startDevice(at, number, box, random.fork()));
    }
    server.weather = weatherOf(random);
    for (const number of devices.keys()) {
      const mine = random.fork();
      clock.start(() => live(at, devices, buried, number, mine, changes, seen));
    }
    await clock.run();
    server.weather = CALM;
    clock.start(() => judge(at, devices, seen));
    await clock.run();
  } catch (error) {
    seen.wrong.push(`the run failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  } finally {
    for (const device of [...buried, ...devices]) device.bury();
    await clock.release();
    await server.close();
    rmSync(scratch, { recursive: true, force: true });
  }
  for (const fault of server.faults) seen.wrong.push(`the server failed: ${String(fault)}`);
  const acknowledged = seen.attempts.filter(({ outcome }) => outcome === "ok").length;
  return { seed, wrong: seen.wrong, diary, acknowledged, crashes: server.crashes() };
}

/** One device's life: changes and reads, now and then killed and started again. */
async function live(
  at: Surround,
  devices: Device[],
  buried: Device[],
  number: number,
  random: Seeded,
  changes: number,
  seen: Seen,
): Promise<void> {
  for (let turn = 0; turn < changes; turn++) {
    await at.clock.sleep(random.next() * 100);
    const device = devices[number];
    if (!device) throw new Error("no such device");
    const mine = random.fork();
    let ended = false;
    at.clock.start(async () => {
      try {
        await act(at, device, mine, turn, seen);
      } finally {
        ended = true;
      }
    });
    while (!ended && !device.killed()) await at.clock.sleep(5);
    if (!device.killed()) continue;
    buried.push(device);
    devices[number] = await restartDevice(at, device, random.fork());
  }
}
