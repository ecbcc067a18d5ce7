import { Fault } from "../../src/errors.ts";
import { defineCommand, type Group } from "../../src/ui/command.ts";
import { NEW_PASSWORD_ARGS, VALUE_ARGS } from "../../src/ui/flags.ts";
import { runMasked } from "../../src/ui/masked.ts";
import { listing, result } from "../../src/ui/output.ts";
import { chooseNewPassword, choosePassword, needPassword, readValue } from "../../src/ui/password.ts";
import { become, childEnvironment } from "../../src/ui/run.ts";
import { start } from "../../src/ui/start.ts";

const echo = defineCommand({
  args: {
    name: { type: "positional", description: "a name", ask: "Which name" },
    other: { type: "positional", required: false, description: "another name" },
    tag: { type: "list", hint: "TAG", description: "tags" },
    type: { type: "enum", options: ["note", "bytes"], default: "note", description: "a type" },
    length: { type: "integer", min: 1, max: 10, short: "n", description: "a length" },
    after: { type: "duration", default: 30_000, description: "a duration" },
    when: { type: "time", description: "a time" },
    inFile: { type: "string", hint: "FILE", description: "a file" },
    force: { type: "boolean", short: "f", description: "a switch" },
    secretly: { type: "boolean", hidden: true, description: "hidden" },
  },
  run: async (args, { flags, rest }) => result({ args, flags, rest }, () => `name ${args.name}`),
});

const text = (value: Uint8Array) => ({ hex: value.toHex() });

/** What hostile cells hold: escapes, directions, invisible characters, separators. */
const NOTES = ["plain", "esc \u001b[2Jx", "bidi \u202e\u200bx", "tab\tline\nend\0"] as const;

const root: Group = {
  summary: "fixture",
  commands: {
    echo: { summary: "shows its arguments", load: async () => echo },
    login: {
      summary: "asks for what is missing",
      load: async () =>
        defineCommand({
          args: {
            server: { type: "string", hint: "URL", description: "the server", ask: "Which server" },
            mode: { type: "enum", options: ["open", "closed"], required: true, description: "the mode" },
          },
          run: async (args) => result(args, () => args.server),
        }),
    },
    password: {
      summary: "reads a password",
      load: async () =>
        defineCommand({ args: {}, run: async (_args, ctx) => result(text(await needPassword(ctx)), () => "read") }),
    },
    choose: {
      summary: "chooses a password",
      load: async () =>
        defineCommand({ args: {}, run: async (_args, ctx) => result(text(await choosePassword(ctx)), () => "chosen") }),
    },
    rekey: {
      summary: "takes the old password and a new one",
      load: async () =>
        defineCommand({
          args: NEW_PASSWORD_ARGS,
          run: async (args, ctx) => {
            const old = await needPassword(ctx);
            return result({ old: text(old), new: text(await chooseNewPassword(ctx, args)) }, () => "changed");
          },
        }),
    },
    value: {
      summary: "reads a value, after a password if one is given",
      load: async () =>
        defineCommand({
          args: VALUE_ARGS,
          run: async (args, ctx) => {
            if (ctx.flags.passwordStdin) await needPassword(ctx);
            return result(text(await readValue(ctx, args.inFile)), () => "read");
          },
        }),
    },
    remove: {
      summary: "asks before it acts",
      load: async () =>
        defineCommand({
          args: {},
          run: async (_args, { term }) => {
            await term.confirm("Remove everything?");
            return result({ removed: true }, () => "removed");
          },
        }),
    },
    slow: {
      summary: "works until it is stopped",
      load: async () =>
        defineCommand({
          args: {},
          run: async (_args, { term, out }) => {
            out.warn("started");
            await term.step("Working", Bun.sleep(60_000));
          },
        }),
    },
    serve: {
      summary: "drains on a signal",
      load: async () =>
        defineCommand({
          args: {},
          run: async (_args, { onTerminate, out }) => {
            const { promise, resolve } = Promise.withResolvers<string>();
            onTerminate(resolve);
            const alive = setInterval(() => {}, 1_000);
            out.warn("started");
            const signal = await promise;
            clearInterval(alive);
            return result({ signal }, () => `drained after ${signal}`);
          },
        }),
    },
    run: {
      summary: "becomes a program",
      load: async () =>
        defineCommand({
          args: {
            env: { type: "list", hint: "K=V", description: "variables" },
            mask: { type: "list", hint: "VALUE", description: "what is masked" },
            ask: { type: "boolean", description: "asks for a password first" },
          },
          rest: { hint: "COMMAND…", description: "the program", required: true },
          run: async (args, ctx) => {
            const { rest, inherited, out } = ctx;
            if (args.ask) await needPassword(ctx);
            const added = Object.fromEntries(args.env.map((pair) => pair.split("=", 2)));
            const env = childEnvironment(inherited, added);
            const values = args.mask.map((text, i) => ({ value: new TextEncoder().encode(text), label: `<${i}>` }));
            const ended =
              values.length === 0
                ? await become(rest, env)
                : await runMasked({ command: rest, env, values, onTerminate: ctx.onTerminate });
            return typeof ended === "number" ? ended : out.fail(ended.fault, ended.exit);
          },
        }),
    },
    fail: {
      summary: "fails",
      load: async () =>
        defineCommand({
          args: { how: { type: "positional", description: "how" } },
          run: async (args) => {
            if (args.how === "foreign") throw new TypeError("hunter2 is not a function");
            if (args.how === "rate") throw new Fault("rate_limited", "too many tries", { retryAfterMs: 1_500 });
            if (args.how === "input") throw new Fault("bad_input", "cannot use this", { why: "it is odd" });
            if (args.how === "control") throw new Fault("not_found", 'there is no "a\u001b[2Jb\n"');
            throw new Fault("locked", 'cannot read "db/prod": the vault is locked', {
              why: "idle for 15 minutes",
              requestId: "00112233445566778899aabbccddeeff",
            });
          },
        }),
    },
    reveal: {
      summary: "shows a value",
      load: async () =>
        defineCommand({
          args: {},
          run: async () => result({}, () => "l1\r\n\u001b[31ml2\ufeff", { bare: true }),
        }),
    },
    queued: {
      summary: "is partly done",
      load: async () =>
        defineCommand({
          args: {},
          run: async () =>
            result({ queued: true }, () => "queued", { exit: 10, requestId: "00112233445566778899aabbccddeeff" }),
        }),
    },
    lots: {
      summary: "lists rows",
      load: async () =>
        defineCommand({
          list: true,
          args: {
            count: { type: "integer", default: 3, description: "how many" },
            ask: { type: "boolean", description: "ask before" },
          },
          run: async (args, { term }) => {
            if (args.ask) await term.text("Which list", { needed: "a list", fix: "--no-ask" });
            const items = Array.from({ length: args.count }, (_, i) => ({
              name: `row ${i}`,
              note: NOTES[i % 4] ?? "",
            }));
            const cells = items.map(({ name, note }, i) => [String(i), name, note]);
            return listing({ items, next: null }, { heads: ["N", "NAME", "NOTE"], cells, name: 1 });
          },
        }),
    },
    many: {
      summary: "prints many lines",
      load: async () =>
        defineCommand({ args: {}, run: async (_args, { out }) => out.bytes("a line of text\n".repeat(200_000)) }),
    },
  },
};

await start(root, {});
