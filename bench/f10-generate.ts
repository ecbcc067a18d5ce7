import { FEDERATION_NAME, startFederation } from "./federation.ts";
import { libraryGenerate } from "./frost.ts";
import { type Measured, median, medianOf, report, timed } from "./harness.ts";
import { inWorld } from "./processes.ts";

/**
 * F10: key generation over real server processes and TLS, sessions open, against the library's own cost of all parties
 * in one process. `--all` goes on to 21 servers; all of them share this machine's cores.
 */

const ROUNDS = 5;
const SIZES = [
  { servers: 3, threshold: 2, goalMs: 500 },
  { servers: 5, threshold: 3, goalMs: 1_000 },
  ...(process.argv.includes("--all")
    ? [
        { servers: 10, threshold: 7, goalMs: null },
        { servers: 15, threshold: 10, goalMs: null },
        { servers: 21, threshold: 15, goalMs: 30_000 },
      ]
    : []),
];

const measured: Measured[] = [];
for (const { servers, threshold, goalMs } of SIZES) {
  await inWorld(async (world) => {
    const { client } = await startFederation(world, servers, threshold);
    let count = 0;
    const generate = () =>
      client.generateFederated({
        name: `key-${count++}`,
        federation: FEDERATION_NAME,
        type: "ed25519",
        bytes: 32,
        custody: "delegated",
        control: "unilateral",
        policy: null,
      });
    // the first one opens the sessions
    await generate();
    const all: number[] = [];
    for (let round = 0; round < (servers > 10 ? 1 : ROUNDS); round++) all.push(await timed(generate));
    // of many parties one run takes half a minute
    const inProcess = async () => libraryGenerate(servers, threshold);
    const library = servers > 10 ? await timed(inProcess) : await medianOf(3, inProcess);
    measured.push({
      what: `${threshold}-of-${servers}`,
      unit: "ms",
      value: median(all),
      ...(goalMs === null ? {} : { goal: { atMost: goalMs } }),
      peer: { name: "the library in one process", value: library },
    });
    await client.close();
  });
}
report("F10", "key generation", measured, ["ed25519, delegated; sessions open", "all servers on this machine"]);
