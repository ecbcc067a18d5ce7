import type { Listed, SecretInfo } from "../client/api.ts";
import { Fault } from "../errors.ts";
import { defineCommand } from "../ui/command.ts";
import { listing, type Result } from "../ui/output.ts";
import { withReader } from "../ui/session.ts";
import { infoData } from "./secretargs.ts";

/** Flags of commands that list pages. */
export const PAGE_ARGS = {
  limit: { type: "integer", min: 1, max: 100_000, description: "at most so many items" },
  cursor: { type: "string", hint: "CURSOR", description: "go on after the page whose `next` this is" },
} as const;

/** One page of a list that is known whole; the cursor is the number of items before it. */
export function page<T>(
  items: readonly T[],
  limit: number | null,
  cursor: string | null,
): { items: readonly T[]; next: string | null } {
  if (cursor !== null && !/^\d{1,9}$/.test(cursor))
    throw new Fault("bad_input", "this is not a cursor", { hint: "pass the `next` of the page before" });
  const start = cursor === null ? 0 : Number(cursor);
  const end = limit === null ? items.length : start + limit;
  return { items: items.slice(start, end), next: end < items.length ? String(end) : null };
}

function shown(listed: Listed, limit: number | null, cursor: string | null): Result {
  const part = page(listed.items, limit, cursor);
  // of a long list only what is printed is made: JSON, or cells
  let items: readonly ReturnType<typeof infoData>[] | null = null;
  let cells: readonly (readonly string[])[] | null = null;
  const data = {
    get items() {
      items ??= part.items.map(infoData);
      return items;
    },
    next: part.next,
    from: listed.from,
    syncedAt: listed.syncedAt,
  };
  const rows = {
    heads: ["NAME", "TYPE", "VERSION", "TAGS", "UPDATED", "WHERE"],
    get cells() {
      cells ??= part.items.map(rowOf);
      return cells;
    },
  };
  return listing(data, rows, { requestId: listed.requestId });
}

function rowOf({ name, type, version, tags, updatedAt, queued, where, custody }: SecretInfo): readonly string[] {
  const place = [queued ? "queued" : where, ...(custody ? [custody] : [])].join(", ");
  return [name, type, String(version), tags.join(","), updatedAt.slice(0, 16), place];
}

const FILTERS = {
  tag: { type: "string", hint: "TAG", description: "only those with this tag" },
  fresh: { type: "boolean", description: "insist on the server's answer" },
  ...PAGE_ARGS,
} as const;

export const listCommand = defineCommand({
  list: true,
  args: {
    prefix: {
      type: "positional",
      required: false,
      complete: "secret",
      description: "only names that start with this",
    },
    ...FILTERS,
  },
  data: "{items:[{name, keyId, type, version, tags, createdAt, updatedAt, where, queued?, origin, custody?, publicKeyHex?}], next, from, syncedAt}",
  examples: [
    ["keyhold list", "all secrets"],
    ["keyhold list db/ --tag prod", "those below db/ with a tag"],
  ],
  run: async (args, ctx) =>
    withReader(ctx, async (client) => {
      const asking = client.list({ prefix: args.prefix, search: null, tag: args.tag, fresh: args.fresh });
      return shown(await ctx.term.step("Listing", asking), args.limit, args.cursor);
    }),
});

export const searchCommand = defineCommand({
  list: true,
  args: { text: { type: "positional", description: "looked for in names and tags", ask: "Search for" }, ...FILTERS },
  data: "as list",
  examples: [["keyhold search prod", "names and tags that hold the text"]],
  run: async (args, ctx) =>
    withReader(ctx, async (client) => {
      const asking = client.list({ prefix: null, search: args.text, tag: args.tag, fresh: args.fresh });
      return shown(await ctx.term.step("Searching", asking), args.limit, args.cursor);
    }),
});
