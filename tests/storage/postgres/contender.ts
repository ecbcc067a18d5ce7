import { dlopen, ptr } from "bun:ffi";
import { writeSync } from "node:fs";
import { stateHash } from "../../../src/protocol/state.ts";
import { openPostgres } from "../../../src/storage/postgres.ts";
import { filled, state, userId } from "../rows.ts";

/**
 * Child of linearizable.test.ts: swaps and reads the states of accounts until it is ended, and writes down each call and
 * each return on the clock of the machine, one JSON line each.
 */
const [name = "0", accounts = "1", width = "4"] = process.argv.slice(2);
const store = await openPostgres(process.env["CONTENDER_URL"] ?? "");
let drawn = 0;

const CLOCK_MONOTONIC = 1;
const { clock_gettime: clockGettime } = dlopen("libc.so.6", {
  clock_gettime: { args: ["i32", "ptr"], returns: "i32" },
}).symbols;

/** Nanoseconds of the machine's own clock: the runtime's counts from the start of each process. */
function now(): string {
  const time = new BigInt64Array(2);
  clockGettime(CLOCK_MONOTONIC, ptr(time));
  return String((time[0] ?? 0n) * 1_000_000_000n + (time[1] ?? 0n));
}

const say = (line: object): void => {
  writeSync(1, `${JSON.stringify(line)}\n`);
};

async function observed<T>(id: string, call: object, work: () => Promise<T>): Promise<T | undefined> {
  say({ id, ...call, at: now() });
  try {
    const result = await work();
    say({ id, result, at: now() });
    return result;
  } catch (error) {
    const code = Reflect.get(Object(error), "code");
    // refused before anything was done; `outcome_unknown` never returned
    if (code === "unavailable") say({ id, refused: true, at: now() });
    else if (code !== "outcome_unknown") say({ id, wrong: String(error), at: now() });
    await Bun.sleep(10);
    return undefined;
  }
}

async function contend(lane: number): Promise<void> {
  for (;;) {
    drawn += 1;
    const id = `${name}.${lane}.${drawn}`;
    const account = 1 + Math.floor(Math.random() * Number(accounts));
    const user = userId(account);
    const from = await observed(`${id}r`, { account, kind: "read" }, async () =>
      store.transaction(async (tx) => (await tx.account(user))?.stateHash.toHex() ?? "none"),
    );
    if (from === undefined) continue;
    if (Math.random() < 0.5) await Bun.sleep(Math.random() * 4);
    const next = filled(Math.floor(Math.random() * 2 ** 32));
    crypto.getRandomValues(next);
    const to = next.toHex();
    await observed(`${id}s`, { account, kind: "swap", from, to }, async () =>
      store.transaction(async (tx) =>
        tx.swapState(user, Uint8Array.fromHex(from), { state: state(account, 2), stateHash: next }),
      ),
    );
  }
}

say({ ready: stateHash(state(1, 1).state).toHex() });
await Promise.all(Array.from({ length: Number(width) }, (_, lane) => contend(lane)));
