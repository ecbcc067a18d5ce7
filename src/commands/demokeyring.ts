import { schnorr } from "@noble/curves/secp256k1.js";
import { expectExit, expectThat, type Outcome, type Step, type Walk, type World } from "../ui/demo.ts";
import { password, place, text } from "./demofederation.ts";

const PARTIES = ["north", "east", "south"] as const;
const directoryOf = (world: World, name: string) => world.file(`connector-${name}`);
const KEY_FEE = 10;

/** Connectors that run, by the name of their party. */
const connectors = new WeakMap<World, Map<string, ReturnType<World["start"]>>>();

function runningIn(world: World) {
  const known = connectors.get(world) ?? new Map<string, ReturnType<World["start"]>>();
  connectors.set(world, known);
  return known;
}

export const ann = (world: World, ...args: string[]) => world.run("ann", args);
export const ben = (world: World, ...args: string[]) => world.run("ben", args);
export const keeper = (world: World, ...args: string[]) => world.run("keeper", args);

function startConnector(world: World, name: string): void {
  runningIn(world).set(name, world.start(`party-${name}`, ["connector", "run", "--dir", directoryOf(world, name)]));
}

/** Starts the connectors that do not run. */
export function startedConnectors(world: World): void {
  for (const name of PARTIES) if (!runningIn(world).has(name)) startConnector(world, name);
}

async function killConnector(world: World, name: string): Promise<void> {
  await runningIn(world).get(name)?.kill();
  runningIn(world).delete(name);
}

/** A person with an account at the registry, logged in. */
async function person(world: World, home: string): Promise<void> {
  const { url, pin } = world.server;
  const at = ["--server", url, "--pin", pin, "--account", home];
  expectExit(await world.run(home, ["register", ...at, ...password(world)]));
  expectExit(await world.run(home, ["login", ...password(world)]));
}

/** Lets a request come to its end: Ben agrees, then Ann waits. */
export async function carried(world: World, asked: Outcome): Promise<Outcome> {
  const id = text(expectExit(asked, 9), "requestId");
  expectExit(await ben(world, "approval", "approve", id.slice(0, 16), "--yes"));
  return expectExit(await ann(world, "request", "watch", id.slice(0, 16)));
}

export interface Item {
  readonly keyId: string;
  readonly publicKeyHex: string;
  readonly signatureHex: string;
}
export const itemsOf = (outcome: Outcome) => outcome.data["items"] as readonly Item[];

const partiesOf = (outcome: Outcome): string =>
  (outcome.data["parties"] as { name: string; state: string }[]).map((p) => `${p.name}: ${p.state}`).join(", ");

export const requestKey = (world: World, type: string) =>
  ann(world, "request", "key", "--workspace", "treasury", "--keyring", "vaults", "--type", type, "--yes");

export async function keyOf(world: World, type: string): Promise<{ keyId: string; publicKeyHex: string }> {
  const listed = expectExit(await ann(world, "workspace", "keys", "treasury", "--type", type));
  const [key] = listed.data["items"] as { keyId: string; publicKeyHex: string }[];
  if (!key) throw new Error(`no key of type ${type}`);
  return key;
}

async function balanceOf(world: World): Promise<number> {
  return Number(expectExit(await ann(world, "workspace", "show", "treasury")).data["balance"]);
}

const FEDERATION: Step = {
  title: "federation",
  shown: "keyhold federation create … && keyhold server federation accept …   (three operators)",
  async run(world) {
    await person(world, "keeper");
    const members = world.servers.slice(1);
    const create = () =>
      keeper(
        world,
        ...["federation", "create", "--name", "custody", "--threshold", "2"],
        ...members.flatMap((one) => ["--server", place(one)]),
      );
    const id = text(expectExit(await create(), 9), "federationId");
    for (const { dir } of members)
      expectExit(await keeper(world, "server", "federation", "accept", id, "--dir", dir, "--yes"));
    expectExit(await create());
    const [first] = members;
    if (!first) throw new RangeError("a federation has members");
    const joined = expectExit(await keeper(world, "federation", "join", place(first)));
    return `any ${text(joined, "threshold")} of ${members.length} servers`;
  },
};

const CONNECTORS: Step = {
  title: "connectors",
  shown: "keyhold connector init … && keyhold server connector allow … && keyhold connector run",
  async run(world) {
    const lines: string[] = [];
    for (const [i, name] of PARTIES.entries()) {
      const own = world.servers[i + 1];
      if (!own) throw new RangeError("each party has a server");
      const at = ["--dir", directoryOf(world, name), "--registry", place(world.server), "--server", place(own)];
      const made = expectExit(await world.run(`party-${name}`, ["connector", "init", ...at]));
      const { keyHex } = made.data["registry"] as { keyHex: string };
      const allowed = ["server", "connector", "allow", text(made, "account"), "--registry", keyHex];
      expectExit(await world.run(`party-${name}`, [...allowed, "--dir", own.dir]));
      world.file(`${name}.key`, text(made, "keyHex"));
      startConnector(world, name);
      lines.push(`${name}  ${text(made, "keyHex").slice(0, 16)}…  beside ${own.url}`);
    }
    return lines.join("\n");
  },
};

const KEYRING_STEP: Step = {
  title: "keyring",
  shown: `keyhold keyring create --name vaults --federation custody --key-fee ${KEY_FEE} --signature-fee 1 --party …`,
  async run(world) {
    const { readFileSync } = await import("node:fs");
    const parties = PARTIES.flatMap((name, i) => [
      "--party",
      `${name}@${i + 1}=${readFileSync(world.file(`${name}.key`), "utf8")}`,
    ]);
    const fees = ["--key-fee", String(KEY_FEE), "--signature-fee", "1"];
    const args = ["keyring", "create", "--name", "vaults", "--federation", "custody", ...fees, ...parties];
    const made = expectExit(await keeper(world, ...args));
    return `any ${text(made, "threshold")} of ${PARTIES.length} parties; ${KEY_FEE} credits a key, 1 a signature`;
  },
};

const WORKSPACE: Step = {
  title: "workspace",
  shown: "keyhold workspace create --name treasury --as ann --owner ben=… --admin 2 --sign 2",
  async run(world) {
    await person(world, "ann");
    await person(world, "ben");
    const me = expectExit(await ben(world, "workspace", "me"));
    const owner = ["--as", "ann", "--owner", `ben=${text(me, "keyHex")}`, "--admin", "2", "--sign", "2"];
    const made = expectExit(await ann(world, "workspace", "create", "--name", "treasury", ...owner));
    const id = text(made, "workspaceId");
    expectExit(await keeper(world, "workspace", "credit", id, "100", "--note", "demo", "--dir", world.server.dir));
    expectThat((await balanceOf(world)) === 100, "the workspace has 100 credits");
    return `${id.slice(0, 16)}…: both owners must agree; 100 credits`;
  },
};

const FIRST_KEY: Step = {
  title: "request a key",
  shown: "keyhold request key --type schnorr; keyhold approval approve …   (ben); keyhold request watch …",
  async run(world) {
    const asked = await requestKey(world, "schnorr");
    expectThat((await balanceOf(world)) === 100 - KEY_FEE, "the fee is held");
    const done = await carried(world, asked);
    return `${text(done, "status")} (${partiesOf(done)})\npublic key ${itemsOf(done)[0]?.publicKeyHex}`;
  },
};

const KILLED: Step = {
  title: "one connector is killed, another is late",
  shown: "kill -9 …; kill -STOP …; keyhold request key --type ed25519",
  async run(world) {
    await killConnector(world, "south");
    runningIn(world).get("east")?.freeze(true);
    const id = text(expectExit(await requestKey(world, "ed25519"), 9), "requestId").slice(0, 16);
    expectExit(await ben(world, "approval", "approve", id, "--yes"));
    const waiting = expectExit(await ann(world, "request", "show", id));
    expectThat(text(waiting, "status") === "pending", "nothing comes of it without them");
    startConnector(world, "south");
    runningIn(world).get("east")?.freeze(false);
    const done = expectExit(await ann(world, "request", "watch", id));
    return `${text(done, "status")} once both are there (${partiesOf(done)})`;
  },
};

const ADDRESSES: Step = {
  title: "addresses",
  shown: "keyhold key address ID --as btc-p2tr --network regtest; … --as solana",
  async run(world) {
    const schnorrKey = await keyOf(world, "schnorr");
    const edKey = await keyOf(world, "ed25519");
    const address = async (id: string, ...as: string[]) =>
      text(expectExit(await ann(world, "key", "address", id.slice(0, 16), "--as", ...as)), "address");
    const taproot = await address(schnorrKey.keyId, "btc-p2tr", "--network", "regtest");
    expectThat(taproot.startsWith("bcrt1p"), "a taproot address of regtest");
    return `bitcoin  ${taproot}\nsolana   ${await address(edKey.keyId, "solana")}`;
  },
};

/** A transaction that spends an output of the key, to one recipient and back. */
async function psbtOf(publicKeyHex: string): Promise<{ readonly psbt: Uint8Array; readonly script: Uint8Array }> {
  const { Transaction, p2wpkh } = await import("@scure/btc-signer");
  const key = Uint8Array.fromHex(publicKeyHex).slice(-32);
  const script = Uint8Array.of(0x51, 0x20, ...key);
  const tx = new Transaction();
  tx.addInput({ txid: "11".repeat(32), index: 0, witnessUtxo: { script, amount: 100_000n } });
  tx.addOutput({ script: p2wpkh(Uint8Array.of(2, ...key)).script, amount: 60_000n });
  tx.addOutput({ script, amount: 39_000n });
  return { psbt: tx.toPSBT(), script };
}

const SIGNATURE: Step = {
  title: "sign a transaction",
  shown: "keyhold request signature --key ID --psbt-file spend.psbt; keyhold approval approve …   (ben)",
  async run(world) {
    const { Transaction } = await import("@scure/btc-signer");
    await killConnector(world, "south");
    const key = await keyOf(world, "schnorr");
    const { psbt, script } = await psbtOf(key.publicKeyHex);
    const file = world.file("spend.psbt", psbt);
    const asked = await ann(world, "request", "signature", "--key", key.keyId, "--psbt-file", file, "--yes");
    const done = await carried(world, asked);
    const signature = Uint8Array.fromHex(itemsOf(done)[0]?.signatureHex ?? "");
    const tx = Transaction.fromPSBT(psbt);
    const hash = tx.preimageWitnessV1(0, [script], 0, [100_000n]);
    const holds = schnorr.verify(signature, hash, Uint8Array.fromHex(key.publicKeyHex).slice(-32));
    expectThat(holds, "the signature verifies under the transaction's sighash");
    tx.updateInput(0, { tapKeySig: signature }, true);
    tx.finalize();
    return `by two of three parties; final transaction ${tx.id}`;
  },
};

/** An account of the ledger, with the start of its ids. */
const shortened = (account: string): string => account.replaceAll(/[0-9a-f]{64}/g, (id) => `${id.slice(0, 8)}…`);

const BALANCES: Step = {
  title: "balances",
  shown: "keyhold workspace ledger treasury; keyhold keyring balances",
  async run(world) {
    const listed = expectExit(await keeper(world, "keyring", "balances", "--dir", world.server.dir));
    const items = listed.data["items"] as { account: string; balance: number }[];
    expectThat(items.reduce((sum, one) => sum + one.balance, 0) === 0, "all accounts together sum to zero");
    return items.map(({ account, balance }) => `${shortened(account).padEnd(32)}${balance}`).join("\n");
  },
};

export const ESSENCE = [
  FEDERATION,
  CONNECTORS,
  KEYRING_STEP,
  WORKSPACE,
  FIRST_KEY,
  KILLED,
  ADDRESSES,
  SIGNATURE,
  BALANCES,
];

/** The first server is the registry. */
export const SERVERS = { servers: 4, serve: ["--registry"] } as const;

/** A registry, a federation of three and three connectors: the essence. */
export const KEYRING: Walk = { ...SERVERS, steps: ESSENCE };
