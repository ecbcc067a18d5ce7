import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { type Home, openWorld, type Server, serve, type World } from "./world.ts";

/** Real server processes of different operators, and what is done with all of them. */
export interface Fleet {
  readonly world: World;
  /** By index, from 1; the first place is empty. */
  readonly dirs: readonly string[];
  server(index: number): Server;
  /** Ends one without warning. */
  kill(index: number): Promise<void>;
  /** Starts it again on its port. */
  start(index: number): Promise<void>;
  /** Starts further ones. */
  grow(count: number): Promise<void>;
  /** Has every operator accept what the owner drafts. */
  form(owner: Home, name: string, threshold: number, more?: readonly string[]): Promise<string>;
  /** A home with a vault of its own that has joined. */
  join(name: string): Promise<Home>;
  close(): Promise<void>;
}

/** A server as `federation create` takes it. */
export const placeOf = ({ url, pin }: Pick<Server, "url" | "pin">): string => `${url}#${pin}`;

/** Runs a command with `--json` that must end with this code and gives its data. */
export async function dataAt(home: Home, code: number, argv: readonly string[]): Promise<Record<string, unknown>> {
  const ran = await home.run([...argv, "--json"]);
  if (ran.code !== code) throw new Error(`keyhold ${argv.join(" ")}: exit ${ran.code}: ${ran.out}${ran.err}`);
  return (JSON.parse(ran.out) as { data: Record<string, unknown> }).data;
}

/** A home with a vault and its agent, without a server of its own. */
export async function localHome(world: World, name: string): Promise<Home> {
  const home = world.home(name);
  await home.ok(["init", "--local", "--no-kit", "--kdf", "test", ...home.password]);
  await home.ok(["unlock", ...home.password, "--kdf", "test"]);
  return home;
}

/**
 * Starts so many servers.
 *
 * @param options Further words of one server's command line, and its environment: for another database.
 */
export async function openFleet(
  count: number,
  options: (index: number) => { readonly args: readonly string[]; readonly env?: Record<string, string> } = () => ({
    args: [],
  }),
): Promise<Fleet> {
  const world = await openWorld({ server: false });
  const dirs: string[] = [""];
  const servers: (Server | null)[] = [null];
  const started = (index: number, port: number) => {
    const { args, env } = options(index);
    const listen = ["--listen", `127.0.0.1:${port}`, ...args];
    return serve(dirs[index] ?? "", listen, env ? { env } : {});
  };
  const fleet: Fleet = {
    world,
    dirs,
    server(index) {
      const found = servers[index];
      if (!found) throw new Error(`server ${index} does not run`);
      return found;
    },
    async kill(index) {
      await servers[index]?.stop("SIGKILL");
    },
    async start(index) {
      servers[index] = await started(index, servers[index]?.port ?? 0);
    },
    async grow(more) {
      const from = dirs.length;
      for (let at = from; at < from + more; at++) {
        const dir = join(world.dir, `server-${at}`);
        mkdirSync(dir, { mode: 0o700 });
        dirs.push(dir);
      }
      servers.push(...(await Promise.all(dirs.slice(from).map((_, at) => started(from + at, 0)))));
    },
    async form(owner, name, threshold, more = []) {
      const places = servers.slice(1).flatMap((one) => (one ? ["--server", placeOf(one)] : []));
      const create = ["federation", "create", "--name", name, "--threshold", `${threshold}`, ...places, ...more];
      const { federationId } = await dataAt(owner, 9, create);
      for (const dir of dirs.slice(1)) {
        const operator = world.home(`operator-${dir.split("-").at(-1)}`);
        await operator.ok(["server", "federation", "accept", String(federationId), "--dir", dir, "--yes"]);
      }
      await dataAt(owner, 0, create);
      return String(federationId);
    },
    async join(name) {
      const home = await localHome(world, name);
      await home.ok(["federation", "join", placeOf(fleet.server(1))]);
      return home;
    },
    async close() {
      await Promise.all(servers.map((one) => one?.stop("SIGKILL")));
      await world.close();
    },
  };
  await fleet.grow(count);
  return fleet;
}
