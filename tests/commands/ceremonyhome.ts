import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { agentSocket, lockAgent } from "../../src/client/agent.ts";
import type { KeyholdClient } from "../../src/client/api.ts";
import type { CeremonyInfo, OtpEntryInfo, SeatInfo } from "../../src/client/ceremonyapi.ts";
import { addProfile, localProfile } from "../../src/client/profile.ts";
import type { CeremonyId } from "../../src/ids.ts";
import { encodeInvite } from "../../src/protocol/ceremony/invite.ts";
import { type Ran, run, withDirectory } from "../cli/support.ts";
import { fakeAgent } from "../support/fakeagent.ts";

export const PIN = `sha256:${"A".repeat(43)}`;
export const SERVER = { url: "https://127.0.0.1:1", pin: PIN } as const;
const ID = "4f".repeat(32) as CeremonyId;
export const INVITE = encodeInvite({ ...SERVER, ceremonyId: ID, index: 2, seed: new Uint8Array(32).fill(7) });

const seat = (index: number, name: string, change: Partial<SeatInfo> = {}): SeatInfo => ({
  index,
  name,
  state: "waiting",
  function: null,
  account: null,
  own: false,
  ...change,
});

/** A ceremony of two people in which nothing has happened yet. */
export function infoOf(change: Partial<CeremonyInfo> = {}): CeremonyInfo {
  return {
    ceremonyId: ID,
    name: "backup-key",
    purpose: "seal our backups",
    output: { kind: "bytes", length: 32 },
    policy: { collect: "organiser", quorum: 0 },
    ...SERVER,
    keyHex: "ab".repeat(32),
    words: ["one", "two", "three", "four", "five", "six"],
    status: "open",
    until: new Date(Date.now() + 3_600_000).toISOString(),
    minimum: 2,
    commitMs: 3_600_000,
    revealMs: 3_600_000,
    seats: [seat(1, "ann"), seat(2, "ben")],
    organiser: false,
    aborted: null,
    result: null,
    next: "",
    releases: [],
    previous: null,
    ...change,
  };
}

/** How the ceremony goes on, a look after another, once this vault has committed. */
export const COURSE: readonly CeremonyInfo[] = (() => {
  const at = (a: SeatInfo["state"], b: SeatInfo["state"], change: Partial<CeremonyInfo>) =>
    infoOf({ seats: [seat(1, "ann", { state: a }), seat(2, "ben", { state: b, own: true })], ...change });
  const keyHashHex = "cd".repeat(32);
  const made = { keyId: "77".repeat(32), version: 1, custody: "custodial", keyHashHex } as const;
  return [
    at("waiting", "committed", { status: "commit" }),
    at("committed", "committed", { status: "freeze" }),
    at("committed", "revealed", { status: "reveal" }),
    at("revealed", "revealed", {
      status: "stored",
      until: null,
      result: { ...made, publicKeyHex: null, descriptor: null },
    }),
  ];
})();

export const ABORTED = infoOf({
  status: "aborted",
  until: null,
  seats: [seat(1, "ann", { state: "withheld" }), seat(2, "ben", { state: "revealed", own: true })],
  aborted: { reason: "withheld", culprits: ["ann"] },
});

/** Id of a key in the store. */
export const KEY = "42".repeat(32);
/** A key of which one-time codes are handed out. */
export const entry = (change: Partial<OtpEntryInfo> = {}): OtpEntryInfo => ({
  keyId: KEY,
  name: "door",
  version: 1,
  kind: "hotp",
  own: true,
  status: "active",
  movedTo: null,
  counter: 0,
  provisioned: false,
  ceremonyId: null,
  issuer: null,
  grants: [],
  ...change,
});

type Methods = Partial<KeyholdClient>;
type Calls = readonly { readonly method: string; readonly input: unknown }[];

export interface FakeHome {
  readonly dir: string;
  readonly env: Record<string, string>;
  /** What was asked of the client, in order. */
  readonly calls: Calls;
  run(argv: readonly string[], stdin?: Uint8Array): Promise<Ran>;
}

/** A home whose agent answers by `methods` alone: commands on it are the real ones. */
export async function withHome<T>(methods: Methods, work: (home: FakeHome) => Promise<T>): Promise<T> {
  return withDirectory(async (dir) => {
    await addProfile(join(dir, "config", "profiles"), localProfile("default", "test", "default.vault"));
    mkdirSync(join(dir, "run"), { mode: 0o700 });
    const calls: { method: string; input: unknown }[] = [];
    const noted = Object.fromEntries(
      Object.entries(methods).map(([method, of]) => [
        method,
        async (input: unknown) => {
          calls.push({ method, input: structuredClone(input) });
          return (of as (input: unknown) => Promise<unknown>)(input);
        },
      ]),
    );
    const socket = agentSocket(join(dir, "run"), "default");
    const agent = await fakeAgent(noted, { socket, home: dir });
    const env = { KEYHOLD_HOME: dir };
    try {
      return await work({ dir, env, calls, run: (argv, stdin) => run(argv, stdin ? { env, stdin } : { env }) });
    } finally {
      await lockAgent(socket);
      await agent.close();
    }
  });
}

/** What a command gave under `--json`. */
export const dataOf = ({ out }: Ran) => JSON.parse(out).data;
export const errorOf = ({ err }: Ran) => JSON.parse(err.trimEnd().split("\n").at(-1) ?? "").error;
