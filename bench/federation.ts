import { join } from "node:path";
import { openProfile, realSurroundings } from "../src/client/home.ts";
import { initLocal, type KeyholdClient, readProfile } from "../src/client/index.ts";
import { keyhold } from "./harness.ts";
import { run, type Served, startServe, type World } from "./processes.ts";

/** A federation of real server processes on loopback, and a client that has joined it. */
export interface Federation {
  readonly client: KeyholdClient;
  readonly servers: readonly Served[];
}

const NAME = "bench";
const PASSWORD = new TextEncoder().encode("correct horse battery staple");

/** Starts `count` servers, has every operator accept, and joins. */
export async function startFederation(world: World, count: number, threshold: number): Promise<Federation> {
  const bin = await keyhold();
  const names = Array.from({ length: count }, (_, at) => `server-${at + 1}`);
  const servers: Served[] = [];
  for (const name of names) {
    const dir = join(world.dir, name, "server");
    const command = [bin, "serve", "--dir", dir, "--listen", "127.0.0.1:0", "--json", "--registration", "open"];
    servers.push(await startServe(world, { command, name }));
  }
  const home = { profiles: join(world.dir, "profiles"), vaults: join(world.dir, "vaults") };
  const around = realSurroundings();
  await initLocal(home, { profile: "default", password: PASSWORD.slice(), kdf: "test" }, around);
  const profile = readProfile(home.profiles, "default");
  if (!profile) throw new Error("there is no profile");
  const { client } = await openProfile(home, profile, PASSWORD.slice(), around, { keep: false });
  const draft = { name: NAME, threshold, servers: servers.map(({ url, pin }) => ({ url, pin })) };
  const { federationId } = await client.createFederation(draft);
  for (const name of names) {
    const env = { KEYHOLD_HOME: join(world.dir, name) };
    const dir = join(world.dir, name, "server");
    await run([bin, "server", "federation", "accept", federationId, "--dir", dir, "--yes"], { env });
  }
  const made = await client.createFederation(draft);
  const [first] = servers;
  if (!made.complete || !first) throw new Error("the federation did not form");
  await client.joinFederation({ url: first.url, pin: first.pin, name: null, invites: [] });
  return { client, servers };
}

/** The name under which {@link startFederation} made it. */
export const FEDERATION_NAME = NAME;
