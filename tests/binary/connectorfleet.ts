import { join } from "node:path";
import { type Fleet, openFleet, placeOf } from "./fleet.ts";
import { exitOf, type Home, type Server, serve, serverFlags, spawn } from "./world.ts";

/** A connector's process. */
export interface ConnectorProcess {
  readonly pid: number;
  /** Where its figures and health are told. */
  readonly listen: string;
  log(): string;
  stop(signal?: "SIGTERM" | "SIGKILL"): Promise<number>;
}

/** Starts `keyhold connector run` and waits for its ready line. */
export async function runConnector(home: Home, dir: string, more: readonly string[] = []): Promise<ConnectorProcess> {
  const listen = ["--listen", "127.0.0.1:0"];
  const child = await spawn(home.dir, ["connector", "run", "--dir", dir, ...listen, "--verbose", ...more, "--json"]);
  let log = "";
  const decoder = new TextDecoder();
  const logged = (async () => {
    for await (const part of child.stderr) log += decoder.decode(part, { stream: true });
  })();
  let text = "";
  const reader = child.stdout.getReader();
  while (!text.includes("\n")) {
    const { value, done } = await reader.read();
    if (done) {
      await logged;
      throw new Error(`the connector did not start: exit ${exitOf(child)}: ${log}`);
    }
    text += new TextDecoder().decode(value);
  }
  const { ready } = JSON.parse(text) as { ready: { pid: number; listen: string } };
  return {
    ...ready,
    log: () => log,
    async stop(signal = "SIGTERM") {
      child.kill(signal);
      await Promise.all([child.exited, logged]);
      return exitOf(child);
    },
  };
}

/** A registry, a 2-of-3 federation, a keyring with three connectors, and a workspace of one owner with credits. */
export interface KeyringFleet {
  readonly fleet: Fleet;
  readonly registry: Server;
  readonly owner: Home;
  /** By index, from 1; the first place is empty. */
  readonly dirs: readonly string[];
  home(index: number): Home;
  connector(index: number): ConnectorProcess;
  start(index: number): Promise<void>;
  /** Further words of a server's command line from its next start on, by its index. */
  readonly serverWords: Map<number, readonly string[]>;
  /** Words of `connector init` of a party. */
  initWords(index: number): readonly string[];
  close(): Promise<void>;
}

const textOf = (value: unknown): string => String(value);

export async function openKeyringFleet(): Promise<KeyringFleet> {
  const serverWords = new Map<number, readonly string[]>();
  const fleet = await openFleet(3, (index) => ({ args: serverWords.get(index) ?? [] }));
  const { world } = fleet;
  const registryHome = world.home("registry");
  const registryDir = join(registryHome.dir, "server");
  const registry = await serve(registryHome.dir, ["--listen", "127.0.0.1:0", "--registry", "--dir", registryDir]);
  const owner = world.home("owner");
  await owner.ok(["register", ...serverFlags(registry, "owner"), ...owner.password, "--kdf", "test"]);
  await owner.ok(["login", ...owner.password, "--kdf", "test"]);
  await fleet.form(owner, "trio", 2);
  await owner.ok(["federation", "join", placeOf(fleet.server(1))]);
  const dirs = ["", ...[1, 2, 3].map((index) => join(world.dir, `connector-${index}`))];
  const homes = [1, 2, 3].map((index) => world.home(`party-${index}`));
  const connectors: (ConnectorProcess | null)[] = [null, null, null, null];
  const home = (index: number): Home => {
    const found = homes[index - 1];
    if (!found) throw new Error(`no party ${index}`);
    return found;
  };
  const initWords = (index: number): readonly string[] => {
    const places = ["--registry", placeOf(registry), "--server", placeOf(fleet.server(index))];
    return ["connector", "init", "--dir", dirs[index] ?? "", ...places];
  };
  const parties: string[] = [];
  for (const index of [1, 2, 3]) {
    const { data } = await home(index).ok(initWords(index));
    const words = textOf(data.allow).split(" ").slice(1);
    await home(index).ok([...words, "--dir", fleet.dirs[index] ?? ""]);
    parties.push("--party", `p${index}@${index}=${textOf(data.keyHex)}`);
  }
  await owner.ok(["keyring", "create", "--name", "vaults", "--federation", "trio", "--key-fee", "3", ...parties]);
  const create = ["workspace", "create", "--name", "desk", "--as", "owner", "--admin", "1", "--sign", "1"];
  const { data } = await owner.ok(create);
  await owner.ok(["workspace", "credit", textOf(data.workspaceId), "100", "--note", "start", "--dir", registryDir]);
  const all: KeyringFleet = {
    fleet,
    registry,
    owner,
    dirs,
    home,
    serverWords,
    initWords,
    connector(index) {
      const found = connectors[index];
      if (!found) throw new Error(`connector ${index} does not run`);
      return found;
    },
    async start(index) {
      connectors[index] = await runConnector(home(index), dirs[index] ?? "");
    },
    async close() {
      await Promise.all(connectors.map((one) => one?.stop("SIGKILL")));
      await registry.stop("SIGKILL");
      await fleet.close();
    },
  };
  for (const index of [1, 2, 3]) await all.start(index);
  return all;
}
