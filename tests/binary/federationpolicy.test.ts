import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createPublicKey, verify } from "node:crypto";
import { dataAt, type Fleet, localHome, openFleet, placeOf } from "./fleet.ts";
import { exitOf, HANG_MS, type Home, type RunOptions, SETUP_MS, spawn } from "./world.ts";

/** Shared control from the command line: three people, three server processes (docs/policies.md). */

setDefaultTimeout(SETUP_MS);

type Data = ReturnType<typeof JSON.parse>;

const ED25519_SPKI = Buffer.from("302a300506032b6570032100", "hex");
const PEOPLE = ["owner", "alice", "bob"] as const;

let fleet: Fleet;
const homes = new Map<string, Home>();
const keys: Record<string, string> = {};

const of = (name: (typeof PEOPLE)[number]): Home => {
  const home = homes.get(name);
  if (!home) throw new Error(`no ${name}`);
  return home;
};

beforeAll(async () => {
  fleet = await openFleet(3);
  const owner = await localHome(fleet.world, "owner");
  await fleet.form(owner, "custody", 2);
  await owner.ok(["federation", "join", placeOf(fleet.server(1))]);
  homes.set("owner", owner);
  for (const name of ["alice", "bob"]) homes.set(name, await fleet.join(name));
  for (const name of PEOPLE) keys[name] = (await of(name).ok(["federation", "show"])).data.approvalKeyHex;
}, SETUP_MS);
afterAll(() => fleet.close());

const TWO_OF_THREE = { threshold: 2, of: [...PEOPLE] };
const RULES = [
  { name: "making", effect: "allow", actions: ["generate", "reshare"], require: { any: ["alice", "bob"] } },
  { name: "signing", effect: "allow", actions: ["sign"], require: TWO_OF_THREE },
];
const TAKING = { name: "taking", effect: "allow", actions: ["retrieve"], require: "alice" };

/** A policy as a person writes it; the next version of the board's differs by its rules alone. */
function policyFile(file: string, rules: readonly unknown[]): string {
  const approvers = PEOPLE.map((name) => ({ name, key: keys[name] }));
  const admins = { all: ["owner", "alice"] };
  return fleet.world.file(file, JSON.stringify({ name: "board", approvers, admins, rules }));
}

const signing = (text: string) => [
  "key",
  "sign",
  "payroll",
  "--message-file",
  fleet.world.file(`message-${text}`, `pay ${text}`),
];
/** Asks for a signature that waits, and gives the request's id. */
async function asked(text: string): Promise<string> {
  const { requestId, status, signatureHex } = await dataAt(of("owner"), 9, signing(text));
  expect({ status, signatureHex }).toEqual({ status: "awaiting_approval", signatureHex: null });
  return String(requestId);
}
const approve = (name: "alice" | "bob", id: string) => of(name).ok(["approval", "approve", id, "--yes"]);
const shown = async (id: string): Promise<Data> => (await of("owner").ok(["request", "show", id])).data;
const waiting = async (name: "alice" | "bob"): Promise<string[]> =>
  (await of(name).ok(["approval", "list"])).data.items.map(({ requestId }: Data) => requestId);

async function expectSigned(text: string, signatureHex: unknown): Promise<void> {
  const { publicKeyHex } = (await of("owner").ok(["key", "show", "payroll"])).data;
  const der = Buffer.concat([ED25519_SPKI, Buffer.from(publicKeyHex, "hex")]);
  const key = createPublicKey({ key: der, format: "der", type: "spki" });
  expect(verify(null, Buffer.from(`pay ${text}`), key, Buffer.from(String(signatureHex), "hex"))).toBe(true);
}

/** `request watch` as a person starts it, once it has said how the request stands. */
async function watching(id: string) {
  const child = await spawn(of("owner").dir, ["request", "watch", id], { stdin: "closed" });
  const timer = setTimeout(() => child.kill("SIGKILL"), HANG_MS);
  let text = "";
  const decoder = new TextDecoder();
  const first = Promise.withResolvers<void>();
  const read = (async () => {
    for await (const part of child.stderr) {
      text += decoder.decode(part, { stream: true });
      if (text.includes("awaiting approval")) first.resolve();
    }
    first.resolve();
  })();
  await first.promise;
  return {
    child,
    async end() {
      const [out] = await Promise.all([child.stdout.text(), read, child.exited]);
      clearTimeout(timer);
      return { code: exitOf(child), out, err: text };
    },
  };
}

describe("a policy", () => {
  test("counts once its admins have given the same file; every server shows it", async () => {
    const file = policyFile("board-1.json", RULES);
    const first = await dataAt(of("owner"), 9, ["policy", "set", file]);
    expect(first).toMatchObject({ name: "board", version: 1, complete: false });
    // nothing may be made under it yet, and an outsider's word changes nothing
    await of("owner").fails(3, [
      "key",
      "generate",
      "early",
      "--type",
      "ed25519",
      "--control",
      "shared",
      "--policy",
      "board",
    ]);
    const set = await dataAt(of("alice"), 0, ["policy", "set", file]);
    expect(set).toMatchObject({ version: 1, complete: true, current: [1, 2, 3], behind: [] });
    for (const name of ["owner", "alice"] as const) {
      const { items } = (await of(name).ok(["policy", "show", "board"])).data;
      expect(items).toHaveLength(1);
      expect(items[0]).toMatchObject({ version: 1, hashHex: set["hashHex"], current: [1, 2, 3], behind: [] });
      expect(items[0].document).toMatchObject({ name: "board", admins: { all: ["owner", "alice"] } });
    }
    await of("owner").fails(3, ["policy", "show", "nothing"]);
    // again is the same
    expect(await dataAt(of("owner"), 0, ["policy", "set", file])).toMatchObject({ version: 1, complete: true });
  });

  test("says what it would decide", async () => {
    const file = fleet.world.file("board-1.json");
    const tried = async (...more: string[]) => (await of("bob").ok(["policy", "test", file, ...more])).data;
    expect(await tried("--approve", "alice")).toMatchObject({ decision: "wait", rule: "signing" });
    expect(await tried("--approve", "alice", "--approve", "bob")).toMatchObject({ decision: "allow" });
    expect(await tried("--requester", "alice", "--approve", "alice", "--approve", "bob")).toMatchObject({
      decision: "wait",
      missing: ["owner"],
    });
    expect(await tried("--reject", "alice", "--reject", "bob")).toMatchObject({ decision: "deny" });
    expect(await tried("--action", "retrieve", "--type", "bytes")).toMatchObject({ decision: "deny", rule: null });
  });
});

describe("a key under shared control", () => {
  test("waits for its approvers; the words are the same for both; watching goes on after Ctrl-C", async () => {
    const how = ["payroll", "--type", "ed25519", "--control", "shared", "--policy", "board"];
    const made = await dataAt(of("owner"), 9, ["key", "generate", ...how]);
    expect(made).toMatchObject({ status: "awaiting_approval", keyId: null });
    const id = String(made["requestId"]);
    expect(await waiting("alice")).toEqual([id]);
    expect(await waiting("bob")).toEqual([id]);
    const own = await shown(id);
    const theirs = (await of("alice").ok(["approval", "show", id.slice(0, 10)])).data;
    expect(theirs).toMatchObject({ requestId: id, kind: "generate", words: own.words, requesterHex: own.requesterHex });
    expect(own.words).toHaveLength(6);
    expect(own.servers.map(({ status }: Data) => status)).toEqual(Array(3).fill("awaiting_approval"));

    const interrupted = await watching(id);
    interrupted.child.kill("SIGINT");
    expect((await interrupted.end()).code).toBe(130);
    expect((await shown(id)).status).toBe("awaiting_approval");

    const watched = await watching(id);
    expect((await approve("alice", id)).data.words).toEqual(own.words);
    const { code, out, err } = await watched.end();
    expect([code, out.trim()]).toEqual([0, (await of("owner").ok(["key", "show", "payroll"])).data.keyId]);
    expect(err).toContain("✔ alice");
    expect(await waiting("bob")).toEqual([]);
    expect((await of("owner").ok(["key", "show", "payroll"])).data).toMatchObject({ control: "shared" });
  });

  test("signs once two others agree: the requester's own word does not count", async () => {
    const id = await asked("one");
    expect(await asked("one")).toBe(id);
    // nobody asks the requester, and a vote of that account finds no request
    expect((await of("owner").ok(["approval", "list"])).data.items).toEqual([]);
    await of("owner").fails(3, ["approval", "approve", id, "--yes"]);
    expect((await shown(id)).votes).toEqual([]);
    expect((await approve("alice", id)).data.status).toBe("awaiting_approval");
    expect(await asked("one")).toBe(id);
    await approve("bob", id);
    const { signatureHex, requestId } = await dataAt(of("owner"), 0, signing("one"));
    expect(requestId).toBe(id);
    await expectSigned("one", signatureHex);
    // it was one use: the same words again are another request
    expect(await asked("one")).not.toBe(id);
  });

  test("approval of one request is none of another", async () => {
    const [approved, other] = [await asked("two"), await asked("three")];
    expect(other).not.toBe(approved);
    for (const name of ["alice", "bob"] as const) await approve(name, approved);
    expect(await asked("three")).toBe(other);
    expect((await shown(other)).votes).toEqual([]);
    const led = await dataAt(of("owner"), 0, ["request", "watch", approved]);
    await expectSigned("two", led["signatureHex"]);
    expect((await dataAt(of("owner"), 0, ["request", "cancel", other, "--yes"]))["status"]).toBe("cancelled");
    expect(await waiting("alice")).not.toContain(other);
  });

  test("a rejection ends it, and the requester reads why", async () => {
    const id = await asked("four");
    const watched = await watching(id);
    // without the requester two of three are both of them: one no is enough
    const rejected = (await of("alice").ok(["approval", "reject", id, "--reason", "not this quarter"])).data;
    expect(rejected.status).toBe("rejected");
    const { code, out, err } = await watched.end();
    expect([code, out]).toEqual([5, ""]);
    expect(err).toContain("✘ alice: not this quarter");
    expect(await waiting("bob")).not.toContain(id);
    await of("bob").fails(3, ["approval", "approve", id, "--yes"]);
    expect((await shown(id)).votes).toMatchObject([{ verdict: "reject", reason: "not this quarter" }]);
    const { servers } = await shown(id);
    expect(servers.map(({ status }: Data) => status)).toEqual(Array(3).fill("rejected"));
    const failed = await of("owner").fails(5, ["request", "watch", id]);
    expect(failed).toMatchObject({ code: "denied" });
    // who asks again asks anew
    expect(await asked("four")).not.toBe(id);
  });

  test("a new version of the policy voids the votes under the one before", async () => {
    const id = await asked("five");
    await approve("alice", id);
    const file = policyFile("board-2.json", [...RULES, TAKING]);
    expect(await dataAt(of("owner"), 9, ["policy", "set", file])).toMatchObject({ version: 2, complete: false });
    // one of two admins is no quorum: the version before still counts
    expect((await of("bob").ok(["policy", "show", "board"])).data.items[0].version).toBe(1);
    expect(await dataAt(of("alice"), 0, ["policy", "set", file])).toMatchObject({ version: 2, complete: true });
    expect((await approve("bob", id)).data.status).toBe("awaiting_approval");
    expect(await asked("five")).toBe(id);
    await approve("alice", id);
    await expectSigned("five", (await dataAt(of("owner"), 0, signing("five")))["signatureHex"]);
  });

  test("a server that dies in the middle is done without", async () => {
    const id = await asked("six");
    await approve("alice", id);
    await fleet.kill(2);
    await approve("bob", id);
    await expectSigned("six", (await dataAt(of("owner"), 0, signing("six")))["signatureHex"]);
    await fleet.start(2);
    const { ok } = (await of("owner").ok(["federation", "check"])).data;
    expect(ok).toBe(true);
  });

  test("one that was down while they voted asks for their votes, and takes them later", async () => {
    await fleet.kill(1);
    const id = await asked("seven");
    for (const name of ["alice", "bob"] as const) await approve(name, id);
    await fleet.start(1);
    await fleet.kill(3);
    // server 1 has heard of no vote: with it there are too few
    expect((await of("owner").run(signing("seven"))).code).toBe(9);
    for (const name of ["alice", "bob"] as const) await approve(name, id);
    await expectSigned("seven", (await dataAt(of("owner"), 0, signing("seven")))["signatureHex"]);
    await fleet.start(3);
  });

  test("a key that is refused is none, and its name is free", async () => {
    const how = ["second", "--type", "ed25519", "--control", "shared", "--policy", "board"];
    const { requestId } = await dataAt(of("owner"), 9, ["key", "generate", ...how]);
    const reject = (name: "alice" | "bob") =>
      of(name).ok(["approval", "reject", String(requestId), "--reason", "one is enough"]);
    // one of two may still agree
    expect((await reject("alice")).data.status).toBe("awaiting_approval");
    expect((await reject("bob")).data.status).toBe("rejected");
    const refused = await of("owner").fails(5, ["request", "watch", String(requestId)]);
    expect([refused.code, refused.why?.includes("one is enough")]).toEqual(["denied", true]);
    await of("owner").fails(3, ["key", "show", "second"]);
    expect((await dataAt(of("owner"), 9, ["key", "generate", ...how]))["requestId"]).not.toBe(requestId);
  });
});

describe("a value under shared control", () => {
  const how = ["--type", "bytes", "--control", "shared", "--policy"];
  const made = async (name: string, policy: string) => {
    const { requestId } = await dataAt(of("owner"), 9, ["key", "generate", name, ...how, policy]);
    await approve("bob", String(requestId));
    const { status } = await dataAt(of("owner"), 0, ["request", "watch", String(requestId)]);
    expect(status).toBe("fulfilled");
  };

  test("is not let out unless the policy names it", async () => {
    const approvers = PEOPLE.map((name) => ({ name, key: keys[name] }));
    const strict = { name: "strict", approvers, admins: "owner", rules: RULES };
    expect(
      await dataAt(of("owner"), 0, ["policy", "set", fleet.world.file("strict.json", JSON.stringify(strict))]),
    ).toMatchObject({ complete: true });
    await made("vaulted", "strict");
    const refused = await of("owner").fails(5, ["key", "retrieve", "vaulted", "--reveal"]);
    expect(refused.code).toBe("denied");
    expect((await of("owner").ok(["key", "show", "vaulted"])).data).toMatchObject({
      control: "shared",
      shown: "self-custodial",
    });
  });

  test("is let out where it does, once it is approved, and marked for good", async () => {
    await made("seed", "board");
    const get = ["key", "retrieve", "seed", "--reveal"];
    const { requestId } = await dataAt(of("owner"), 9, get);
    expect((await dataAt(of("owner"), 9, get))["requestId"]).toBe(requestId);
    // the policy names alice alone
    await of("bob").fails(3, ["approval", "approve", String(requestId), "--yes"]);
    await dataAt(of("owner"), 9, get);
    await approve("alice", String(requestId));
    expect((await dataAt(of("owner"), 0, get))["value"]).toMatch(/^[0-9a-f]{64}$/);
    expect((await of("owner").ok(["key", "show", "seed"])).data).toMatchObject({
      control: "unilateral in fact",
      shown: "released",
    });
  });
});

/** No descriptor, and a pipe that has ended. */
const NOTHING: NonNullable<RunOptions["stdin"]>[] = ["closed", []];

describe("without a terminal", () => {
  test("nothing waits for an answer that cannot come", async () => {
    const id = await asked("eight");
    for (const stdin of NOTHING) {
      const voted = await of("alice").run(["approval", "approve", id], { stdin });
      expect([voted.code, voted.out]).toEqual([2, ""]);
      expect(voted.err).toContain("--yes");
      await of("alice").fails(2, ["approval", "approve", id], { stdin });
      await of("alice").fails(2, ["approval", "reject", id], { stdin });
      await of("owner").fails(2, ["request", "cancel", id], { stdin });
      expect((await of("owner").run(signing("eight"), { stdin })).code).toBe(9);
    }
    expect((await shown(id)).votes).toEqual([]);
    await of("alice").fails(3, ["approval", "show", "ffffffffff"]);
    await of("bob").fails(3, ["request", "show", id.slice(0, 12)]);
  });

  test("`request list` shows every request of this account with its state", async () => {
    const { items } = (await of("owner").ok(["request", "list"])).data;
    const states = new Map<string, number>();
    for (const { status } of items) states.set(status, (states.get(status) ?? 0) + 1);
    expect(states.get("awaiting_approval")).toBeGreaterThan(0);
    expect(states.get("rejected")).toBeGreaterThan(0);
    expect((await of("bob").ok(["request", "list"])).data.items).toEqual([]);
  });
});
