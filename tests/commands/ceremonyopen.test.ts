import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { KeyholdClient } from "../../src/client/api.ts";
import type { CeremonyInfo } from "../../src/client/ceremonyapi.ts";
import { Fault } from "../../src/errors.ts";
import type { CeremonyId } from "../../src/ids.ts";
import { ceremonyOrigin } from "../../src/protocol/provenance.ts";
import { onTerminal } from "../cli/support.ts";
import { ABORTED, COURSE, dataOf, errorOf, INVITE, infoOf, SERVER, withHome } from "./ceremonyhome.ts";

setDefaultTimeout(60_000);

type Opening = Parameters<KeyholdClient["ceremonyOpen"]>[0];
const opener = (before: CeremonyInfo = ABORTED): Partial<KeyholdClient> => ({
  ceremony: async () => before,
  ceremonyOpen: async (input) => ({
    info: infoOf({ organiser: true }),
    invites: input.seats.map(({ name, account }, i) => ({
      index: i + 1,
      name,
      account,
      invite: account === null ? INVITE : null,
    })),
  }),
});

/** What the client was asked to open. */
async function opened(argv: readonly string[], before?: CeremonyInfo): Promise<Opening> {
  return withHome(opener(before), async (home) => {
    const ran = await home.run(["ceremony", "open", ...argv, "--json"]);
    expect([ran.err, ran.code]).toEqual(["", 0]);
    return home.calls.find(({ method }) => method === "ceremonyOpen")?.input as Opening;
  });
}

/** What a terminal showed, without its line breaks. */
const flat = (shown: string) => shown.replaceAll(/[\s│]+/g, " ");

const TWO = ["--participant", "ann", "--participant", "ben"];

describe.concurrent("ceremony open", () => {
  test.each(["Door", "a b", "-x", "", "x".repeat(65)])(
    "a name that no key can have is refused first: %p",
    async (name) => {
      await withHome(opener(), async (home) => {
        const ran = await home.run(["ceremony", "open", "--json", "--", name]);
        expect([ran.code, errorOf(ran).message.includes("cannot be the name"), home.calls]).toEqual([2, true, []]);
      });
    },
  );

  test("asks for all with what was said, and defaults for the rest", async () => {
    const seats = [
      { name: "ann", account: null },
      { name: "ben", account: null },
    ];
    const base = { minimum: null, commitMs: 3_600_000, revealMs: 3_600_000, again: null, replace: false };
    expect(await opened(["k", "--purpose", "p", "--output", "bytes", ...TWO])).toEqual({
      ...base,
      name: "k",
      purpose: "p",
      output: { kind: "bytes", length: 32 },
      policy: { collect: "organiser", quorum: 0 },
      seats,
    });
    const more = [
      "--digits",
      "8",
      "--collect",
      "participants",
      "--quorum",
      "2",
      "--commit-time",
      "2d",
      "--reveal-time",
      "90s",
      "--minimum",
      "2",
      "--replace",
    ];
    expect(await opened(["k", "--purpose", "p", "--output", "totp", ...TWO, "--account", "cleo", ...more])).toEqual({
      ...base,
      name: "k",
      purpose: "p",
      output: { kind: "totp", algorithm: "SHA1", digits: 8, period: 30, issuer: "", label: "k" },
      policy: { collect: "participants", quorum: 2 },
      seats: [...seats, { name: "cleo", account: "cleo" }],
      minimum: 2,
      commitMs: 172_800_000,
      revealMs: 90_000,
      replace: true,
    });
    const wallet = await opened(["w", "--purpose", "p", "--output", "multisig", "--participants", "5"]);
    expect(wallet.output).toEqual({ kind: "multisig", threshold: 3, network: "mainnet" });
    expect(wallet.policy).toEqual({ collect: "nobody", quorum: 0 });
    expect(wallet.seats.map(({ name }) => name)).toEqual([1, 2, 3, 4, 5].map((i) => `participant ${i}`));
  });

  test("--again takes over what is not said", async () => {
    const before = { ...ABORTED, output: { kind: "rsa", bits: 2_048 } as const };
    const input = await opened(["backup-key", "--again", "backup-key"], before);
    expect(input).toMatchObject({
      again: "backup-key",
      purpose: before.purpose,
      output: before.output,
      policy: before.policy,
    });
    expect(input.seats.map(({ name }) => name)).toEqual(["ann", "ben"]);
    const fewer = { ...before, seats: [...before.seats, ...before.seats.slice(0, 1)], minimum: 2 };
    const named = fewer.seats.map((seat, at) => ({ ...seat, index: at + 1, name: `seat ${at + 1}` }));
    expect((await opened(["b", "--again", "b"], { ...fewer, seats: named })).minimum).toBe(2);
    expect((await opened(["b", "--again", "b", ...TWO], { ...fewer, seats: named })).minimum).toBeNull();
    const slow = { ...before, commitMs: 172_800_000, revealMs: 90_000 };
    const stages = await opened(["b", "--again", "b"], slow);
    expect([stages.commitMs, stages.revealMs]).toEqual([172_800_000, 90_000]);
    const said = await opened(["b", "--again", "b", "--reveal-time", "2h"], slow);
    expect([said.commitMs, said.revealMs]).toEqual([172_800_000, 7_200_000]);
    expect((await opened(["b", "--again", "b", "--bits", "4096"], before)).output).toEqual({
      kind: "rsa",
      bits: 4_096,
    });
  });

  test("shows each invite with the command, or writes them to a file that none else reads", async () => {
    await withHome(opener(), async (home) => {
      const argv = [
        "ceremony",
        "open",
        "k",
        "--purpose",
        "p",
        "--output",
        "bytes",
        "--participant",
        "ann",
        "--account",
        "ben",
      ];
      const { code, out } = await home.run([...argv, "--qr"]);
      expect(code).toBe(0);
      expect(out).toContain(`For ann alone:\n  keyhold ceremony join ${INVITE}`);
      expect(out).toContain("For the account ben:\n  keyhold ceremony join --ceremony backup-key");
      expect(out).toContain("Hand each line to its person alone");
      expect(out).toContain("▀");
      const file = join(home.dir, "invites.json");
      const quiet = await home.run([...argv, "--invites-out", file, "--json"]);
      expect([quiet.code, quiet.out.includes(INVITE)]).toEqual([0, false]);
      expect(JSON.parse(readFileSync(file, "utf8")).invites[0].invite).toBe(INVITE);
      expect(statSync(file).mode & 0o777).toBe(0o600);
      const again = await home.run([...argv, "--invites-out", file, "--json"]);
      expect([again.code, home.calls.filter(({ method }) => method === "ceremonyOpen").length]).toEqual([6, 2]);
    });
    const refusing = {
      ...opener(),
      ceremonyOpen: async () => {
        throw new Fault("denied", "no");
      },
    };
    await withHome(refusing, async (home) => {
      const file = join(home.dir, "invites.json");
      const ran = await home.run([
        "ceremony",
        "open",
        "k",
        "--purpose",
        "p",
        "--output",
        "bytes",
        ...TWO,
        "--invites-out",
        file,
        "--json",
      ]);
      expect([ran.code, existsSync(file)]).toEqual([5, false]);
    });
  });

  test("asks at a terminal for what is missing, again for what cannot be, and opens once it was shown", async () => {
    await withHome(opener(), async (home) => {
      const { code, out, shown } = await onTerminal(
        "$KEYHOLD ceremony open",
        [
          { expect: "Name of the key", type: "Bad Name\r" },
          { expect: "lower-case letters", type: `${"\u007f".repeat(8)}door\r` },
          { expect: "Who takes part", type: "ann\r" },
          { expect: "at least two", type: ", ann\r" },
          { expect: "a name of its own", type: `${"\u007f".repeat(3)}ben\r` },
          { expect: "What is the key for?", type: `${"x".repeat(257)}\r` },
          { expect: "256 bytes", type: `${"\u007f".repeat(257)}the door\r` },
          { expect: "What shall become of the key?", type: "\r" },
          { expect: "Open it?", type: "y" },
        ],
        home.env,
      );
      expect([code, out.includes("For ben alone")]).toEqual([0, true]);
      const input = home.calls.find(({ method }) => method === "ceremonyOpen")?.input;
      expect(input).toMatchObject({ name: "door", purpose: "the door", output: { kind: "totp", label: "door" } });
      // all that nobody can change afterwards
      const said = shown.slice(shown.indexOf("nobody can change"));
      for (const fact of ["the door", "ann, ben", "all 2", "60 min to commit, 60 min to reveal", "to whom its"])
        expect(said).toContain(fact);
    });
  });

  test("what was asked for is not opened without a yes; what was said whole is not asked about", async () => {
    await withHome(opener(), async (home) => {
      const rest = "--purpose p --output bytes --participant ann --participant ben";
      const asked = await onTerminal(
        `$KEYHOLD ceremony open ${rest}`,
        [
          { expect: "Name of the key", type: "k\r" },
          { expect: "Open it?", type: "n" },
        ],
        home.env,
      );
      expect([asked.code, home.calls]).toEqual([130, []]);
      expect((await onTerminal(`$KEYHOLD ceremony open k ${rest}`, [], home.env)).code).toBe(0);
    });
  });

  test("of a wallet asks how many spend together, and for which network", async () => {
    await withHome(opener(), async (home) => {
      const { code, shown } = await onTerminal(
        "$KEYHOLD ceremony open wallet --purpose p --output multisig",
        [
          { expect: "Who takes part", type: "ann, ben, cleo\r" },
          { expect: "How many of the 3", type: "4\r" },
          { expect: "1 to 3", type: "\u007f3\r" },
          { expect: "network", type: "\u001b[B\r" },
          { expect: "Open it?", type: "y" },
        ],
        home.env,
      );
      expect([code, flat(shown).includes("of which 3 spend together (testnet)")]).toEqual([0, true]);
      const input = home.calls.find(({ method }) => method === "ceremonyOpen")?.input;
      expect(input).toMatchObject({ output: { kind: "multisig", threshold: 3, network: "testnet" } });
    });
  });

  test("a terminal without room for the QR codes is told of before anything is opened", async () => {
    const status = async () => ({ server: { ...SERVER, reachable: true } }) as never;
    await withHome({ ...opener(), status }, async (home) => {
      const open = (columns: number, more = "") =>
        onTerminal(
          `stty cols ${columns} </dev/tty; $KEYHOLD ceremony open k --purpose p --output bytes --participant ann --account ben --qr ${more} >/dev/tty`,
          [],
          home.env,
        );
      const narrow = await open(40);
      expect([
        narrow.code,
        flat(narrow.shown).includes("leave out --qr"),
        home.calls.map(({ method }) => method),
      ]).toEqual([2, true, ["status"]]);
      expect((await open(40, `--invites-out ${join(home.dir, "i")}`)).code).toBe(0);
      expect((await open(200)).shown).toContain("▀");
    });
  });

  test.each([
    [["k", "--output", "bytes", "--digits", "6", ...TWO], "usage"],
    [["k", "--output", "rsa", "--bits", "2049", ...TWO], "usage"],
    [["k", "--output", "bip39", "--words", "13", ...TWO], "usage"],
    [["k", "--output", "coins", ...TWO], "usage"],
    [["k", "--participants", "1"], "usage"],
    [["k", "--participant", "ann"], "usage"],
    [["k", "--participant", "ann", "--participant", "ann"], "usage"],
    [["k", "--participants", "3", ...TWO], "usage"],
    [["k", "--purpose", "p", "--output", "bytes", "--collect", "nobody", "--quorum", "1", ...TWO], "usage"],
    [["k", "--purpose", "p", ...TWO], "input_needed"],
    [["k", "--output", "bytes", ...TWO], "input_needed"],
    [["k", "--purpose", "p", "--output", "bytes"], "input_needed"],
    [[], "input_needed"],
  ])("%j exits 2 and opens nothing", async (argv, code) => {
    await withHome(opener(), async (home) => {
      const ran = await home.run(["ceremony", "open", ...argv, "--json"]);
      expect([ran.code, errorOf(ran).code, home.calls.length]).toEqual([2, code, 0]);
    });
  });
});

describe.concurrent("the other commands of a ceremony", () => {
  const [, , , stored = infoOf()] = COURSE;

  test("status: all, or one; --watch stays until the end", async () => {
    let look = 0;
    const client: Partial<KeyholdClient> = {
      ceremonies: async () => [stored, infoOf({ next: "commit" })],
      ceremony: async () => COURSE[Math.min(look++, 3)] ?? stored,
    };
    await withHome(client, async (home) => {
      const all = await home.run(["ceremony", "status", "--json"]);
      expect(dataOf(all)).toEqual({ items: [stored, expect.objectContaining({ next: "commit" })], next: null });
      const table = (await home.run(["ceremony", "status"])).out;
      expect(table).toContain("Done: the key is made");
      const one = await home.run(["ceremony", "status", "backup-key", "--watch"]);
      expect([one.code, one.out.includes("key hash")]).toEqual([0, true]);
      const [asked, ...looks] = home.calls.flatMap(({ method, input }) => (method === "ceremony" ? [input] : []));
      expect(asked).toEqual({ ceremony: "backup-key" });
      // what it looks at stays the same one, and is no use of the agent
      expect(looks).toEqual(looks.map(() => ({ ceremony: stored.ceremonyId, fresh: true, passive: true })));
      expect(looks.length).toBe(3);
      expect((await home.run(["ceremony", "status", "--watch", "--json"])).code).toBe(2);
      expect((await home.run(["ceremony", "status", "x", "--timeout", "3s", "--json"])).code).toBe(2);
    });
  });

  test("what waits for this vault is said by `ceremony status` and by `keyhold status`, to people", async () => {
    const wish = { releaseHex: "ab".repeat(32), by: "ann", approvals: 1, needed: 2, done: false, approved: false };
    const asked = { ...stored, releases: [wish] };
    const agreed = { ...stored, name: "agreed", releases: [{ ...wish, approved: true }] };
    const client: Partial<KeyholdClient> = {
      ceremonies: async () => [asked, agreed, infoOf({ name: "free", next: "join: your seat is free" })],
      status: async () => ({
        ...{ profile: "default", server: null, account: null, session: null, sync: null, auditHead: null },
        vault: { path: "/v", secrets: 0, locked: false },
      }),
    };
    const lines = [
      "backup-key: ann wants to take it out of the store (keyhold ceremony approve backup-key)",
      "free: join: your seat is free (keyhold ceremony join --ceremony free)",
    ];
    await withHome(client, async (home) => {
      const all = await home.run(["ceremony", "status"]);
      expect(all.err.trimEnd().split("\n")).toEqual(lines);
      const { code, out } = await home.run(["status"]);
      expect([code, out.split("\n").filter((line) => line.startsWith("ceremony"))]).toEqual([
        0,
        lines.map((line) => `ceremony  ${line}`),
      ]);
      const before = home.calls.length;
      expect((await home.run(["status", "--json"])).code).toBe(0);
      expect(home.calls.slice(before).map(({ method }) => method)).toEqual(["status"]);
    });
    // nor does it fail where that cannot be asked
    const unsupported = async () => {
      throw new Fault("unsupported", "no key store");
    };
    await withHome({ ...client, ceremonies: unsupported }, async (home) => {
      expect((await home.run(["status"])).code).toBe(0);
    });
  });

  test("their names complete, from a running agent alone", async () => {
    const two = [stored, stored, infoOf({ name: "door" })];
    await withHome({ ceremonies: async () => two }, async (home) => {
      expect(await home.run(["__names", "ceremony"])).toEqual({ code: 0, out: "backup-key\ndoor\n", err: "" });
    });
  });

  test("close and approve ask, and name what they do", async () => {
    const wish = { releaseHex: "9c".repeat(32), by: "ann", approvals: 1, needed: 2, done: false, approved: false };
    const client: Partial<KeyholdClient> = {
      ceremony: async () => ({ ...(COURSE[0] ?? infoOf()), releases: [wish] }),
      ceremonyClose: async () => infoOf({ status: "freeze" }),
      ceremonyApprove: async () => infoOf(),
    };
    await withHome(client, async (home) => {
      expect((await home.run(["ceremony", "close", "k", "--json"])).code).toBe(2);
      expect((await home.run(["ceremony", "approve", "k", "--json"])).code).toBe(2);
      const asked = await onTerminal("$KEYHOLD ceremony close k", [{ expect: "without ann?", type: "y" }], home.env);
      expect(asked.code).toBe(0);
      expect((await home.run(["ceremony", "close", "k", "--abort", "--yes", "--json"])).code).toBe(0);
      expect((await home.run(["ceremony", "approve", "k", "--release", "9c9c", "--yes", "--json"])).code).toBe(0);
      const none = await home.run(["ceremony", "approve", "k", "--release", "aa", "--yes", "--json"]);
      expect([none.code, errorOf(none).code]).toEqual([3, "not_found"]);
      const did = home.calls.filter(({ method }) => method !== "ceremony").map(({ input }) => input);
      expect(did).toEqual([
        { ceremony: "k", abort: false },
        { ceremony: "k", abort: true },
        { ceremony: "k", releaseHex: wish.releaseHex },
      ]);
    });
    const two = {
      ...client,
      ceremony: async () => infoOf({ releases: [wish, { ...wish, releaseHex: "9d".repeat(32) }] }),
    };
    await withHome(two, async (home) => {
      expect((await home.run(["ceremony", "approve", "k", "--yes", "--json"])).code).toBe(6);
    });
  });

  test("transcript and opening go to files, the opening to a private one with a warning", async () => {
    const client: Partial<KeyholdClient> = {
      ceremony: async () => COURSE[0] ?? stored,
      ceremonyTranscript: async () => new TextEncoder().encode("{}\n"),
      ceremonyOpening: async () => new TextEncoder().encode("secret\n"),
    };
    await withHome(client, async (home) => {
      expect((await home.run(["ceremony", "transcript", "k"])).out).toBe("{}\n");
      // one line of JSON in the one form, from which the file comes back byte by byte
      for (const argv of [[], ["--out", "-"]]) {
        const { out } = await home.run(["ceremony", "transcript", "k", ...argv, "--json"]);
        expect(out.split("\n")).toHaveLength(2);
        expect(JSON.parse(out)).toEqual({
          v: 1,
          data: { ceremonyId: stored.ceremonyId, bytes: 3, transcript: "{}\n" },
        });
      }
      const file = join(home.dir, "t");
      const { data } = JSON.parse((await home.run(["ceremony", "transcript", "k", "--out", file, "--json"])).out);
      expect(data).toEqual({ ceremonyId: stored.ceremonyId, bytes: 3, out: file });
      const out = join(home.dir, "o");
      const ran = await home.run(["ceremony", "opening", "k", "--out", out]);
      expect([ran.code, statSync(out).mode & 0o777, readFileSync(out, "utf8")]).toEqual([0, 0o600, "secret\n"]);
      expect(ran.err).toContain("breaks your commitment");
      expect(ran.out).not.toContain("secret");
      for (const argv of [["--out", "-"], []]) {
        const refused = await home.run(["ceremony", "opening", "k", ...argv, "--json"]);
        expect([refused.code, refused.out]).toEqual([2, ""]);
      }
    });
  });

  test("collect marks what the ceremony's server has seen, in the vault and in a federation; a wallet's key it has not", async () => {
    for (const [kind, seen] of [
      ["secp256k1", true],
      ["multisig", false],
    ] as const) {
      const client: Partial<KeyholdClient> = {
        ceremony: async () => stored,
        list: async () => ({ items: [], next: null }) as never,
        federations: async () => [{ name: "custody" }] as never,
        ceremonyCollect: async () => ({ name: "k", kind, value: new Uint8Array(32).fill(1), type: "secp256k1" }),
        store: async ({ name }) => ({ info: { name, publicKey: null }, requestId: null }) as never,
        importFederated: async () => ({ status: "fulfilled", keyId: "5e", requestId: "00", absent: [] }) as never,
      };
      await withHome(client, async (home) => {
        const inputOf = (wanted: string) =>
          home.calls.find(({ method }) => method === wanted)?.input as { readonly origin?: string } | undefined;
        expect((await home.run(["ceremony", "collect", "k", "--json"])).code).toBe(0);
        const origin = seen ? ceremonyOrigin(stored.ceremonyId as CeremonyId) : undefined;
        expect(inputOf("store")?.origin).toBe(origin);
        const ran = await home.run(["ceremony", "collect", "k", "--import-into", "custody"]);
        expect([ran.code, ran.out.includes("custodial for good")]).toEqual([0, seen]);
        expect(inputOf("importFederated")?.origin).toBe(seen ? "custodial" : "imported");
      });
    }
  });

  test("collect keeps the value in the vault or in a file, and never shows it", async () => {
    const value = new TextEncoder().encode("the very value");
    const client: Partial<KeyholdClient> = {
      ceremony: async () => stored,
      list: async () => ({ items: [], next: null }) as never,
      ceremonyCollect: async () => ({ name: "backup-key", kind: "bytes", value: value.slice(), type: "bytes" }),
      store: async ({ name }) =>
        ({
          info: { name, keyId: "00", type: "bytes", version: 1, tags: [], where: "local", publicKey: null },
          requestId: null,
        }) as never,
    };
    await withHome(client, async (home) => {
      const kept = await home.run(["ceremony", "collect", "k", "--store", "here", "--json"]);
      expect(dataOf(kept)).toMatchObject({ name: "here", type: "bytes", kind: "bytes" });
      const stores = home.calls.find(({ method }) => method === "store")?.input;
      expect(stores).toMatchObject({
        name: "here",
        value,
        ifVersion: 0,
        origin: ceremonyOrigin(stored.ceremonyId as CeremonyId),
      });
      const file = join(home.dir, "v");
      const put = await home.run(["ceremony", "collect", "k", "--out", file]);
      expect([put.code, readFileSync(file, "utf8"), statSync(file).mode & 0o777]).toEqual([0, "the very value", 0o600]);
      for (const { out, err } of [kept, put]) expect(out + err).not.toContain("the very value");
      for (const argv of [
        ["--out", "-"],
        ["--type", "bytes"],
        ["--out", file, "--import-into", "f"],
      ]) {
        expect((await home.run(["ceremony", "collect", "k", ...argv, "--json"])).code).toBe(2);
      }
    });
    const waiting = {
      ...client,
      ceremonyCollect: async () => {
        throw new Fault("pending", "2 of 3 agree");
      },
    };
    await withHome(waiting, async (home) => {
      expect((await home.run(["ceremony", "collect", "k", "--json"])).code).toBe(9);
    });
    const taken = { ...client, list: async () => ({ items: [{ name: "backup-key" }], next: null }) as never };
    await withHome(taken, async (home) => {
      const ran = await home.run(["ceremony", "collect", "k", "--json"]);
      expect([ran.code, home.calls.some(({ method }) => method === "ceremonyCollect")]).toEqual([6, false]);
    });
  });
});
