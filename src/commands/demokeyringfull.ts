import { expectExit, expectThat, type Step, type Walk, type World } from "../ui/demo.ts";
import { place, text } from "./demofederation.ts";
import {
  ann,
  ben,
  carried,
  ESSENCE,
  itemsOf,
  keeper,
  keyOf,
  requestKey,
  SERVERS,
  startedConnectors,
} from "./demokeyring.ts";

/** Addresses that a key of each type has. */
const KINDS = {
  secp256k1: [["evm"], ["btc-p2wpkh", "--network", "signet"], ["cosmos", "--prefix", "osmo"], ["zcash-p2pkh"]],
  schnorr: [
    ["btc-p2tr"],
    ["btc-p2tr", "--network", "testnet"],
    ["btc-p2tr", "--network", "signet"],
    ["btc-p2tr", "--network", "regtest"],
  ],
  ed25519: [["solana"]],
} as const;

const ECDSA_KEY: Step = {
  title: "an ecdsa key",
  shown: "keyhold request key --type secp256k1; keyhold approval approve …   (ben)",
  async run(world) {
    startedConnectors(world);
    const done = await carried(world, await requestKey(world, "secp256k1"));
    return `${text(done, "status")}: ${itemsOf(done)[0]?.publicKeyHex}`;
  },
};

const ALL_ADDRESSES: Step = {
  title: "every address",
  shown: "keyhold key address ID --as …",
  async run(world) {
    const lines: string[] = [];
    for (const type of ["secp256k1", "schnorr", "ed25519"] as const) {
      const { keyId } = await keyOf(world, type);
      for (const as of KINDS[type]) {
        const made = expectExit(await ann(world, "key", "address", keyId.slice(0, 16), "--as", ...as));
        lines.push(`${as.join(" ").padEnd(28)}${text(made, "address")}`);
      }
    }
    return lines.join("\n");
  },
};

const EVM: Step = {
  title: "an EVM transaction",
  shown: "keyhold request signature --key ID --evm-file unsigned.hex",
  async run(world) {
    const { Transaction } = await import("micro-eth-signer");
    const { keyId } = await keyOf(world, "secp256k1");
    const address = text(expectExit(await ann(world, "key", "address", keyId.slice(0, 16), "--as", "evm")), "address");
    const tx = Transaction.prepare({
      to: "0xdf90dea0e0bf5ca6d2a7f0cb86874ba6714f463e",
      value: 10n ** 15n,
      nonce: 0n,
      maxFeePerGas: 2_000_000_000n,
      maxPriorityFeePerGas: 1_000_000_000n,
      chainId: 1n,
    });
    const file = world.file("unsigned.hex", tx.toHex({ includeSignature: false }));
    const asked = await ann(world, "request", "signature", "--key", keyId, "--evm-file", file, "--yes");
    const id = text(expectExit(asked, 9), "requestId").slice(0, 16);
    const seen = expectExit(await ben(world, "approval", "show", id));
    expectThat(JSON.stringify(seen.data).includes("wei.1"), "ben sees the amount before he agrees");
    const done = await carried(world, asked);
    const signature = Uint8Array.fromHex(itemsOf(done)[0]?.signatureHex ?? "");
    const half = (from: number) => BigInt(`0x${signature.subarray(from, from + 32).toHex()}`);
    const [r, s] = [half(0), half(32)];
    const senders = [0, 1].map(
      (yParity) => new Transaction(tx.type, { ...tx.raw, r, s, yParity }, { strict: false }).sender,
    );
    expectThat(senders.includes(address), "the signed transaction's sender is the key's address");
    const [key] = expectExit(await ann(world, "workspace", "keys", "treasury", "--type", "secp256k1")).data[
      "items"
    ] as { shown: string }[];
    expectThat(key?.shown === "released", "the key is marked as released");
    return `from ${address}: made by ann's client of released shares, and the key is marked`;
  },
};

const REJECTED: Step = {
  title: "a refusal",
  shown: 'keyhold approval reject … --reason "not this one"   (ben)',
  async run(world) {
    const before = await balanceOf(world);
    const id = text(expectExit(await requestKey(world, "p256"), 9), "requestId").slice(0, 16);
    expectExit(await ben(world, "approval", "reject", id, "--reason", "not this one"));
    const over = expectExit(await ann(world, "request", "show", id));
    expectThat(text(over, "status") === "rejected", "the request is rejected");
    expectThat((await balanceOf(world)) === before, "the fee was given back");
    return "rejected; the fee was given back";
  },
};

async function balanceOf(world: World): Promise<number> {
  return Number(expectExit(await ann(world, "workspace", "show", "treasury")).data["balance"]);
}

const STRANGER: Step = {
  title: "a stranger",
  shown: "keyhold connector init … && keyhold connector run   (of no keyring)",
  async run(world) {
    const own = world.servers[1];
    if (!own) throw new RangeError("there are servers");
    const dir = world.file("connector-stranger");
    const at = ["--dir", dir, "--registry", place(world.server), "--server", place(own)];
    expectExit(await world.run("stranger", ["connector", "init", ...at]));
    const process = world.start("stranger", ["connector", "run", "--dir", dir]);
    const done = await carried(world, await requestKey(world, "p256"));
    expectThat((await process.end()) === 0, "it ends as asked");
    const names = (done.data["parties"] as { name: string }[]).map(({ name }) => name).join(", ");
    return `got no work and had no say: ${names} answered, ${text(done, "status")}`;
  },
};

const OWNERS: Step = {
  title: "owners change",
  shown: "keyhold workspace policy treasury --sign 1; keyhold workspace agree treasury   (ben)",
  async run(world) {
    expectExit(await ann(world, "workspace", "policy", "treasury", "--sign", "1"), 9);
    const agreed = expectExit(await ben(world, "workspace", "agree", "treasury", "--yes"));
    const asked = await ann(world, "request", "key", "--type", "ed25519", "--wait", "--yes");
    return `version ${text(agreed, "version")}; ${text(expectExit(asked), "status")} without ben`;
  },
};

const AUDIT: Step = {
  title: "events",
  shown: "keyhold workspace events treasury; keyhold keyring status vaults",
  async run(world) {
    const events = expectExit(await ann(world, "workspace", "events", "treasury")).data["items"] as { event: string }[];
    const status = expectExit(await keeper(world, "keyring", "status", "vaults"));
    const parties = status.data["items"] as { name: string; state: string; backlog: number }[];
    return [
      `${events.length} events, the last one ${events.at(-1)?.event}`,
      ...parties.map((one) => `${one.name}  ${one.state}  backlog ${one.backlog}`),
    ].join("\n");
  },
};

const MORE = [ECDSA_KEY, ALL_ADDRESSES, EVM, REJECTED, STRANGER, OWNERS, AUDIT];

/** All of it: every type, every address, both kinds of transactions, refusals. */
export const KEYRING_FULL: Walk = { ...SERVERS, steps: [...ESSENCE.slice(0, -1), ...MORE, ...ESSENCE.slice(-1)] };
