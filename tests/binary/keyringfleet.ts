import { Database } from "bun:sqlite";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { KeyringLife } from "../../src/protocol/keyring/requestlife.ts";
import { type DocumentKind, KEY } from "../../src/server/federation/documents.ts";
import type { Course } from "../../src/server/keyring/course.ts";
import { ITEM, REQUEST } from "../../src/server/keyring/requestdocuments.ts";
import { decodeJson } from "../../src/wire/codec.ts";
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

  const startConnector = async (index: number) => {
    connectors.set(index, await runConnector(operator(index), connectorDir(index)));
  };
  const close = async () => {
    await Promise.all([...connectors.values()].map((one) => one.stop("SIGKILL")));
    await running.stop("SIGKILL");
    await fleet.close();
  };

  async function founded() {
    const [keeper, ann, ben] = await Promise.all(["keeper", "ann", "ben"].map(person));
    if (!keeper || !ann || !ben) throw new RangeError("three people");
    await fleet.form(keeper, "custody", 2);
    await keeper.ok(["federation", "join", placeOf(fleet.server(1))]);
    const parties = (await Promise.all(INDICES.map(party))).flatMap((one) => ["--party", one]);
    const fees = ["--key-fee", `${FEES.key}`, "--signature-fee", `${FEES.signature}`];
    const { data } = await keeper.ok([
      ...["keyring", "create", "--name", "vaults", "--federation", "custody", ...fees],
      ...parties,
    ]);
    const workspaceId = await makeWorkspace(ann, "ann", "treasury", [`ben=${await ownerKey(ben)}`], 2);
    await credit(workspaceId, START_CREDITS);
    await Promise.all(INDICES.map(startConnector));
    return { keeper, ann, ben, keyringId: String(data.keyringId), workspaceId };
  }

  try {
    return {
      ...(await founded()),
      fleet,
      registry,
      connectorDir,
      connector,
      startConnector,
      async killConnector(index) {
        await connector(index).stop("SIGKILL");
        connectors.delete(index);
      },
      freeze(index, frozen) {
        process.kill(connector(index).pid, frozen ? "SIGSTOP" : "SIGCONT");
      },
      person,
      credit,
      close,
    };
  } catch (error) {
    const log = running.log();
    await close();
    throw new Error(`${error instanceof Error ? error.message : error}\nThe registry's log: ${log}`);
  }
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

/** The documents of a kind in a server's own database, as they are while it runs. */
export function storedIn<T>(dir: string, { kind, codec }: DocumentKind<T>): readonly { id: string; value: T }[] {
  const db = new Database(join(dir, "keyhold.db"), { readonly: true });
  try {
    const rows = db.query("SELECT id, body FROM document WHERE kind = ? ORDER BY id").all(kind);
    return (rows as { id: string; body: Uint8Array }[]).map(({ id, body }) => ({ id, value: decodeJson(codec, body) }));
  } finally {
    db.close();
  }
}

/** Ids of the keys that each server of the federation has accepted. */
export const keysAtServers = ({ fleet }: Keyrings): readonly (readonly string[])[] =>
  INDICES.map((index) => storedIn(fleet.dirs[index] ?? "", KEY).map(({ id }) => id));

/** What the registry has stored of a request. */
export function lifeOf({ registry }: Keyrings, requestId: string): KeyringLife {
  const found = storedIn(registry.dir, REQUEST).find(({ id }) => id === requestId);
  if (!found) throw new Error(`the registry has no request ${requestId}`);
  return found.value.life;
}

/** Where the registry's coordination of a request of one item stands. */
export function stageOf({ registry }: Keyrings, requestId: string): Course["stage"] {
  const found = storedIn(registry.dir, ITEM).find(({ value }) => value.requestId === requestId);
  if (!found) throw new Error(`the registry has no item of ${requestId}`);
  return found.value.course.stage;
}

/** Looks until something holds; the test's own limit ends it. */
export async function until(holds: () => boolean | Promise<boolean>, everyMs = 20): Promise<void> {
  while (!(await holds())) await Bun.sleep(everyMs);
}
