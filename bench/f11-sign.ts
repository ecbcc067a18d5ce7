import { FEDERATION_NAME, startFederation } from "./federation.ts";
import { libraryGenerate, librarySign } from "./frost.ts";
import { type Measured, median, medianOf, percentile, report, timed } from "./harness.ts";
import { inWorld } from "./processes.ts";

/** F11: signing by 2 of 3 real server processes over TLS, sessions open, against the library in one process. */

const ROUNDS = 25;
const SIZES = [
  { servers: 3, threshold: 2, goalMs: 150 },
  ...(process.argv.includes("--all")
    ? [
        { servers: 5, threshold: 3, goalMs: null },
        { servers: 10, threshold: 7, goalMs: null },
        { servers: 21, threshold: 15, goalMs: null },
      ]
    : []),
];
const MESSAGE = new TextEncoder().encode("pay 3 coins to the harbour master");

const measured: Measured[] = [];
for (const { servers, threshold, goalMs } of SIZES) {
  await inWorld(async (world) => {
    const { client } = await startFederation(world, servers, threshold);
    await client.generateFederated({
      name: "key",
      federation: FEDERATION_NAME,
      type: "ed25519",
      bytes: 32,
      custody: "delegated",
      control: "unilateral",
      policy: null,
    });
    const sign = () => client.signFederated({ key: "key", message: MESSAGE, amount: null });
    await sign();
    const all: number[] = [];
    for (let round = 0; round < ROUNDS; round++) all.push(await timed(sign));
    const made = libraryGenerate(servers, threshold);
    const library = await medianOf(5, async () => librarySign(made, threshold, MESSAGE));
    measured.push({
      what: `${threshold}-of-${servers} p50`,
      unit: "ms",
      value: median(all),
      ...(goalMs === null ? {} : { goal: { atMost: goalMs } }),
      peer: { name: "the library in one process", value: library },
    });
    measured.push({ what: `${threshold}-of-${servers} p99`, unit: "ms", value: percentile(all, 99) });
    await client.close();
  });
}
report("F11", "signing", measured, ["ed25519, delegated; sessions open", "all servers on this machine"]);
