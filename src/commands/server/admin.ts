import { availableParallelism } from "node:os";
import { resolve } from "node:path";
import { Fault } from "../../errors.ts";
import type { ControlHandlers } from "../../server/control.ts";
import { demandDatabaseFile } from "../../server/database.ts";
import { initialised } from "../../server/directory.ts";
import { openKeyServer } from "../../server/keyserver.ts";
import { silentLog } from "../../server/log.ts";
import { type Context, defineCommand } from "../../ui/command.ts";
import { listing, result } from "../../ui/output.ts";
import { selfCommand } from "../../ui/process.ts";
import { plain } from "../../ui/text.ts";
import { VERSION } from "../../version.ts";
import { type ControlInput, type ControlName, type ControlOutput, callControl } from "../../wire/control.ts";

/** The flag that every `server` command takes. */
export const DIR = { dir: { type: "string", hint: "DIR", description: "the server's directory" } } as const;

/** The server directory that flag, environment or files name. */
export async function directoryOf(ctx: Context, given: string | null): Promise<string> {
  return resolve((await ctx.settings()).get("dir", given) ?? ctx.dirs.server);
}

/** Opens the directory in this process, for the time of one piece of work. */
async function alone<T>(ctx: Context, dir: string, work: (handlers: ControlHandlers) => Promise<T>): Promise<T> {
  const settings = await ctx.settings();
  const server = await openKeyServer({
    dir,
    database: settings.get("database", null),
    registration: settings.get("registration", null) ?? "invite",
    version: VERSION,
    log: silentLog,
    opaqueWorkers: Math.min(1, availableParallelism()),
    enclaveCommand: selfCommand("__enclave"),
    alone: true,
  });
  try {
    return await work(server.administration({ url: () => "(not running)", requests: () => 0 }));
  } finally {
    await server.close();
  }
}

/** The server directory, which must be one. @throws Fault not_found */
export async function demandServer(ctx: Context, given: string | null): Promise<string> {
  const dir = await directoryOf(ctx, given);
  if (initialised(dir)) return dir;
  throw new Fault("not_found", `there is no server in ${JSON.stringify(dir)}`, {
    hint: "keyhold serve --dir DIR, or keyhold server init --dir DIR",
  });
}

/** What the running server answers; null where none runs on the directory. */
export async function askRunning<N extends ControlName>(
  dir: string,
  name: N,
  input: ControlInput<N>,
): Promise<ControlOutput<N> | null> {
  try {
    return await callControl(dir, name, input);
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== "unreachable") throw error;
    return null;
  }
}

/** Asks the running server; without one, takes the directory's lock and does it here. */
export async function administer<N extends ControlName>(
  ctx: Context,
  given: string | null,
  name: N,
  input: ControlInput<N>,
): Promise<ControlOutput<N>> {
  const dir = await demandServer(ctx, given);
  const answer = await askRunning(dir, name, input);
  if (answer !== null) return answer;
  demandDatabaseFile(dir, (await ctx.settings()).get("database", null));
  return alone(ctx, dir, (handlers) => handlers[name](input));
}

export const serverInit = defineCommand({
  args: DIR,
  data: "{dir, pin, created}",
  examples: [["keyhold server init --dir /srv/keyhold", "make keys and database without running"]],
  run: async (args, ctx) => {
    const dir = await directoryOf(ctx, args.dir);
    const fresh = !initialised(dir);
    const { pin } = await alone(ctx, dir, (handlers) => handlers.status({}));
    return result(
      { dir, pin, created: fresh },
      () => `${fresh ? "made" : "is there already:"} ${plain(dir)}\npin  ${pin}`,
    );
  },
});

export const serverStatus = defineCommand({
  args: DIR,
  data: "{pid, version, url, pin, startedAt, registration, engine, incarnation, accounts, disabled, sessions, invites, requests, ceremonyKey:{number, fingerprintHex, words}|null}",
  examples: [["keyhold server status", "figures of the server"]],
  run: async (args, ctx) => {
    const status = await administer(ctx, args.dir, "status", {});
    const { ceremonyKey: key } = status;
    const data = {
      ...status,
      startedAt: new Date(status.startedAtMs).toISOString(),
      startedAtMs: undefined,
      ceremonyKey: key && { number: key.number, fingerprintHex: key.fingerprint.toHex(), words: key.words },
    };
    return result(data, () =>
      [
        `url           ${status.url}`,
        `pin           ${status.pin}`,
        `version       ${status.version}   (${status.engine})`,
        `registration  ${status.registration}`,
        `accounts      ${status.accounts}   (${status.disabled} disabled)`,
        `sessions      ${status.sessions}`,
        `invites       ${status.invites}`,
        `requests      ${status.requests}`,
        ...(key ? [`ceremonies    ${key.words}   (words of key ${key.number})`] : []),
      ].join("\n"),
    );
  },
});

/** Wrong places that an error names at most. */
const SHOWN = 50;

export const serverCheck = defineCommand({
  args: DIR,
  data: "{ok, checks, items:[{name, ok, detail}]}; exit 8 if something is wrong",
  details:
    "Verifies the database, every account's signed state, its secrets, its log, its second factor and sealed rows, its " +
    "ceremonies and stored keys; what the enclave has sealed is opened by it. What could not be asked is said.",
  examples: [["keyhold server check", "exit 8 if anything is wrong"]],
  run: async (args, ctx) => {
    const found = await ctx.term.step("Checking", administer(ctx, args.dir, "check", {}));
    if (!found.ok) {
      const wrong = found.items.filter((item) => !item.ok).map((item) => `${item.name}: ${item.detail ?? "wrong"}`);
      const more = wrong.length > SHOWN ? `; and ${wrong.length - SHOWN} more` : "";
      throw new Fault("integrity", "the server's data was altered", {
        why: `${wrong.slice(0, SHOWN).join("; ")}${more}`,
        hint: "restore a backup; do not go on with this data",
      });
    }
    const notes = found.items.flatMap(({ name, detail }) => (detail === null ? [] : [`${name}: ${detail}`]));
    return result(found, () => [`all of ${found.checks} checks hold`, ...notes].join("\n"));
  },
});

const ROTATE = {
  tls: { type: "boolean", description: "the TLS certificate; used from the next start on" },
  sealing: { type: "boolean", description: "the key that seals sessions and names; ends all sessions" },
  auditKey: { type: "boolean", description: "the key that signs the server-wide log" },
  opaque: { type: "boolean", description: "the OPAQUE set-up: opens a window in which both are in use" },
  finish: { type: "boolean", description: "with --opaque: closes the window" },
  ceremony: { type: "boolean", description: "the key for ceremonies: new ones use the next one" },
} as const;

/** What the flags of `rotate` replace. */
const ROTATED = [
  ["tls", "tls"],
  ["sealing", "sealing"],
  ["auditKey", "audit-key"],
  ["opaque", "opaque"],
  ["ceremony", "ceremony"],
] as const;

export const serverRotate = defineCommand({
  args: { ...DIR, ...ROTATE },
  data: "{key, restart, remaining}; remaining counts accounts that have not moved to the new OPAQUE set-up, or keys for ceremonies that are kept",
  details:
    "Replaces one key. After --opaque each account moves to the new set-up at its next login; --finish then forgets " +
    "the old one: accounts that have not logged in come back by their recovery kit alone. After --ceremony open " +
    "ceremonies end with the key that they began with; it is deleted after them.",
  examples: [
    ["keyhold server rotate --sealing", "all sessions end; everybody logs in again"],
    ["keyhold server rotate --opaque --finish", "close the window that --opaque opened"],
    ["keyhold server rotate --ceremony", "a new key to which contributions to ceremonies are sealed"],
  ],
  run: async (args, ctx) => {
    const { finish } = args;
    const wanted = ROTATED.filter(([flag]) => args[flag]).map(([, name]) => name);
    const [named] = wanted;
    if (named === undefined || wanted.length > 1 || (finish && !args.opaque)) {
      const flags = "--tls, --sealing, --audit-key, --opaque, --ceremony";
      throw new Fault("usage", `name one of ${flags} (--finish goes with --opaque)`, {
        hint: "keyhold help server rotate",
      });
    }
    const key = finish ? "opaque-finish" : named;
    const { engine } = await administer(ctx, args.dir, "status", {});
    if (engine !== "sqlite" && key !== "tls" && key !== "ceremony") {
      // for some seconds another process would go on under the key before: what it seals and signs is refused
      await ctx.term.confirm("Are all other processes on this database stopped? They need the new key files");
    }
    const done = await ctx.term.step("Rotating", administer(ctx, args.dir, "rotate", { key, force: ctx.flags.yes }));
    const said: Record<typeof key, string> = {
      tls: "the certificate is made anew at the next start of the server",
      sealing: "everything is sealed under a new key; all sessions have ended",
      "audit-key": "the server-wide log is signed by a new key",
      opaque: `the window is open: ${done.remaining} accounts move to the new set-up at their next login`,
      ceremony: `new ceremonies use a new key; earlier keys that are kept, while their overlap lasts or a ceremony needs them: ${done.remaining}`,
      "opaque-finish": `the window is closed; ${done.remaining} accounts need their recovery kit`,
    };
    return result(done, () => said[key]);
  },
});

export const inviteCreate = defineCommand({
  args: { ...DIR, expires: { type: "duration", description: "how long it is valid (default 7d)" } },
  data: "{code, expiresAt}",
  examples: [["keyhold server invite create", "a code for one registration, shown once"]],
  run: async (args, ctx) => {
    const made = await administer(ctx, args.dir, "invite.create", { expiresMs: args.expires });
    const expiresAt = new Date(made.expiresAtMs).toISOString();
    return result({ code: made.code, expiresAt }, () => `${made.code}   (until ${expiresAt}; for one registration)`);
  },
});

export const inviteList = defineCommand({
  list: true,
  args: DIR,
  data: "{items:[{hint, createdAt, expiresAt, state}], next}",
  examples: [["keyhold server invite list", "open, used and expired codes"]],
  run: async (args, ctx) => {
    const { items } = await administer(ctx, args.dir, "invite.list", {});
    const shown = items.map((one) => ({
      hint: one.hint,
      createdAt: new Date(one.createdAtMs).toISOString(),
      expiresAt: new Date(one.expiresAtMs).toISOString(),
      state: one.state,
    }));
    const rows = shown.map((one) => [`${one.hint}-…`, one.state, one.createdAt, one.expiresAt]);
    return listing({ items: shown, next: null }, { heads: ["CODE", "STATE", "MADE", "EXPIRES"], cells: rows });
  },
});

export const inviteRevoke = defineCommand({
  args: { code: { type: "positional", description: "the code, or its first four characters", ask: "Code" }, ...DIR },
  data: "{revoked}, a count",
  examples: [["keyhold server invite revoke 4F7K", "make a code void"]],
  run: async (args, ctx) => {
    const done = await administer(ctx, args.dir, "invite.revoke", { code: args.code });
    return result(done, () => "revoked");
  },
});

export const userList = defineCommand({
  list: true,
  args: DIR,
  data: "{items:[{account, userId, createdAt, disabled, sessions, devices}], next}",
  examples: [["keyhold server user list", "the accounts"]],
  run: async (args, ctx) => {
    const items: ControlOutput<"user.list">["items"][number][] = [];
    for (let after: ControlInput<"user.list">["after"] = null; ; ) {
      const page: ControlOutput<"user.list"> = await administer(ctx, args.dir, "user.list", { after });
      items.push(...page.items);
      if (page.next === null) break;
      after = page.next;
    }
    const shown = items.map((one) => ({
      account: one.account,
      userId: one.userId,
      createdAt: new Date(one.createdAtMs).toISOString(),
      disabled: one.disabled,
      sessions: one.sessions,
      devices: one.devices,
    }));
    const rows = shown.map((one) => [
      one.account,
      one.disabled ? "disabled" : "",
      String(one.sessions),
      String(one.devices),
      one.createdAt,
    ]);
    const heads = ["ACCOUNT", "", "SESSIONS", "DEVICES", "SINCE"];
    return listing({ items: shown, next: null }, { heads, cells: rows });
  },
});

const ACCOUNT = {
  account: { type: "positional", description: "name of the account", ask: "Account" },
  ...DIR,
} as const;

export const userDisable = defineCommand({
  args: ACCOUNT,
  data: "{account, userId, disabled}",
  examples: [["keyhold server user disable eve", "close the account's sessions and refuse its logins"]],
  run: async (args, ctx) => {
    const done = await administer(ctx, args.dir, "user.disable", { account: args.account });
    return result({ ...done, disabled: true }, () => `disabled ${plain(args.account)}`);
  },
});

export const userEnable = defineCommand({
  args: ACCOUNT,
  data: "{account, userId, disabled}",
  examples: [["keyhold server user enable eve", "let the account log in again"]],
  run: async (args, ctx) => {
    const done = await administer(ctx, args.dir, "user.enable", { account: args.account });
    return result({ ...done, disabled: false }, () => `enabled ${plain(args.account)}`);
  },
});

export const userRemove = defineCommand({
  args: ACCOUNT,
  data: "{account, userId, removed}",
  examples: [["keyhold server user remove eve --yes", "erase the account and all of its secrets"]],
  run: async (args, ctx) => {
    await ctx.term.confirm(`Erase the account ${plain(args.account)} with all its secrets?`);
    const done = await administer(ctx, args.dir, "user.remove", { account: args.account });
    return result({ ...done, removed: true }, () => `removed ${plain(args.account)}`);
  },
});

export const userFactorReset = defineCommand({
  args: ACCOUNT,
  data: "{account, userId, reset}",
  details:
    "For an owner who has lost authenticator and recovery codes: make sure who asks. The password still protects the account; the reset stands in its log.",
  examples: [["keyhold server user factor-reset ada --yes", "let ada log in by the password alone"]],
  run: async (args, ctx) => {
    await ctx.term.confirm(`Take the second factor off the account ${plain(args.account)}?`);
    const done = await administer(ctx, args.dir, "user.factor-reset", { account: args.account });
    return result({ ...done, reset: true }, () => `${plain(args.account)} has no second factor any more`);
  },
});
