import { callClear, connect } from "../../src/client/login.ts";
import type { Link } from "../../src/client/session.ts";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { Fault } from "../../src/errors.ts";
import type { CeremonyId } from "../../src/ids.ts";
import { ceremonyKeyOf } from "../../src/protocol/ceremony/combine.ts";
import { decodeInvite } from "../../src/protocol/ceremony/invite.ts";
import { type CeremonyState, ceremonyState } from "../../src/protocol/ceremony/life.ts";
import type { SignedCeremonyManifest, SignedEntry, Transcript } from "../../src/protocol/ceremony/model.ts";
import { makeOutput } from "../../src/protocol/ceremony/output.ts";
import { ceremonyIdOf } from "../../src/protocol/ceremony/records.ts";
import { encodeOpening } from "../../src/wire/ceremony/transcript.ts";
import type { InputOf, OperationName, OutputOf, SessionOperation } from "../../src/wire/operations.ts";
import { joinOf, type Person, person, revealOf } from "../support/entropyworld.ts";
import { random, testSurroundings } from "../support/harness.ts";
import type { Seeded } from "../support/seeded.ts";
import { ended, type Home, type Server, type World } from "./world.ts";

/** Ceremonies at a running server whose participants are the test itself, without a vault. */

/** Randomness in the form that {@link person} takes, but real: runs of a test must not share their secrets. */
const chance: Seeded = {
  next: () => new DataView(random(4).buffer).getUint32(0) / 2 ** 32,
  int: (below) => Math.floor(chance.next() * below),
  chance: (probability) => chance.next() < probability,
  pick: (from) => from[chance.int(from.length)] as never,
  bytes: random,
  fork: () => chance,
};

const links = new WeakMap<Server, Promise<Link>>();

/** A link to a server, pinned; one for each start of it. */
export function linkTo(server: Server): Promise<Link> {
  const known = links.get(server);
  if (known) return known;
  const { url, pin } = server;
  const place = { url, pin, tlsCaPem: null, caPem: null, statementNumber: 0 };
  const made = connect(place, testSurroundings()).then(({ link }) => link);
  links.set(server, made);
  return made;
}

/** Asks a server what needs no account. @throws Fault */
export async function askClear<N extends Exclude<OperationName, SessionOperation>>(
  server: Server,
  operation: N,
  input: InputOf<N>,
): Promise<OutputOf<N>> {
  return callClear(await linkTo(server), operation, input);
}

/** The code of the fault with which work ends; null where it ends well. */
export async function faultCode(work: Promise<unknown>): Promise<string | null> {
  try {
    await work;
    return null;
  } catch (error) {
    if (error instanceof Fault) return error.code;
    throw error;
  }
}

/** A ceremony with a seat for each guest. */
export interface Table {
  readonly id: CeremonyId;
  readonly name: string;
  readonly guests: readonly Person[];
  /** Invite lines in the order of the seats. */
  readonly invites: readonly string[];
  guest(index: number): Person;
  transcript(): Promise<Transcript>;
  /** By the server's clock. */
  state(): Promise<CeremonyState>;
  join(index: number): Promise<SignedEntry>;
  /** `opening` seals another one than was committed to. */
  reveal(index: number, opening?: Uint8Array): Promise<SignedEntry>;
  /** Joins and reveals that are not there yet, by everyone but those; gives what the server made of them. */
  goOn(but?: readonly number[]): Promise<CeremonyState>;
}

/** Opens a ceremony for `n` guests by the command of its organiser. */
export async function laidTable(
  world: World,
  keeper: Home,
  name: string,
  n: number,
  ...more: string[]
): Promise<Table> {
  const argv = ["ceremony", "open", name, "--purpose", "a key for tests", "--participants", String(n), ...more];
  const { data } = await keeper.ok(argv);
  const invites = data.invites.map(({ invite }: { invite: string }) => invite) as string[];
  const guests = await Promise.all(
    invites.map((invite) => {
      const { index, seed } = decodeInvite(invite);
      // Argon2id takes its time: one of them is enough
      const change = index > 4 ? ({ function: "hkdf-sha512" } as const) : {};
      return person(chance, index, { invite: signerFromSeed(seed), ...change });
    }),
  );
  const id = data.info.ceremonyId as CeremonyId;
  const ask: <N extends Exclude<OperationName, SessionOperation>>(op: N, input: InputOf<N>) => Promise<OutputOf<N>> = (
    operation,
    input,
  ) => askClear(world.server, operation, input);

  async function fetched() {
    const entries: SignedEntry[] = [];
    let manifest: SignedCeremonyManifest | null = null;
    for (;;) {
      const page = await ask("ceremony.get", { ceremonyId: id, after: entries.length });
      manifest = page.manifest;
      entries.push(...page.entries);
      if (ceremonyIdOf(manifest.manifest) !== id) throw new Error("another ceremony");
      if (!page.more) return { transcript: { manifest, entries }, atMs: page.atMs };
    }
  }

  /** The state once the server has done what is its to do: that comes after the answer to who was last. */
  async function settled(): Promise<CeremonyState> {
    for (;;) {
      const state = await table.state();
      if (state.status !== "freeze" && state.status !== "combine") return state;
      await Bun.sleep(10);
    }
  }

  /** What was sealed once is sent again as it was. */
  const sent = new Map<number, Awaited<ReturnType<typeof revealOf>>>();
  const table: Table = {
    ...{ id, name, guests, invites },
    guest(index) {
      const found = guests[index - 1];
      if (found?.index !== index) throw new Error(`no guest ${index}`);
      return found;
    },
    transcript: async () => (await fetched()).transcript,
    async state() {
      const { transcript, atMs } = await fetched();
      return ceremonyState(transcript, atMs);
    },
    async join(index) {
      return (await ask("ceremony.join", { join: joinOf(id, table.guest(index), data.info.output.kind) })).entry;
    },
    async reveal(index, opening) {
      const { manifest, t1 } = await settled();
      if (!t1) throw new Error("not frozen");
      const { key } = manifest.draft;
      const who = table.guest(index);
      const change = { suite: index % 2 ? "hpke" : "rsa-oaep", ...(opening && { opening }) } as const;
      const made = sent.get(index) ?? (await revealOf(id, who, t1, key, chance, change));
      sent.set(index, made);
      return (await ask("ceremony.reveal", made)).entry;
    },
    async goOn(but = []) {
      let state = await settled();
      const wanted = () => state.missing.filter((index) => !but.includes(index));
      if (state.t1 === null) {
        await Promise.all(wanted().map((index) => table.join(index)));
        state = await settled();
      }
      if (state.status === "reveal") {
        await Promise.all(wanted().map((index) => table.reveal(index)));
        state = await settled();
      }
      return state;
    },
  };
  return table;
}

/** Stages of more seconds than this are not too short for any machine. */
const LONG_S = 20;

/**
 * Does what must be done before a stage ends, at tables with ever longer stages until it is done in time: how long a
 * machine takes for it is not what is tested. @returns the table, and how long its stages are.
 */
export async function inTime(
  lay: (seconds: number) => Promise<Table>,
  work: (table: Table) => Promise<unknown>,
): Promise<{ readonly table: Table; readonly seconds: number }> {
  for (let seconds = 1; ; seconds *= 3) {
    const table = await lay(seconds);
    try {
      await work(table);
      return { table, seconds };
    } catch (error) {
      if (seconds > LONG_S || (await table.state()).status !== "aborted") throw error;
    }
  }
}

/** What a finished ceremony has made, as the openings say: K, and the value of the store. */
export async function recomputed({ id, guests }: Table, { manifest, joins, seed, t1 }: CeremonyState) {
  if (!seed || !t1) throw new Error("not frozen");
  const participants = joins.map(({ join }) => {
    const guest = guests[join.index - 1];
    if (!guest) throw new Error("a stranger");
    return { index: join.index, function: join.function, opening: guest.opening };
  });
  const { purpose, output } = manifest.draft;
  const made = await ceremonyKeyOf({ ceremonyId: id, purpose, seed, t1, participants });
  const { value } = await makeOutput(output, made.key, { ceremonyId: id, joins });
  return { ...made, value };
}

/** Files with the openings, as flags of `ceremony verify`. */
export function openingFlags(world: World, { id, name, guests }: Table): string[] {
  return guests.flatMap(({ index, opening }) => {
    const file = world.file(`${name}.${index}.opening`, encodeOpening({ ceremonyId: id, index, opening }));
    return ["--opening", file];
  });
}

/** Waits until something holds, for as long as a test may last. */
export async function untilTrue(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await Bun.sleep(10);
}

/** Kills a server's enclave, as its log names it, once it runs; resolves when it is gone. */
export async function killEnclave(server: Server): Promise<void> {
  let pid = 0;
  await untilTrue(() => {
    const started = [...server.log().matchAll(/^.*"enclave-started".*$/gm)].at(-1)?.[0];
    pid = started === undefined ? 0 : JSON.parse(started).pid;
    return pid !== 0 && !ended(pid);
  });
  process.kill(pid, "SIGKILL");
  await untilTrue(() => ended(pid));
}
