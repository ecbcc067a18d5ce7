import { defineCommand } from "../ui/command.ts";
import { listing, result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { QUEUED, writtenResult } from "./secretargs.ts";

const NAME = {
  name: {
    type: "positional",
    complete: "secret",
    description: "name, or a unique prefix of the key id",
    ask: "Name of the secret",
  },
} as const;

export const renameCommand = defineCommand({
  args: {
    from: { type: "positional", complete: "secret", description: "name now", ask: "Name now" },
    to: { type: "positional", description: "new name", ask: "New name" },
  },
  data: "{name, keyId, type, version, tags, where, publicKeyHex?, queued?}",
  examples: [["keyhold rename db/prod db/old", "the versions go with it"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      return writtenResult(await ctx.term.step("Renaming", client.rename({ from: args.from, to: args.to })));
    }),
});

export const tagCommand = defineCommand({
  args: {
    ...NAME,
    add: { type: "list", hint: "TAG", description: "attach a tag (repeatable)" },
    remove: { type: "list", hint: "TAG", description: "take a tag off (repeatable)" },
  },
  data: "{name, keyId, type, version, tags, where, publicKeyHex?, queued?}",
  examples: [["keyhold tag db/prod --add live --remove test", "change the tags"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const written = await ctx.term.step(
        "Tagging",
        client.tag({ name: args.name, add: args.add, remove: args.remove }),
      );
      const { name, tags } = written.info;
      return writtenResult(written, () => `${plain(name)}  ${tags.map(plain).join(", ") || "(no tags)"}`);
    }),
});

export const removeCommand = defineCommand({
  args: { ...NAME, purge: { type: "boolean", description: "erase all versions for good" } },
  data: "{name, keyId, purged, queued?}",
  details: "A removed secret keeps its versions (`keyhold restore`) until it is purged.",
  examples: [
    ["keyhold remove db/old --yes", "without asking"],
    ["keyhold remove db/old --purge", "leave nothing but a tombstone"],
  ],
  run: async (args, ctx) => {
    await ctx.term.confirm(
      args.purge ? `Erase every version of ${plain(args.name)} for good?` : `Remove ${plain(args.name)}?`,
    );
    return withClient(ctx, async (client) => {
      const { info, requestId, queued } = await ctx.term.step(
        "Removing",
        client.remove({ name: args.name, purge: args.purge }),
      );
      const data = { name: info.name, keyId: info.keyId, purged: args.purge, ...(queued ? { queued } : {}) };
      const human = () => `${args.purge ? "purged" : "removed"} ${plain(info.name)}${queued ? `\n${QUEUED}` : ""}`;
      return result(data, human, { requestId, exit: queued ? 10 : 0 });
    });
  },
});

export const historyCommand = defineCommand({
  list: true,
  args: NAME,
  details: "Versions are kept: each change makes a new one.",
  data: "{items:[{version, updatedAt, name, status, current, custody?}], next}",
  examples: [["keyhold history db/prod", "all changes, oldest first"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const { items, requestId } = await ctx.term.step("Reading the history", client.history({ name: args.name }));
      const rows = items.map((one) => [
        String(one.version),
        one.updatedAt ?? "-",
        one.name ?? "-",
        one.status,
        [...(one.current ? ["current"] : []), ...(one.custody ? [one.custody] : [])].join(", "),
      ]);
      const heads = ["VERSION", "AT", "NAME", "STATUS", ""];
      return listing({ items, next: null }, { heads, cells: rows }, { requestId });
    }),
});

export const restoreCommand = defineCommand({
  args: {
    ...NAME,
    version: {
      type: "integer",
      min: 1,
      max: 4_294_967_295,
      required: true,
      description: "the version to make the newest again",
    },
  },
  data: "{name, keyId, type, version, tags, where, publicKeyHex?, queued?}",
  examples: [["keyhold restore db/prod --version 1", "as a new version; also brings a removed secret back"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      return writtenResult(
        await ctx.term.step("Restoring", client.restore({ name: args.name, version: args.version })),
      );
    }),
});
