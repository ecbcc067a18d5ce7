import { existsSync } from "node:fs";
import { expectExit, expectThat, type Outcome, type Step, type Walk, type World } from "../ui/demo.ts";
import { password, place, text } from "./demofederation.ts";

/** Who takes part, by the world in which they do. */
const people = new WeakMap<World, readonly string[]>();
export const peopleOf = (world: World): readonly string[] => people.get(world) ?? [];

export const CODES = "door-code";

interface Invite {
  readonly name: string;
  readonly invite: string;
}

export const keeper = (world: World, ...args: string[]) => world.run("keeper", args);

/** People who each have a home and a vault of their own, and an organiser with an account. */
const homes = (names: readonly string[]): Step => ({
  title: "homes",
  shown: `keyhold init --local   (${names.join(", ")}); keyhold register …   (keeper)`,
  async run(world) {
    people.set(world, names);
    const { url, pin } = world.server;
    const at = ["--server", url, "--pin", pin, "--account", "keeper"];
    const account = async () => {
      expectExit(await keeper(world, "register", ...at, ...password(world)));
      expectExit(await keeper(world, "login", ...password(world)));
    };
    const home = async (name: string) => {
      expectExit(await world.run(name, ["init", "--local", ...password(world)]));
      expectExit(await world.run(name, ["unlock", ...password(world)]));
    };
    await Promise.all([account(), ...names.map(home)]);
    return `${names.join(", ")}: none of them has an account`;
  },
});

/** Opens a ceremony for all of them; gives its id and one invite each. */
export async function opened(
  world: World,
  name: string,
  ...more: string[]
): Promise<{ id: string; invites: Invite[] }> {
  const seats = peopleOf(world).flatMap((one) => ["--participant", one]);
  const made = expectExit(await keeper(world, "ceremony", "open", name, "--purpose", "the demo", ...seats, ...more));
  const info = made.data["info"] as { ceremonyId: string };
  return { id: info.ceremonyId, invites: made.data["invites"] as Invite[] };
}

/** Joins and stays until the end, everyone at once. */
export async function allJoin(world: World, invites: readonly Invite[], but: readonly string[] = []) {
  const functions = ["hkdf-sha256", "hkdf-sha512", "hmac-drbg", "argon2id", "hkdf-sha256"];
  return Promise.all(
    invites.map(({ name, invite }, i) => {
      const own = ["--function", functions[i % functions.length] ?? "hkdf-sha256"];
      const wait = but.includes(name) ? ["--no-wait"] : [];
      return world.run(name, ["ceremony", "join", invite, ...own, ...wait]);
    }),
  );
}

const statusOf = async (world: World, id: string): Promise<Outcome> =>
  expectExit(await keeper(world, "ceremony", "status", id));

const HOTP = ["--output", "hotp", "--issuer", "demo", "--label", "door", "--collect", "organiser"];

const REFUSED: Step = {
  title: "one of them does not open",
  shown: "keyhold ceremony open …; keyhold ceremony join …   (eve commits and goes away)",
  async run(world) {
    const { id, invites } = await opened(world, CODES, ...HOTP, "--reveal-time", "4s");
    world.file("first.id", id);
    const ends = await allJoin(world, invites, ["eve"]);
    expectThat(
      ends.every(({ exit }) => exit !== 0),
      "nobody is told that there is a key",
    );
    const { data } = await statusOf(world, id);
    const aborted = data["aborted"] as { reason: string; culprits: string[] } | null;
    expectThat(data["status"] === "aborted" && aborted?.reason === "withheld", "the run is aborted");
    expectThat(aborted?.culprits.join() === "eve", "eve alone is named");
    return "aborted: withheld by eve; no key was made without her";
  },
};

const SECOND: Step = {
  title: "a second run",
  shown: "keyhold ceremony open door-code --again …; keyhold ceremony join …   (everyone)",
  async run(world) {
    const { readFileSync } = await import("node:fs");
    const again = readFileSync(world.file("first.id"), "utf8");
    const { id, invites } = await opened(world, CODES, ...HOTP, "--again", again);
    world.file("second.id", id);
    for (const end of await allJoin(world, invites)) expectExit(end);
    const { data } = await statusOf(world, id);
    const result = data["result"] as { custody: string; keyHashHex: string } | null;
    expectThat(data["status"] === "stored" && result?.custody === "custodial", "stored, and marked custodial");
    return `stored, custodial; hash of the key ${result?.keyHashHex.slice(0, 32)}…`;
  },
};

async function secondRun(world: World): Promise<string> {
  const { readFileSync } = await import("node:fs");
  return readFileSync(world.file("second.id"), "utf8");
}

const VERIFY: Step = {
  title: "verify without a server",
  shown: "keyhold ceremony transcript door-code --out t.ceremony; keyhold ceremony verify t.ceremony --opening …",
  async run(world) {
    const id = await secondRun(world);
    const file = world.file("t.ceremony");
    expectExit(await world.run("ann", ["ceremony", "transcript", id, "--out", file]));
    const openings = await Promise.all(
      peopleOf(world).map(async (name) => {
        const out = world.file(`${name}.opening`);
        expectExit(await world.run(name, ["ceremony", "opening", id, "--out", out]));
        return ["--opening", out];
      }),
    );
    await world.server.kill();
    const seen = expectExit(await world.run("ann", ["ceremony", "verify", file, ...openings.flat()]));
    expectThat(seen.data["recomputed"] === true, "the openings give the same key");
    const { readFileSync } = await import("node:fs");
    const bytes = readFileSync(file, "utf8");
    const changed = world.file("changed.ceremony", bytes.replace('"index":2', '"index":3'));
    const refused = expectExit(await world.run("ann", ["ceremony", "verify", changed]), 8);
    await world.server.start();
    return `order, signatures, commitments, the key from everyone's openings\none digit changed: ${text(refused, "message")}`;
  },
};

/** Codes that Debian's oathtool makes of an otpauth:// URI; null where it is not installed. */
export async function oathtool(uri: string, ...args: string[]): Promise<readonly string[] | null> {
  if (!existsSync("/usr/bin/oathtool")) return null;
  const secret = new URL(uri).searchParams.get("secret") ?? "";
  const child = Bun.spawn(["/usr/bin/oathtool", ...args, "--base32", "-"], {
    stdin: new TextEncoder().encode(secret),
    stdout: "pipe",
    stderr: "ignore",
  });
  const [codes] = await Promise.all([child.stdout.text(), child.exited]);
  return codes.trim().split("\n");
}

const COLLECT: Step = {
  title: "collect the one-time password",
  shown: "keyhold ceremony collect door-code; oathtool --hotp …",
  async run(world) {
    expectExit(await keeper(world, "ceremony", "collect", await secondRun(world), "--store", CODES));
    const got = expectExit(await keeper(world, "get", CODES, "--reveal"));
    const uri = String(got.data["value"]);
    world.file("uri", uri);
    const codes = await oathtool(uri, "--hotp", "--counter", "0");
    if (codes === null) return "in the organiser's vault   (oathtool is not installed here: nothing to compare with)";
    return `in the organiser's vault; oathtool makes ${codes[0]} of it`;
  },
};

const DISTRIBUTION: Step = {
  title: "a distribution server of its own",
  shown: "keyhold otp issue door-code --at URL#PIN …; keyhold otp receive door-code.parcel",
  async run(world) {
    const [, other] = world.servers;
    if (!other) throw new RangeError("there are two servers");
    const parcel = world.file("door-code.parcel");
    expectExit(await keeper(world, "otp", "issue", CODES, "--at", place(other), "--out", parcel, "--yes"));
    const person = async (name: string) => {
      const at = ["--server", other.url, "--pin", other.pin, "--account", name];
      expectExit(await world.run(name, ["register", ...at, ...password(world)]));
      expectExit(await world.run(name, ["login", ...password(world)]));
    };
    await Promise.all(["issuer", "ria", "rob"].map(person));
    expectExit(await world.run("issuer", ["otp", "receive", parcel]));
    expectExit(await world.run("issuer", ["otp", "issue", CODES, "--to", "ria", "--to", "rob"]));
    const refused = await keeper(world, "otp", "verify", CODES, "--in-file", world.file("none", "000000"));
    expectThat(refused.exit !== 0, "where it came from there are no more codes");
    return `from ${world.server.url} to ${other.url}, sealed from enclave to enclave`;
  },
};

const HANDED: Step = {
  title: "two ask at once",
  shown: "keyhold otp request door-code   (ria and rob)",
  async run(world) {
    const ask = (name: string) => world.run(name, ["otp", "request", CODES]);
    const [ria, rob] = await Promise.all([ask("ria"), ask("rob")]);
    const codes = [text(expectExit(ria), "value"), text(expectExit(rob), "value")];
    expectThat(codes[0] !== codes[1], "each has a code of its own");
    const entries = expectExit(await world.run("issuer", ["otp", "entries"])).data["items"];
    const [{ counter }] = entries as [{ counter: number }];
    const uri = await Bun.file(world.file("uri")).text();
    const expected = await oathtool(uri, "--hotp", "--counter", String(counter - 2), "--window", "1");
    const same = expected === null || codes.toSorted().join() === expected.toSorted().join();
    expectThat(same, "they are the codes that oathtool makes");
    world.file("code", codes[0]);
    const by = expected === null ? "   (oathtool is not installed here: not compared)" : "   and so says oathtool";
    return codes.map((code, i) => `${["ria", "rob"][i]}  ${code}${by}`).join("\n");
  },
};

const USED: Step = {
  title: "a code is good once",
  shown: "keyhold otp verify door-code   (twice)",
  async run(world) {
    const verify = () => world.run("issuer", ["otp", "verify", CODES, "--in-file", world.file("code")]);
    const first = expectExit(await verify());
    expectThat(text(first, "verdict") === "accepted", "the first time it is accepted");
    const second = await verify();
    expectThat(second.exit !== 0 && /used/.test(second.stdout + second.stderr), "the second time it is used");
    return "accepted, then refused: used";
  },
};

/** From the homes to a code that is used up. */
export const stepsFor = (names: readonly string[]): readonly Step[] => [
  homes(names),
  REFUSED,
  SECOND,
  VERIFY,
  COLLECT,
  DISTRIBUTION,
  HANDED,
  USED,
];

/** Participants at one server, and a distribution server: the essence. */
export const CEREMONY: Walk = { servers: 2, steps: stepsFor(["ann", "ben", "eve"]) };
