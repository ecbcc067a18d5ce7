import { defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { table } from "../ui/table.ts";
import { plain } from "../ui/text.ts";
import { writtenData, writtenLine } from "./secretargs.ts";

const NAME = {
  name: { type: "positional", description: "name, or a unique prefix of the key id", ask: "Name of the secret" },
} as const;

export const renameCommand = defineCommand({
  args: {
    from: { type: "positional", description: "name now", ask: "Name now" },
    to: { type: "positional", description: "new name", ask: "New name" },
  },
  examples: [["keyhold rename db/prod db/old", "the versions go with it"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const { info, requestId } = await ctx.term.step("Renaming", client.rename({ from: args.from, to: args.to }));
      return result(writtenData(info), () => writtenLine(info), { requestId });
    }),
});

export const tagCommand = defineCommand({
  args: {
    ...NAME,
    add: { type: "list", hint: "TAG", description: "attach a tag (repeatable)" },
    remove: { type: "list", hint: "TAG", description: "take a tag off (repeatable)" },
  },
  examples: [["keyhold tag db/prod --add live --remove test", "change the tags"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const { info, requestId } = await ctx.term.step(
        "Tagging",
        client.tag({ name: args.name, add: args.add, remove: args.remove }),
      );
      return result(writtenData(info), () => `${plain(info.name)}  ${info.tags.map(plain).join(", ") || "(no tags)"}`, {
        requestId,
      });
    }),
});

export const removeCommand = defineCommand({
  args: { ...NAME, purge: { type: "boolean", description: "erase all versions for good" } },
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
      const { info, requestId } = await ctx.term.step(
        "Removing",
        client.remove({ name: args.name, purge: args.purge }),
      );
      const data = { name: info.name, keyId: info.keyId, purged: args.purge };
      return result(data, () => `${args.purge ? "purged" : "removed"} ${plain(info.name)}`, { requestId });
    });
  },
});

export const historyCommand = defineCommand({
  args: NAME,
  examples: [["keyhold history db/prod", "all changes, oldest first"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const { items, requestId } = await ctx.term.step("Reading the history", client.history({ name: args.name }));
      const rows = items.map((one) => [
        String(one.version),
        one.updatedAt ?? "-",
        one.name ?? "-",
        one.status,
        one.current ? "current" : "",
      ]);
      return result({ items, next: null }, () => table(["VERSION", "AT", "NAME", "STATUS", ""], rows, ctx.out.width), {
        requestId,
      });
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
  examples: [["keyhold restore db/prod --version 1", "as a new version; also brings a removed secret back"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const { info, requestId } = await ctx.term.step(
        "Restoring",
        client.restore({ name: args.name, version: args.version }),
      );
      return result(writtenData(info), () => writtenLine(info), { requestId });
    }),
});
