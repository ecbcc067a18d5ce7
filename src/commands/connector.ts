import { join, resolve } from "node:path";
import type { LogLevel } from "../connector/log.ts";
import { Fault } from "../errors.ts";
import { asHashId, isHashId, type KeyringId } from "../ids.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { listing, result } from "../ui/output.ts";
import { sealProcess } from "../ui/process.ts";
import { surroundings } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { VERSION } from "../version.ts";
import { serverPlace } from "./federation.ts";

const DIR = { dir: { type: "string", hint: "DIR", description: "the connector's directory" } } as const;

const connectors = () => import("../connector/index.ts");

const directoryOf = (ctx: Context, given: string | null): string => resolve(given ?? join(ctx.dirs.data, "connector"));

const isoOf = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString());

export const connectorInit = defineCommand({
  args: {
    ...DIR,
    registry: {
      type: "list",
      hint: "URL#PIN",
      description: "the registry; repeated: further places of the same one, tried in this order",
    },
    server: {
      type: "string",
      hint: "URL#PIN",
      description: "the party's own key server",
    },
    name: { type: "string", hint: "NAME", description: "proposed name of the party (default server-INDEX)" },
    federation: { type: "string", hint: "F", description: "which one, where the own server belongs to several" },
    inviteRegistry: { type: "string", hint: "CODE", description: "for a registry that lets nobody in without one" },
    inviteServer: { type: "string", hint: "CODE", description: "the same for the own server" },
  },
  data: "{dir, name, account, keyHex, words, registry:{urls, pin, keyHex}, server:{url, pin, index}, federation:{federationId, name}, allow}",
  details:
    "Draws a secret, registers accounts at both servers with credentials that only that secret gives, and ties the " +
    "party's key to the account at the registry. No password is involved. Given again, it goes on where it was cut " +
    "short and tells the same. Then the own server's operator runs the command in `allow`, and an admin of the keyring " +
    "adds the party by its key.",
  examples: [
    [
      "keyhold connector init --registry https://registry.example.org:7443#sha256:… --server https://keys.example.org:7443#sha256:…",
      "a connector in its default directory",
    ],
  ],
  run: async (args, ctx) => {
    const asked = async (flag: string, what: string) =>
      ctx.term.text(`${what} (URL#PIN)`, { needed: flag, fix: `${flag} URL#PIN` });
    const registry = args.registry.length > 0 ? args.registry : [await asked("--registry", "Registry")];
    const server = args.server ?? (await asked("--server", "Own key server"));
    const { initConnector } = await connectors();
    const made = initConnector({
      dir: directoryOf(ctx, args.dir),
      registry: registry.map(serverPlace),
      server: serverPlace(server),
      name: args.name,
      federation: args.federation,
      inviteRegistry: args.inviteRegistry,
      inviteServer: args.inviteServer,
      around: surroundings(ctx),
    });
    const facts = await ctx.term.step("Entering both servers", made);
    return result(facts, () =>
      [
        `party      ${facts.name}   (server ${facts.server.index} of ${plain(facts.federation.name)})`,
        `key        ${facts.keyHex}`,
        `words      ${facts.words.join(" ")}`,
        `account    ${facts.account}   at ${facts.server.url}`,
        `directory  ${plain(facts.dir)}`,
        "",
        "On the machine of the own server:",
        `  ${facts.allow}`,
        "The keyring's admin, at its creation or later:",
        `  keyhold keyring create … --party ${facts.name}@${facts.server.index}=${facts.keyHex}`,
        `  keyhold keyring party add KEYRING ${facts.name}@${facts.server.index}=${facts.keyHex}`,
        "Then, here:",
        `  keyhold connector run --dir ${plain(facts.dir)}`,
      ].join("\n"),
    );
  },
});

const CONCURRENCY = 8;

/** Takes HOST:PORT apart; IPv6 in brackets. */
function addressOf(text: string): { readonly host: string; readonly port: number } {
  const match = /^(\[[0-9a-fA-F:.]+\]|[^:\s]+):(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (match?.[1] && port <= 65_535) return { host: match[1], port };
  throw new Fault("usage", "--listen takes HOST:PORT", { hint: "--listen 127.0.0.1:9464, or port 0 for a free one" });
}

/** @throws Fault usage */
function keyringOf(text: string): KeyringId {
  if (isHashId(text)) return asHashId<KeyringId>(text);
  throw new Fault("usage", "a keyring is named by its id of 64 hex digits here", {
    hint: "its admin sees it by: keyhold keyring show",
  });
}

export const connectorRun = defineCommand({
  args: {
    ...DIR,
    listen: { type: "string", hint: "HOST:PORT", description: "tell /metrics and /health here, on this machine alone" },
    keyring: {
      type: "list",
      hint: "ID",
      description: "serve this keyring alone (repeat; default: all that name the party)",
    },
    concurrency: { type: "integer", min: 1, max: 64, default: CONCURRENCY, description: "tasks at once" },
  },
  data: '`{"v":1,"ready":{"pid","keyHex","listen"?}}`, one line when it is ready',
  details:
    "Asks the registry for tasks, verifies each, brings it to the own server, and reports. What it has answered it keeps " +
    "for good: it signs one response to a request and never another. SIGTERM drains: what has begun is finished and " +
    "reported; then it exits 0. Log lines go to stderr.",
  examples: [
    ["keyhold connector run --listen 127.0.0.1:9464", "in the foreground, with figures and health"],
    [
      "keyhold connector run --keyring 8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394",
      "no keyring that somebody else makes with this party in it",
    ],
  ],
  run: async (args, ctx) => {
    const keyrings = args.keyring.map(keyringOf);
    sealProcess();
    const dir = directoryOf(ctx, args.dir);
    const listen = args.listen === null ? null : addressOf(args.listen);
    const { startConnector, createConnectorLog, connectorFacts } = await connectors();
    const level: LogLevel = ctx.flags.quiet ? "warn" : ctx.flags.verbose ? "debug" : "info";
    const log = createConnectorLog(level, (line) => void process.stderr.write(line), Date.now);
    const facts = connectorFacts(dir);
    const running = await startConnector({
      dir,
      version: VERSION,
      around: { ...surroundings(ctx), notice: (why) => log.write("warn", { event: "notice", why }) },
      log,
      concurrency: args.concurrency,
      ...(keyrings.length > 0 && { keyrings }),
      listen,
    });
    ctx.onTerminate(() => running.drain());
    const listening = running.listening === null ? {} : { listen: running.listening.url };
    const ready = { pid: process.pid, keyHex: facts.keyHex, ...listening };
    if (ctx.flags.json) ctx.out.jsonLine({ v: 1, ready });
    else
      ctx.out.lines(
        [
          `the connector of party ${facts.name} works between`,
          `  registry  ${facts.registry.urls.join(", ")}`,
          `  server    ${facts.server.url}`,
          ...(running.listening ? [`  figures   ${running.listening.url}/metrics`] : []),
          "Ctrl-C drains and stops it.",
        ].join("\n"),
      );
    log.write("info", { event: "started" });
    await running.ended;
    log.write("info", { event: "stopped" });
  },
});

export const connectorStatus = defineCommand({
  args: DIR,
  data: "{dir, name, account, keyHex, words, registry, server, federation, allow, running, counts:{open, answered, over, dead, unsent}, waits, lastContactAt, deadLetters}, the last a count",
  details: "Told from the connector's own files, without asking anybody.",
  examples: [["keyhold connector status", "what waits, and when the registry answered last"]],
  run: async (args, ctx) => {
    const dir = directoryOf(ctx, args.dir);
    const { connectorFacts, outboxState } = await connectors();
    const facts = connectorFacts(dir);
    const { counts, lastContactAtMs, waits } = outboxState(dir);
    const data = { ...facts, counts, waits, lastContactAt: isoOf(lastContactAtMs), deadLetters: counts.dead };
    return result(data, () =>
      [
        `party         ${facts.name}   ${facts.running ? "running" : "not running"}`,
        `key           ${facts.keyHex}`,
        `words         ${facts.words.join(" ")}`,
        `account       ${facts.account}`,
        `registry      ${facts.registry.urls.join(", ")}`,
        `own server    ${facts.server.url}`,
        `last contact  ${data.lastContactAt ?? "never"}`,
        `items         ${counts.open} open, ${counts.answered} answered, ${counts.over} over`,
        `unsent        ${counts.unsent}`,
        `dead letters  ${counts.dead}${counts.dead > 0 ? "   (keyhold connector dead-letters)" : ""}`,
        ...waits.map((why) => `waits         ${plain(why)}`),
      ].join("\n"),
    );
  },
});

export const connectorDeadLetters = defineCommand({
  list: true,
  args: DIR,
  data: "{items:[{itemId, requestId, task, why, at}], next}",
  examples: [["keyhold connector dead-letters", "tasks that could not be done, and why"]],
  run: async (args, ctx) => {
    const { outboxState } = await connectors();
    const items = outboxState(directoryOf(ctx, args.dir)).deadLetters.map(({ atMs, ...one }) => {
      return { ...one, at: new Date(atMs).toISOString() };
    });
    const cells = items.map((one) => [one.itemId.slice(0, 16), one.task, one.at, plain(one.why)]);
    return listing({ items, next: null }, { heads: ["ITEM", "TASK", "SINCE", "WHY"], cells });
  },
});

export const connectorReplay = defineCommand({
  args: {
    item: { type: "positional", required: false, description: "the item, or the beginning of its id" },
    ...DIR,
    all: { type: "boolean", description: "all dead letters" },
  },
  data: "{replayed}, a count",
  details: "Puts dead letters back. A connector that runs takes them at its next look, another one when it starts.",
  examples: [["keyhold connector replay --all", "try all of them again"]],
  run: async (args, ctx) => {
    if ((args.item === null) !== args.all) {
      throw new Fault("usage", "name a dead letter, or --all", { hint: "keyhold connector dead-letters" });
    }
    const { replayDeadLetters } = await connectors();
    const replayed = replayDeadLetters(directoryOf(ctx, args.dir), args.item, Date.now());
    return result({ replayed }, () => `put back: ${replayed}`);
  },
});
