import { createPublicKey, verify } from "node:crypto";
import { schnorr, secp256k1 } from "@noble/curves/secp256k1.js";
import { expectExit, expectThat, type Outcome, type Step, type Walk, type World } from "../ui/demo.ts";

const PASSWORD = "correct horse battery staple";
const MESSAGE = "pay 3 coins to the harbour master";
const ED25519_SPKI = "302a300506032b6570032100";

export const owner = (world: World, ...args: string[]) => world.run("owner", args);
export const password = (world: World) => ["--password-file", world.file("password", PASSWORD)];
export const place = ({ url, pin }: { readonly url: string; readonly pin: string }) => `${url}#${pin}`;
export const message = (world: World) => ["--message-file", world.file("message", MESSAGE)];
export const text = (outcome: Outcome, field: string) => String(outcome.data[field]);

function create(world: World): Promise<Outcome> {
  const servers = world.servers.flatMap((one) => ["--server", place(one)]);
  return owner(world, "federation", "create", "--name", "custody", "--threshold", "2", ...servers);
}

function roster(outcome: Outcome): string {
  const lines = outcome.data["roster"] as { url: string; state: string }[];
  return lines.map(({ url, state }) => `${state.padEnd(8)}  ${url}`).join("\n");
}

const P256_SPKI = "3039301306072a8648ce3d020106082a8648ce3d030107032200";

/** Verifies a signature by code that is not ours to make it. */
function verified(publicKeyHex: string, signatureHex: string, type: string): boolean {
  const [key, signature] = [Uint8Array.fromHex(publicKeyHex), Uint8Array.fromHex(signatureHex)];
  const bytes = new TextEncoder().encode(MESSAGE);
  if (type === "schnorr") return schnorr.verify(signature, bytes, key.slice(-32));
  if (type === "secp256k1") return secp256k1.verify(signature, bytes, key);
  const der = Buffer.concat([Buffer.from(type === "p256" ? P256_SPKI : ED25519_SPKI, "hex"), key]);
  const known = createPublicKey({ key: der, format: "der", type: "spki" });
  if (type === "p256") return verify("sha256", bytes, { key: known, dsaEncoding: "ieee-p1363" }, signature);
  return verify(null, bytes, known, signature);
}

/** Holds a signature against the key's public half. */
export async function checked(world: World, name: string, made: Outcome): Promise<string> {
  const shown = expectExit(await owner(world, "key", "show", name));
  const signature = text(made, "signatureHex");
  const holds = verified(text(shown, "publicKeyHex"), signature, text(shown, "type"));
  expectThat(holds, "the signature verifies under the public key");
  return `${text(made, "scheme")} ${signature.slice(0, 32)}…, verified by a library that knows nothing of shares`;
}

/** Signs under unilateral control. */
export async function signed(world: World, name: string): Promise<string> {
  return checked(world, name, expectExit(await owner(world, "key", "sign", name, ...message(world))));
}

export const ESSENCE: readonly Step[] = [
  {
    title: "vault",
    shown: "keyhold init --local && keyhold unlock",
    async run(world) {
      expectExit(await owner(world, "init", "--local", "--no-kit", ...password(world)));
      expectExit(await owner(world, "unlock", ...password(world)));
      return "a vault on this device; it will hold the secret that opens the accounts at the servers";
    },
  },
  {
    title: "create",
    shown: "keyhold federation create --name custody --threshold 2 --server URL#PIN …",
    async run(world) {
      const made = expectExit(await create(world), 9);
      return `${roster(made)}\n[exit 9: waits for the operators]`;
    },
  },
  {
    title: "accept",
    shown: "keyhold server federation accept ID   (on each server's own machine)",
    async run(world) {
      const id = text(expectExit(await create(world), 9), "federationId");
      for (const [i, { dir }] of world.servers.entries()) {
        const home = `operator${i + 1}`;
        expectExit(await world.run(home, ["server", "federation", "accept", id, "--dir", dir, "--yes"]));
      }
      const made = expectExit(await create(world));
      return `${roster(made)}\nall have signed one manifest`;
    },
  },
  {
    title: "join",
    shown: "keyhold federation join URL#PIN",
    async run(world) {
      const joined = expectExit(await owner(world, "federation", "join", place(world.server)));
      return `any ${text(joined, "threshold")} of ${world.servers.length}; approval key ${text(joined, "approvalKeyHex").slice(0, 16)}…`;
    },
  },
  {
    title: "generate",
    shown: "keyhold key generate treasury --type schnorr --custody delegated",
    async run(world) {
      const args = ["treasury", "--type", "schnorr", "--custody", "delegated"];
      const made = expectExit(await owner(world, "key", "generate", ...args));
      return `${text(made, "keyId")}\npublic key ${text(made, "publicKeyHex")}: nobody has the private one`;
    },
  },
  {
    title: "sign",
    shown: "keyhold key sign treasury --message-file message",
    run: (world) => signed(world, "treasury"),
  },
  {
    title: "self-custody",
    shown: "keyhold key generate mine --type ed25519 --custody self && keyhold key sign mine …",
    async run(world) {
      expectExit(await owner(world, "key", "generate", "mine", "--type", "ed25519", "--custody", "self"));
      return `${await signed(world, "mine")}\nthe servers alone, all of them, could not have made it`;
    },
  },
  {
    title: "one server dies",
    shown: "kill -9 …; keyhold key sign treasury --message-file message",
    async run(world) {
      await world.servers[2]?.kill();
      return `${await signed(world, "treasury")}\nby the other two`;
    },
  },
  {
    title: "and comes back",
    shown: "keyhold serve; keyhold federation check",
    async run(world) {
      await world.servers[2]?.start();
      const check = expectExit(await owner(world, "federation", "check"));
      const keys = check.data["keys"] as { name: string; live: number[]; threshold: number }[];
      return keys.map(({ name, live, threshold }) => `${name}: ${live.length} shares, ${threshold} needed`).join("\n");
    },
  },
  {
    title: "bytes",
    shown: "keyhold key generate seed --type bytes && keyhold key retrieve seed --reveal",
    async run(world) {
      expectExit(await owner(world, "key", "generate", "seed", "--type", "bytes"));
      const [first, second] = [await retrieved(world), await retrieved(world)];
      expectThat(first === second && first.length === 64, "the same 32 bytes come back");
      return `${first.slice(0, 16)}…, put together on this device alone; the key is marked as released`;
    },
  },
  {
    title: "refresh",
    shown: "keyhold key refresh treasury && keyhold key sign treasury …",
    async run(world) {
      expectExit(await owner(world, "key", "refresh", "treasury"));
      return `new shares, the same key: ${await signed(world, "treasury")}`;
    },
  },
];

async function retrieved(world: World): Promise<string> {
  return text(expectExit(await owner(world, "key", "retrieve", "seed", "--reveal")), "value");
}

/** Three key servers that hold keys together: the essence. */
export const FEDERATION: Walk = { servers: 3, steps: ESSENCE };
