import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { defineCommand } from "../ui/command.ts";
import { OUT_FILE_ARGS, outFile, putFile } from "../ui/outfile.ts";
import { listing, result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { decodeText, plain } from "../ui/text.ts";
import { abortFault, CEREMONY_DATA, ceremonyLines, ceremonyRows, isOver, waitingLines } from "./ceremonyshown.ts";
import { goingOn, waitForEnd } from "./ceremonywait.ts";

/** The ceremony that a command is about. */
export const CEREMONY = {
  type: "positional",
  complete: "ceremony",
  description: "its name, its id, or the start of the id",
  ask: "Ceremony (keyhold ceremony status)",
} as const;

export const ceremonyStatus = defineCommand({
  list: true,
  args: {
    ceremony: {
      type: "positional",
      required: false,
      complete: "ceremony",
      description: "its name, its id, or the start of the id",
    },
    watch: { type: "boolean", description: "stay until it is over, and show who comes" },
    timeout: { type: "duration", description: "with --watch: at most so long, then exit 11" },
  },
  data: `{items:[${CEREMONY_DATA}], next}; of one ceremony that object alone`,
  details:
    "All ceremonies that this vault knows, and those that wait for its account; or one, with everyone in it. It changes nothing: `keyhold ceremony join` does what is yours to do.",
  examples: [
    ["keyhold ceremony status", "all of them, and what is yours to do"],
    ["keyhold ceremony status backup-key --watch", "who has come, until it is over"],
  ],
  run: async (args, ctx) => {
    const { ceremony } = args;
    if (ceremony === null && args.watch)
      throw new Fault("usage", "--watch takes a ceremony", { hint: "keyhold ceremony status NAME --watch" });
    if (args.timeout !== null && !args.watch) throw new Fault("usage", "--timeout goes with --watch");
    return goingOn(
      ctx,
      () => (args.watch ? `keyhold ceremony status ${plain(ceremony ?? "")} --watch` : null),
      (signal) =>
        withClient(ctx, async (client) => {
          if (ceremony === null) {
            const items = await ctx.term.step("Asking", client.ceremonies());
            if (!ctx.flags.json) for (const line of waitingLines(items)) ctx.out.notice(line);
            return listing({ items, next: null }, ceremonyRows(items, Date.now()));
          }
          const goOn = `keyhold ceremony status ${plain(ceremony)} --watch`;
          const first = await client.ceremony({ ceremony });
          const again = { ceremony: first.ceremonyId, fresh: true, passive: true };
          const look = () => client.ceremony(again);
          const info =
            args.watch && !isOver(first)
              ? await waitForEnd(ctx, first, { timeoutMs: args.timeout, goOn, look, signal })
              : first;
          return result(info, () => ceremonyLines(info, Date.now()));
        }),
    );
  },
});

export const ceremonyClose = defineCommand({
  args: { ceremony: CEREMONY, abort: { type: "boolean", description: "end it without a key, whoever has committed" } },
  data: CEREMONY_DATA,
  details:
    "Its organiser ends the time to join early: who has committed by now makes the key, where they are as many as it needs. With --abort there is no key.",
  examples: [
    ["keyhold ceremony close backup-key --yes", "those who are here are enough"],
    ["keyhold ceremony close backup-key --abort --yes", "give it up"],
  ],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const before = await client.ceremony({ ceremony: args.ceremony });
      const missing = before.seats.filter(({ state }) => state === "waiting").map(({ name }) => plain(name));
      const without =
        missing.length === 0 ? "" : ` without ${missing.slice(0, 8).join(", ")}${missing.length > 8 ? " …" : ""}`;
      await ctx.term.confirm(
        args.abort
          ? `End ${plain(before.name)} for good, without a key?`
          : `Let nobody join ${plain(before.name)} any more, and go on${without}?`,
      );
      const info = await client.ceremonyClose({ ceremony: args.ceremony, abort: args.abort });
      if (info.status === "aborted" && !args.abort) throw abortFault(info);
      return result(info, () => ceremonyLines(info, Date.now()));
    }),
});

export const ceremonyTranscript = defineCommand({
  args: { ceremony: CEREMONY, ...OUT_FILE_ARGS },
  data: "{ceremonyId, bytes, out}; without --out {ceremonyId, bytes, transcript}: the file's text",
  details:
    "One signed, self-contained file in JSON Lines, verified before it is written. It holds nothing secret: keep it, and hand it to whom you like.",
  examples: [["keyhold ceremony transcript backup-key --out backup-key.ceremony", "for keyhold ceremony verify"]],
  run: async (args, ctx) => {
    const file = outFile(args);
    return withClient(ctx, async (client) => {
      const { ceremonyId } = await client.ceremony({ ceremony: args.ceremony });
      const bytes = await ctx.term.step("Verifying", client.ceremonyTranscript({ ceremony: args.ceremony }));
      if (file === null) {
        if (ctx.flags.json) return result({ ceremonyId, bytes: bytes.length, transcript: decodeText(bytes) }, () => "");
        ctx.out.bytes(bytes);
        return undefined;
      }
      putFile(file, bytes);
      const out = plain(file.path);
      return result(
        { ceremonyId, bytes: bytes.length, out: file.path },
        () => `verified, and written to ${out}\nTo verify it anywhere: keyhold ceremony verify ${out}`,
      );
    });
  },
});

export const ceremonyOpening = defineCommand({
  args: {
    ceremony: CEREMONY,
    out: { type: "string", hint: "FILE", ask: "New file for the opening", description: "a new file, 0600" },
  },
  data: "{ceremonyId, out}",
  details:
    "What this vault put into the key, for `keyhold ceremony verify --opening`. With the openings of all participants anyone computes the key: this is as secret as the key.",
  examples: [["keyhold ceremony opening backup-key --out ann.opening", "for an audit in which all take part"]],
  run: async (args, ctx) => {
    const file = outFile({ out: args.out === "-" ? "" : args.out, mode: null, force: false });
    if (file === null) throw new Fault("usage", "--out takes the name of a file");
    return withClient(ctx, async (client) => {
      const { ceremonyId, status, name } = await client.ceremony({ ceremony: args.ceremony });
      const bytes = await client.ceremonyOpening({ ceremony: args.ceremony });
      try {
        putFile(file, bytes);
      } finally {
        wipe(bytes);
      }
      if (status !== "stored")
        ctx.out.warn(`${plain(name)} is not over: who has your opening before its end breaks your commitment`);
      ctx.out.warn("who has the openings of all participants has the key: delete the file after use");
      return result({ ceremonyId, out: file.path }, () => `the opening is in ${plain(file.path)}`);
    });
  },
});

export const ceremonyApprove = defineCommand({
  args: {
    ceremony: CEREMONY,
    release: {
      type: "string",
      hint: "HEX",
      description: "which wish, or the start of it (default: the only open one)",
    },
  },
  data: CEREMONY_DATA,
  details:
    "Your word, signed with the key by which you took part, that the one who wishes it may take the value out of the store.",
  examples: [["keyhold ceremony approve backup-key", "shows who wishes it, and asks"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const info = await client.ceremony({ ceremony: args.ceremony });
      const open = info.releases.filter(
        ({ done, releaseHex }) => !done && releaseHex.startsWith(args.release?.toLowerCase() ?? ""),
      );
      const waiting = args.release === null ? open.filter(({ approved }) => !approved) : open;
      const [one, another] = waiting;
      if (!one) {
        throw new Fault("not_found", `nobody wishes to take ${plain(info.name)} out of the store`, {
          hint: "a wish begins with: keyhold ceremony collect",
        });
      }
      if (another) {
        throw new Fault("ambiguous", "there is more than one wish", {
          hint: `name one with --release: ${waiting.map(({ releaseHex, by }) => `${releaseHex.slice(0, 16)} of ${plain(by)}`).join(", ")}`,
        });
      }
      await ctx.term.confirm(`Agree that ${plain(one.by)} takes ${plain(info.name)} out of the server's store?`);
      const after = await client.ceremonyApprove({ ceremony: args.ceremony, releaseHex: one.releaseHex });
      return result(after, () => ceremonyLines(after, Date.now()));
    }),
});
