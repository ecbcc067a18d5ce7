import { expect } from "bun:test";
import type { KeyId, UserId } from "../../src/ids.ts";
import type { Home, Ran, RunOptions } from "../binary/world.ts";
import { serverFlags } from "../binary/world.ts";
import { type HostileWorld, openHostileWorld } from "../support/hostileworld.ts";

/** How the attacked device's commands reach the server: over a running agent's session, or each with its own login. */
export type Way = "through the agent" | "by itself";

/** A device that an attack is aimed at. */
export interface Device {
  readonly home: Home;
  run(argv: readonly string[], options?: RunOptions): Promise<Ran>;
  ok(argv: readonly string[], options?: RunOptions): ReturnType<Home["ok"]>;
}

/** A malicious server, an account of two devices on it, and a stranger's account. */
export interface Stage {
  readonly world: HostileWorld;
  readonly way: Way;
  readonly account: string;
  readonly userId: UserId;
  /** The device that is attacked. */
  readonly desk: Device;
  /** The attacked device is given up, and a new one takes its place. */
  replaceDesk(): Promise<void>;
  /** Another device of the account. */
  readonly phone: Device;
  /** The other device is given up, and a new one takes its place. */
  replacePhone(): Promise<void>;
  readonly eve: { readonly device: Device; readonly userId: UserId };
  /** What the account holds, as its owner knows: values by name; null where the value is not compared. */
  readonly known: Map<string, string | null>;
  /** Stores a value by a device; the owner knows it from now on. */
  store(device: Device, name: string, value: string): Promise<KeyId>;
  /** A name that is used once. */
  fresh(word: string): string;
  /** A home that has nothing yet. */
  newcomer(): Home;
  /** The device works with the honest server and holds exactly what its owner knows. */
  unharmed(device: Device, holds?: ReadonlyMap<string, string | null>): Promise<void>;
  /** The device holds all that as well, and keeps on saying that it was shown another log. */
  warned(device: Device): Promise<void>;
  close(): Promise<void>;
}

/** A device whose commands go one way. */
export function deviceOf(home: Home, way: Way): Device {
  const all = (argv: readonly string[]) => (way === "by itself" ? [...argv, ...home.password] : [...argv]);
  return {
    home,
    run: (argv, options) => home.run(all(argv), options),
    ok: (argv, options) => home.ok(all(argv), options),
  };
}

/** Flags of a newcomer's login or registration, with the cheap key derivation unless told otherwise. */
export function entering(stage: Stage, home: Home, account: string, cheap = true): string[] {
  return [...serverFlags(stage.world.world.server, account), ...home.password, ...(cheap ? ["--kdf", "test"] : [])];
}

export const ADA = "ada";
const PASSWORD = "a password of ada's own";

/** Sets one up. */
export async function openStage(way: Way): Promise<Stage> {
  const world = await openHostileWorld();
  const register = async (name: string, password: string, as: Way) => {
    const home = world.world.home(name, password);
    const flags = [...serverFlags(world.world.server, name), ...home.password, "--kdf", "test"];
    const { data } = await home.ok(["register", ...flags]);
    if (as === "through the agent") await home.login();
    return { device: deviceOf(home, as), userId: data.userId as UserId };
  };
  const first = await register(ADA, PASSWORD, way);
  let desk = first.device;
  let count = 0;
  const another = async (as: Way) => deviceOf(await world.world.home(`ada-${count++}`, PASSWORD).login(ADA), as);
  let phone = await another("through the agent");
  const eve = await register("eve", "a password of eve's own", "through the agent");
  const known = new Map<string, string | null>();
  const holding = async (device: Device, holds: ReadonlyMap<string, string | null>): Promise<void> => {
    const exported = await device.run(["export", "--all", "--to", "json", "--out", "-"]);
    expect([exported.code, exported.err]).toEqual([0, expect.not.stringContaining('"error"')]);
    const values = new Map<string, string>();
    for (const { name, value } of JSON.parse(exported.out).items) values.set(name, value);
    expect([...values.keys()].sort()).toEqual([...holds.keys()].sort());
    for (const [name, value] of holds) {
      if (value !== null) expect([name, values.get(name)]).toEqual([name, value]);
    }
  };
  const stage: Stage = {
    world,
    way,
    account: ADA,
    userId: first.userId,
    get desk() {
      return desk;
    },
    get phone() {
      return phone;
    },
    async replaceDesk() {
      desk = await another(way);
    },
    async replacePhone() {
      phone = await another("through the agent");
    },
    eve,
    known,
    async store(device, name, value) {
      const { data } = await device.ok(["store", name], { stdin: value });
      if (device !== eve.device) known.set(name, value);
      return data.keyId;
    },
    fresh: (word) => `${word}/${count++}`,
    newcomer: () => world.world.home(`newcomer-${count++}`, PASSWORD),
    async unharmed(device, holds = known) {
      await holding(device, holds);
      expect((await device.ok(["audit", "verify"])).data.ok).toBe(true);
    },
    async warned(device) {
      await holding(device, known);
      expect((await device.run(["audit", "verify", "--json"])).code).toBe(8);
    },
    async close() {
      expect(world.faults).toEqual([]);
      await world.close();
    },
  };
  await stage.store(desk, "note/a", "value of a, first");
  await stage.store(desk, "note/a", "value of a, second");
  await stage.store(desk, "note/b", "value of b");
  await stage.store(eve.device, "note/a", "value of eve");
  await stage.phone.ok(["sync"]);
  await stage.unharmed(desk);
  return stage;
}
