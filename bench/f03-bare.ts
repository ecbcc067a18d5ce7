import { randomBytes } from "node:crypto";
import { clientLoginStart, createServerSetup, opaqueReady, serverLoginStart } from "../src/crypto/opaque.ts";

/** The bare library: `bun f03-bare.ts SECONDS` prints its login starts a second and a processor second, after a warm-up. */

const seconds = Math.min(30, Number(process.argv[2] ?? "2"));
await opaqueReady();
const setup = createServerSetup();
const credentialId = new Uint8Array(randomBytes(32));
const { request } = clientLoginStart("correct horse battery staple");
const start = () => serverLoginStart(setup, credentialId, "bench", null, request);
for (let at = 0; at < 50; at++) start();
const startedAt = performance.now();
const before = process.cpuUsage();
let count = 0;
for (; performance.now() - startedAt < seconds * 1_000; count++) start();
const { user, system } = process.cpuUsage(before);
const perSecond = (count * 1_000) / (performance.now() - startedAt);
process.stdout.write(`${JSON.stringify({ perSecond, perProcessorSecond: (count * 1e6) / (user + system) })}\n`);
