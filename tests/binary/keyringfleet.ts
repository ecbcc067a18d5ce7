import { Database } from "bun:sqlite";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { type DocumentKind, KEY } from "../../src/server/federation/documents.ts";
import { type ConnectorProcess, runConnector } from "./connectorfleet.ts";
import { dataAt, type Fleet, openFleet, placeOf } from "./fleet.ts";
import { type Home, type Server, serve, serverFlags } from "./world.ts";

/** Names of the parties, beside the servers 1 to 3. */
const PARTIES = ["north", "east", "south"] as const;
export const INDICES = [1, 2, 3] as const;
export const FEES = { key: 10, signature: 2 } as const;
/** What the workspace has when it begins. */
export const START_CREDITS = 10_000;

/** A key of the workspace as `workspace keys` shows it. */
export interface ShownKey {
  readonly keyId: string;
  readonly type: string;
  readonly publicKeyHex: string;
  readonly shown: string;
  readonly confirmedBy: readonly string[];
}

/** A request as `request show` and `request watch` show it. */
export interface ShownRequest {
  readonly requestId: string;
  readonly kind: string;
  readonly status: string;
  readonly approved: boolean;
  readonly why: string;
  readonly fee: number;
  readonly parties: readonly { readonly name: string; readonly state: string }[];
  readonly votes: readonly { readonly owner: string; readonly verdict: string }[];
  readonly items: readonly {
    readonly itemId: string;
    readonly keyId: string | null;
    readonly publicKeyHex: string | null;
    readonly signatureHex: string | null;
    readonly facts: {
      readonly amount: { readonly unit: string; readonly value: string } | null;
      readonly recipients: readonly string[];
    };
  }[];
  readonly finishable: boolean;
}

/** The registry's process, which can be killed and come back on its port. */
export interface Registry {
  readonly dir: string;
  server(): Server;
  kill(): Promise<void>;
  start(): Promise<void>;
}

/** A registry, a 2-of-3 federation with a connector each, and a workspace of the owners ann and ben, who both must agree. */
export interface Keyrings {
  readonly fleet: Fleet;
  readonly registry: Registry;
  /** Admin of the keyring `vaults`, and who drafted the federation. */
  readonly keeper: Home;
  readonly ann: Home;
  readonly ben: Home;
  readonly keyringId: string;
  /** Of `treasury`. */
  readonly workspaceId: string;
  connectorDir(index: number): string;
  connector(index: number): ConnectorProcess;
  startConnector(index: number): Promise<void>;
  killConnector(index: number): Promise<void>;
  /** Stops its process where it is, or lets it go on. */
  freeze(index: number, frozen: boolean): void;
  /** A home with an account at the registry. */
  person(name: string): Promise<Home>;
  /** Gives a workspace credits. */
  credit(workspaceId: string, amount: number): Promise<void>;
  close(): Promise<void>;
}

/** How the registry is served, and how a command beside it finds its data. */
export interface RegistryWords {
  readonly args: readonly string[];
  readonly env?: Record<string, string>;
}

/** Starts all of it. */
export async function openKeyrings(words: RegistryWords = { args: [] }): Promise<Keyrings> {
  const fleet = await openFleet(3);
  const { world } = fleet;
  const dir = join(world.dir, "registry");
  mkdirSync(dir, { mode: 0o700 });
  const { env } = words;
  const served = (port: number) =>
    serve(dir, ["--listen", `127.0.0.1:${port}`, "--registry", ...words.args], env ? { env } : {});
  let running = await served(0);
  const registry: Registry = {
    dir,
    server: () => running,
    async kill() {
      await running.stop("SIGKILL");
    },
    async start() {
      running = await served(running.port);
    },
  };
  const connectors = new Map<number, ConnectorProcess>();
  const connectorDir = (index: number) => join(world.dir, `connector-${index}`);
  const operator = (index: number) => world.home(`party-${index}`);
  const connector = (index: number): ConnectorProcess => {
    const found = connectors.get(index);
    if (!found) throw new Error(`connector ${index} does not run`);
    return found;
  };

  async function person(name: string): Promise<Home> {
    const home = world.home(name);
    await home.ok(["register", ...serverFlags(running, name), ...home.password, "--kdf", "test"]);
    await home.ok(["login", ...home.password, "--kdf", "test"]);
    return home;
  }

  async function credit(workspaceId: string, amount: number): Promise<void> {
    const note = ["--note", "test", "--dir", dir];
    await operator(0).ok(["workspace", "credit", workspaceId, `${amount}`, ...note], env ? { env } : {});
  }

  async function party(index: number): Promise<string> {
    const places = ["--registry", placeOf(running), "--server", placeOf(fleet.server(index))];
    const { data } = await operator(index).ok(["connector", "init", "--dir", connectorDir(index), ...places]);
    const allow = String(data.allow).split(" ").slice(1);
    await operator(index).ok([...allow, "--dir", fleet.dirs[index] ?? ""]);
    return `${PARTIES[index - 1]}@${index}=${data.keyHex}`;
  }

  const [keeper, ann, ben] = await Promise.all(["keeper", "ann", "ben"].map(person));
  if (!keeper || !ann || !ben) throw new RangeError("three people");
  await fleet.form(keeper, "custody", 2);
  await keeper.ok(["federation", "join", placeOf(fleet.server(1))]);
  const parties = await Promise.all(INDICES.map(party));
  const fees = ["--key-fee", `${FEES.key}`, "--signature-fee", `${FEES.signature}`];
  const named = ["--name", "vaults", "--federation", "custody"];
  const made = await keeper.ok(["keyring", "create", ...named, ...fees, ...parties.flatMap((one) => ["--party", one])]);
  const workspaceId = await makeWorkspace(ann, "ann", "treasury", [`ben=${await ownerKey(ben)}`], 2);
  await credit(workspaceId, START_CREDITS);
  const all: Keyrings = {
    fleet,
    registry,
    keeper,
    ann,
    ben,
    keyringId: made.data.keyringId,
    workspaceId,
    connectorDir,
    connector,
    async startConnector(index) {
      connectors.set(index, await runConnector(operator(index), connectorDir(index)));
    },
    async killConnector(index) {
      await connector(index).stop("SIGKILL");
      connectors.delete(index);
    },
    freeze(index, frozen) {
      process.kill(connector(index).pid, frozen ? "SIGSTOP" : "SIGCONT");
    },
    person,
    credit,
    async close() {
      await Promise.all([...connectors.values()].map((one) => one.stop("SIGKILL")));
      await running.stop("SIGKILL");
      await fleet.close();
    },
  };
  await Promise.all(INDICES.map((index) => all.startConnector(index)));
  return all;
}

/** What workspaces know an account by. */
export async function ownerKey(home: Home): Promise<string> {
  return (await home.ok(["workspace", "me"])).data.keyHex;
}

/** Makes a workspace in which so many owners must agree, and gives its id. */
export async function makeWorkspace(
  home: Home,
  self: string,
  name: string,
  others: readonly string[],
  quorum: number,
): Promise<string> {
  const owners = others.flatMap((one) => ["--owner", one]);
  const quorums = ["--admin", `${quorum}`, "--sign", `${quorum}`];
  const { data } = await home.ok(["workspace", "create", "--name", name, "--as", self, ...owners, ...quorums]);
  return data.workspaceId;
}

export const short = (id: string): string => id.slice(0, 16);

/** Asks for something that waits for others. @returns its id. */
export async function asked(home: Home, argv: readonly string[]): Promise<string> {
  return String((await dataAt(home, 9, ["request", ...argv, "--yes"]))["requestId"]);
}

/** Words of `request key`. */
export const forKey = (type: string, workspace = "treasury"): string[] => [
  "key",
  "--workspace",
  workspace,
  "--keyring",
  "vaults",
  "--type",
  type,
];

export async function approve(home: Home, requestId: string): Promise<ShownRequest> {
  return (await home.ok(["approval", "approve", short(requestId), "--yes"])).data;
}

/** Waits for its end, which must be a good one. */
export async function watched(home: Home, requestId: string): Promise<ShownRequest> {
  return (await home.ok(["request", "watch", short(requestId)])).data;
}

export async function shown(home: Home, requestId: string): Promise<ShownRequest> {
  return (await home.ok(["request", "show", short(requestId)])).data;
}

/** Lets ann ask, ben agree, and waits for the end. */
export async function fulfilled({ ann, ben }: Keyrings, argv: readonly string[]): Promise<ShownRequest> {
  const id = await asked(ann, argv);
  await approve(ben, id);
  return watched(ann, id);
}

export async function keysOf({ ann }: Keyrings, type?: string): Promise<readonly ShownKey[]> {
  const of = type === undefined ? [] : ["--type", type];
  return (await ann.ok(["workspace", "keys", "treasury", ...of])).data.items;
}

/** The ledger's accounts with their balances, as the registry's operator sees them. */
export async function balances(
  { fleet, registry }: Keyrings,
  env?: Record<string, string>,
): Promise<ReadonlyMap<string, number>> {
  const argv = ["keyring", "balances", "--dir", registry.dir];
  const { data } = await fleet.world.home("party-0").ok(argv, env ? { env } : {});
  const items = data.items as { account: string; balance: number }[];
  return new Map(items.map(({ account, balance }) => [account, balance]));
}

export const sumOf = (amounts: Iterable<number>): number => [...amounts].reduce((sum, one) => sum + one, 0);

/** What `workspace show` says of `treasury`. */
export async function treasury({ ann }: Keyrings): Promise<{ readonly balance: number; readonly escrowed: number }> {
  const { balance, escrowed } = (await ann.ok(["workspace", "show", "treasury"])).data;
  return { balance, escrowed };
}

/** How many documents of a kind a server's own database holds. */
export function documentsIn(dir: string, { kind }: Pick<DocumentKind<unknown>, "kind">): readonly string[] {
  const db = new Database(join(dir, "keyhold.db"), { readonly: true });
  try {
    const rows = db.query("SELECT id FROM document WHERE kind = ? ORDER BY id").all(kind) as { id: string }[];
    return rows.map(({ id }) => id);
  } finally {
    db.close();
  }
}

/** Ids of the keys that each server of the federation has accepted. */
export const keysAtServers = ({ fleet }: Keyrings): readonly (readonly string[])[] =>
  INDICES.map((index) => documentsIn(fleet.dirs[index] ?? "", KEY));
