import { CONTROLS, CUSTODIES, FEDERATED_TYPES } from "../protocol/federation/kinds.ts";
import { expectExit, expectThat, type Outcome, type Step, type Walk, type World } from "../ui/demo.ts";
import { checked, ESSENCE, message, owner, password, place, signed, text } from "./demofederation.ts";
import { hasEnded } from "./federated.ts";

const APPROVERS = ["alice", "bob"] as const;

async function approvalKey(world: World, home: string): Promise<string> {
  return text(expectExit(await world.run(home, ["federation", "show"])), "approvalKeyHex");
}

/** Goes on with a request once Alice has agreed; a request that did not wait is over already. */
async function approved(world: World, asked: Outcome): Promise<Outcome> {
  if (asked.exit !== 9) return expectExit(asked);
  const id = text(asked, "requestId");
  expectExit(await world.run("alice", ["approval", "approve", id, "--yes"]));
  return expectExit(await owner(world, "request", "watch", id));
}

const policy = (keys: Readonly<Record<string, string>>) => ({
  name: "board",
  approvers: Object.entries(keys).map(([name, key]) => ({ name, key })),
  admins: "owner",
  rules: [
    {
      name: "one-of-two",
      effect: "allow",
      actions: ["generate", "sign", "release", "retrieve", "reshare"],
      require: { any: [...APPROVERS] },
    },
  ],
});

const SHARED_CONTROL: Step = {
  title: "approvers",
  shown: "keyhold federation join URL#PIN   (two more people); keyhold policy set board.json",
  async run(world) {
    for (const name of APPROVERS) {
      expectExit(await world.run(name, ["init", "--local", "--no-kit", ...password(world)]));
      expectExit(await world.run(name, ["unlock", ...password(world)]));
      expectExit(await world.run(name, ["federation", "join", place(world.server)]));
    }
    const keys = {
      owner: await approvalKey(world, "owner"),
      alice: await approvalKey(world, "alice"),
      bob: await approvalKey(world, "bob"),
    };
    const file = world.file("board.json", JSON.stringify(policy(keys)));
    const set = expectExit(await owner(world, "policy", "set", file));
    return `policy board, version ${text(set, "version")}: one of ${APPROVERS.join(" and ")} must agree`;
  },
};

const SIGNS = new Set(["ed25519", "schnorr", "secp256k1", "p256"]);

/** One cell of the matrix: made, and used. */
async function cell(world: World, type: string, custody: string, control: string): Promise<string> {
  const name = `${type}/${custody}/${control}`;
  const how = ["--type", type, "--custody", custody, "--control", control];
  const extra = control === "shared" ? ["--policy", "board"] : [];
  await approved(world, await owner(world, "key", "generate", name, ...how, ...extra));
  if (SIGNS.has(type)) {
    const made = await approved(world, await owner(world, "key", "sign", name, ...message(world)));
    return `${name.padEnd(32)} ${await checked(world, name, made)}`;
  }
  if (type === "ristretto255") return `${name.padEnd(32)} made`;
  const asked = await owner(world, "key", "retrieve", name, "--reveal");
  if (asked.exit === 9) {
    expectExit(await world.run("alice", ["approval", "approve", text(asked, "requestId"), "--yes"]));
  }
  const got = asked.exit === 9 ? await owner(world, "key", "retrieve", name, "--reveal") : asked;
  expectThat(/^[0-9a-f]{64}$/.test(text(expectExit(got), "value")), "32 bytes come back");
  return `${name.padEnd(32)} retrieved`;
}

const MATRIX: readonly Step[] = CONTROLS.flatMap((control) =>
  CUSTODIES.map((custody) => ({
    title: `${custody}, ${control}`,
    shown: `keyhold key generate … --custody ${custody} --control ${control}   (every type)`,
    async run(world: World) {
      const lines: string[] = [];
      for (const type of FEDERATED_TYPES) lines.push(await cell(world, type, custody, control));
      return lines.join("\n");
    },
  })),
);

/** Delays that let a kill fall into each round of a generation. */
const KILL_AFTER_MS = [60, 120, 200, 300, 450] as const;

const KILLED: Step = {
  title: "kill -9 in every round",
  shown: "keyhold key generate … & kill -9 …; keyhold serve; keyhold request watch",
  async run(world) {
    const [, , third] = world.servers;
    const lines: string[] = [];
    for (const [i, ms] of KILL_AFTER_MS.entries()) {
      const name = `killed-${i}`;
      const making = owner(world, "key", "generate", name, "--type", "ed25519", "--custody", "delegated");
      await Bun.sleep(ms);
      await third?.kill();
      const made = await making;
      await third?.start();
      const list = expectExit(await owner(world, "request", "list"));
      const open = (list.data["items"] as { requestId: string; status: string; name: string | null }[]).find(
        (one) => one.name === name && !hasEnded(one.status),
      );
      if (open) expectExit(await owner(world, "request", "watch", open.requestId));
      else if (made.exit !== 0) {
        expectExit(await owner(world, "key", "generate", name, "--type", "ed25519", "--custody", "delegated"));
      }
      lines.push(`after ${ms} ms: exit ${made.exit}${open ? ", finished later" : ""}; ${await signed(world, name)}`);
    }
    return lines.join("\n");
  },
};

const GROWN: Step = {
  title: "from 2 of 3 to 3 of 5",
  shown: "keyhold federation create …   (two more servers); keyhold key reshare treasury --threshold 3",
  async run(world) {
    await world.addServer();
    await world.addServer();
    const servers = world.servers.flatMap((one) => ["--server", place(one)]);
    const create = () => owner(world, "federation", "create", "--name", "custody", "--threshold", "3", ...servers);
    const id = text(expectExit(await create(), 9), "federationId");
    for (const [i, { dir }] of world.servers.entries()) {
      const accept = ["server", "federation", "accept", id, "--dir", dir, "--yes"];
      expectExit(await world.run(`operator${i + 1}`, accept));
    }
    expectExit(await create());
    expectExit(await owner(world, "key", "reshare", "treasury", "--threshold", "3"));
    const shown = expectExit(await owner(world, "key", "show", "treasury"));
    expectThat((shown.data["holders"] as number[]).length === 5, "five servers hold a share");
    return `the same public key, now any ${text(shown, "threshold")} of five: ${await signed(world, "treasury")}`;
  },
};

const REPAIRED: Step = {
  title: "one is left out, and repaired",
  shown: "keyhold key generate late …   (a server is down); keyhold serve; keyhold key repair late",
  async run(world) {
    const [first, second, , , fifth] = world.servers;
    await fifth?.kill();
    const how = ["late", "--type", "ed25519", "--custody", "delegated"];
    const made = expectExit(await owner(world, "key", "generate", ...how), 10);
    await fifth?.start();
    expectExit(await owner(world, "key", "repair", "late"));
    // what was left out must do its part now
    await first?.kill();
    await second?.kill();
    const proof = await signed(world, "late");
    await Promise.all([first?.start(), second?.start()]);
    return `left out: ${String(made.data["absent"])} [exit 10]; repaired; two others stopped, it signs: ${proof}`;
  },
};

/** The essence, and what takes longer: approvals, every kind of key, kills, growth and repair. */
export const FEDERATION_FULL: Walk = {
  servers: 3,
  steps: [...ESSENCE, SHARED_CONTROL, ...MATRIX, KILLED, GROWN, REPAIRED],
};
