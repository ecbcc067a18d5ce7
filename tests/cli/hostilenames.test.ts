import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { agentSocket } from "../../src/client/agent.ts";
import type { KeyholdClient } from "../../src/client/api.ts";
import { type Profile, writeProfile } from "../../src/client/profile.ts";
import { root } from "../../src/commands/index.ts";
import { Fault } from "../../src/errors.ts";
import { flagName, isFlag, isRequired } from "../../src/ui/args.ts";
import { allCommands } from "../../src/ui/help.ts";
import { type FakeAgent, fakeAgent } from "../support/fakeagent.ts";
import { type Ran, run } from "./support.ts";

setDefaultTimeout(240_000);

/** A name with all that could steer a terminal or begin a line of its own. */
const HOSTILE = [
  "x\u001b[2J\u001b]0;title\u0007",
  "\nMARK ok\r\tMARK",
  "\u202e\u2066\u200b\u200d\u00ad\ufeff\u009b31m\u2028\u{e0041}\u3164\u034f",
].join("|");
const UNSAFE = /[\p{Cf}\p{Zl}\p{Zp}\u0000-\u0008\u000b-\u001f\u007f-\u009f\u115f\u1160\u3164\uffa0]|\u034f/u;

/** What these print is a value, a file or a script, byte for byte; or they run until they are stopped. */
const BARE = ["read", "inject", "run", "audit export", "git-credential", "man", "completion"];
const LASTING = ["serve", "demo", "ssh-agent"];
/** Those of which a list, a table or a line with names is known to come. */
const RENDERING = [
  "list",
  "search",
  "get",
  "history",
  "rename",
  "tag",
  "remove",
  "restore",
  "generate",
  "store",
  "status",
  "account device list",
  "audit list",
];

// what has a fixed form is checked where it comes in: ids, times, types, hashes, codes
const keyId = "0011223344556677";
const at = "2026-01-01T00:00:00.000Z";
const requestId = "00112233445566778899aabbccddeeff";
const info = {
  name: HOSTILE,
  keyId,
  type: "note",
  version: 1,
  tags: [HOSTILE, HOSTILE],
  createdAt: at,
  updatedAt: at,
  where: "both",
  origin: HOSTILE,
  publicKey: null,
  expiresAt: at,
  user: HOSTILE,
  urls: [HOSTILE],
};
const fields = [{ name: HOSTILE, kind: "text", value: HOSTILE }];
const written = { info, requestId, queued: false };
const answers: Readonly<Record<string, unknown>> = {
  generate: written,
  store: written,
  restore: written,
  rename: written,
  tag: written,
  remove: written,
  fileFinish: written,
  get: { info, version: 1, value: null, fields: null, shown: fields, requestId, from: "vault", syncedAt: at },
  list: { items: [info, info], requestId, from: "vault", syncedAt: at },
  history: {
    items: [{ version: 1, status: "live", updatedAt: at, name: HOSTILE, current: true }],
    requestId,
  },
  sessions: {
    items: [{ sessionId: keyId, createdAt: at, lastUsedAt: at, expiresAt: at, current: true }],
    requestId,
  },
  devices: { items: [{ deviceId: keyId, name: HOSTILE, addedAt: at, current: false }] },
  linkDevice: { code: "keyhold-link-x", expiresAt: at, requestId },
  sync: { revision: 1, changed: 1, requestId },
  closeSession: { closed: 1, requestId },
  otp: { name: HOSTILE, code: "123456", expiresAt: at, periodS: 30, requestId, queued: false },
  report: { items: [{ name: HOSTILE, keyId, issue: "weak", detail: HOSTILE }], checked: 1, requestId },
  importItems: { imported: 1, skipped: 0, items: [{ name: HOSTILE, outcome: "new" }], requestId },
  auditList: {
    items: [
      {
        seq: 1,
        at,
        action: "secret.get",
        status: "ok",
        keyId: null,
        name: HOSTILE,
        requestId,
        session: null,
        count: 1,
        signed: true,
        linkHex: keyId,
      },
    ],
    next: null,
    requestId,
  },
  auditVerify: {
    size: 1,
    headHex: keyId,
    verifiedFrom: 0,
    ok: true,
    log: { size: 1, rootHex: keyId, index: 0 },
    requestId,
  },
  status: {
    profile: "default",
    server: { url: "https://host:1", pin: "sha256:x", reachable: true },
    account: { name: HOSTILE, userId: keyId },
    session: { id: keyId, expiresAt: at, valid: true },
    vault: { path: HOSTILE, secrets: 1, locked: false },
    sync: { revision: 1, syncedAt: at, pending: false, rewrapping: false },
    auditHead: { seq: 1, linkHex: keyId },
  },
};

let home: string;
let agent: FakeAgent;
beforeAll(async () => {
  home = mkdtempSync(join(tmpdir(), "keyhold-hostile-"));
  chmodSync(home, 0o700);
  for (const part of ["run", "config"]) mkdirSync(join(home, part), { mode: 0o700 });
  const profile: Profile = {
    v: 1,
    name: "default",
    server: null,
    account: null,
    userId: null,
    deviceToken: null,
    loggedOut: false,
    kdf: "default",
    vault: "default.vault",
  };
  await writeProfile(join(home, "config", "profiles"), profile);
  writeFileSync(join(home, "file"), "content");
  const methods = Object.fromEntries(Object.entries(answers).map(([name, answer]) => [name, async () => answer]));
  const others = async () => {
    throw new Fault("not_found", `there is no "${HOSTILE}"`, { why: HOSTILE, hint: HOSTILE, culprits: [HOSTILE] });
  };
  const client = new Proxy(methods, {
    get: (target, name) => (typeof name === "string" && name !== "then" ? (target[name] ?? others) : undefined),
  });
  agent = await fakeAgent(client as Partial<KeyholdClient>, {
    socket: agentSocket(join(home, "run"), "default"),
    home,
    takeNotices: () => [HOSTILE],
  });
});
afterAll(async () => {
  await agent.close();
  rmSync(home, { recursive: true, force: true });
});

/** A command line with a hostile word for each word and each flag that must be there. */
async function lines(): Promise<readonly { readonly name: string; readonly argv: readonly string[] }[]> {
  return (await allCommands(root)).map(({ path, command }) => {
    const argv: string[] = [...path];
    for (const [key, arg] of Object.entries(command.args)) {
      if (arg.hidden === true) continue;
      const needed = isRequired(arg);
      const text = key === "file" ? join(home, "file") : HOSTILE;
      if (!isFlag(arg)) argv.push(text);
      else if (needed) {
        const value = arg.type === "enum" ? (arg.options[0] ?? "") : arg.type === "integer" ? "1" : text;
        argv.push(`--${flagName(key)}=${value}`);
      }
    }
    if (command.rest !== undefined) argv.push("--", HOSTILE);
    return { name: path.join(" "), argv };
  });
}

test("the name alone, for xargs -0, is as it is", async () => {
  const ran = await run(["list", "-0"], { env: { KEYHOLD_HOME: home } });
  expect(ran.out).toBe(`${HOSTILE}\0${HOSTILE}\0`);
});

test("whatever names say: no command lets them steer the terminal or begin a line", async () => {
  const all = (await lines()).filter(({ name }) => !LASTING.includes(name) && !name.startsWith("server "));
  const ended = new Map<string, Ran>();
  const queue = all.filter(({ name }) => !["lock", "agent stop", "logout"].includes(name));
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) {
      const rest = item.argv.indexOf("--");
      const flags = ["--yes", "--color", "always"];
      const argv =
        rest === -1 ? [...item.argv, ...flags] : [...item.argv.slice(0, rest), ...flags, ...item.argv.slice(rest)];
      const env = { KEYHOLD_HOME: home, XDG_DATA_HOME: home, HOME: home };
      ended.set(item.name, await run(argv, { env, stdin: new TextEncoder().encode("value") }));
    }
  };
  await Promise.all([worker(), worker()]);
  const wrong: string[] = [];
  for (const [name, { out, err }] of ended) {
    const own = /\u001b\[(?:0|1|2|22|31|32|33|36|39)m/g;
    const shown = (BARE.includes(name) ? err : out + err).replace(own, "");
    const unsafe = UNSAFE.exec(shown);
    if (unsafe)
      wrong.push(`${name}: ${JSON.stringify(shown.slice(Math.max(0, unsafe.index - 40), unsafe.index + 40))}`);
    if (/^\t?MARK/m.test(shown)) wrong.push(`${name}: a name begins a line`);
  }
  expect(wrong).toEqual([]);
  // and it was not for want of anything to show
  for (const name of RENDERING) {
    const { code, out } = ended.get(name) ?? { code: null, out: "" };
    expect([name, code, out.includes("\\x1b[2J") || out.includes("\\nMARK")]).toEqual([name, 0, true]);
  }
});
