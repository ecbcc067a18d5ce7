import type { AuditItem, AuditQuery } from "../client/api.ts";
import { asId, type RequestId } from "../ids.ts";
import { defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { table } from "../ui/table.ts";
import { PAGE_ARGS } from "./list.ts";
import { writeNewFile } from "./read.ts";

const FILTERS = {
  name: { type: "positional", required: false, description: "only what was done with this secret" },
  action: { type: "string", hint: "ACTION", description: "only this operation, such as secret.get" },
  after: { type: "time", description: "only from this time on" },
  before: { type: "time", description: "only before this time" },
  request: { type: "string", hint: "ID", description: "only this request" },
} as const;

interface Filters {
  readonly name: string | null;
  readonly action: string | null;
  readonly after: number | null;
  readonly before: number | null;
  readonly request: string | null;
}

function query(args: Filters, rest: Pick<AuditQuery, "limit" | "cursor" | "purpose">): AuditQuery {
  return {
    name: args.name,
    action: args.action,
    fromMs: args.after,
    // the last millisecond that counts
    untilMs: args.before === null ? null : args.before - 1,
    requestId: args.request === null ? null : asId<RequestId>(args.request),
    ...rest,
  };
}

export const auditList = defineCommand({
  args: { ...FILTERS, ...PAGE_ARGS },
  details: "Changes carry your signature; all other events are the server's testimony.",
  examples: [
    ["keyhold audit list", "everything, oldest first"],
    ["keyhold audit list db/prod --action secret.get", "who read one secret"],
  ],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const asking = client.auditList(query(args, { limit: args.limit, cursor: args.cursor, purpose: "list" }));
      const { items, next, requestId } = await ctx.term.step("Reading the log", asking);
      const rows = items.map((item) => [
        String(item.seq),
        item.at,
        item.action,
        item.status,
        item.name ?? item.keyId ?? "-",
        item.signed ? "signed" : "server",
      ]);
      return result(
        { items, next },
        () => table(["SEQ", "AT", "ACTION", "STATUS", "SECRET", "WORD OF"], rows, ctx.out.width),
        { requestId },
      );
    }),
});

export const auditVerify = defineCommand({
  args: {},
  details: "Checks that no entry was cut, edited or reordered, and that every change in it was signed by you.",
  examples: [["keyhold audit verify", "verify what is new since the last time"]],
  run: async (_args, ctx) =>
    withClient(ctx, async (client) => {
      const { requestId, ...data } = await ctx.term.step("Verifying the log", client.auditVerify());
      return result(
        data,
        () => `the log is whole: ${data.size} entries, verified from ${data.verifiedFrom}\nhead  ${data.headHex}`,
        { requestId },
      );
    }),
});

const COLUMNS = [
  "seq",
  "at",
  "action",
  "status",
  "keyId",
  "name",
  "requestId",
  "session",
  "count",
  "signed",
  "linkHex",
] as const;

function csv(items: readonly AuditItem[]): string {
  const cell = (value: unknown) => {
    const text = value === null ? "" : String(value);
    // a cell that a spreadsheet would run is made text
    const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return [COLUMNS.join(","), ...items.map((item) => COLUMNS.map((name) => cell(item[name])).join(","))].join("\r\n");
}

export const auditExport = defineCommand({
  args: {
    ...FILTERS,
    to: { type: "enum", options: ["jsonl", "csv"], description: "JSON Lines (default) or CSV" },
    out: { type: "string", hint: "FILE", description: "new file (default: stdout)" },
  },
  examples: [["keyhold audit export --out audit.jsonl", "one JSON object a line"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const asking = client.auditList(query(args, { limit: null, cursor: null, purpose: "export" }));
      const { items, requestId } = await ctx.term.step("Reading the log", asking);
      const text = args.to === "csv" ? `${csv(items)}\r\n` : items.map((item) => `${JSON.stringify(item)}\n`).join("");
      if (args.out === null || args.out === "-") {
        ctx.out.bytes(text);
        return;
      }
      writeNewFile(args.out, new TextEncoder().encode(text));
      return result({ count: items.length, out: args.out }, () => `exported ${items.length} entries`, { requestId });
    }),
});
