import { readFileSync, statSync } from "node:fs";
import type { AuditFilePage, AuditItem, AuditQuery, KeyholdClient } from "../client/api.ts";
import { type AuditFileReport, createAuditReader, verifyAuditFile } from "../client/auditreader.ts";
import { concat } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { asId, type RequestId } from "../ids.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { writeNewFile } from "../ui/outfile.ts";
import { listing, type Result, result } from "../ui/output.ts";
import { errnoOf } from "../ui/process.ts";
import { withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { PAGE_ARGS } from "./list.ts";
import { requesterText } from "./otpshown.ts";

const FILTERS = {
  name: {
    type: "positional",
    required: false,
    complete: "secret",
    description: "only this secret, one-time password or ceremony: its name, its id, or the start of the id",
  },
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

/** To whom a code went, in the log of who issues it. */
const handedText = ({ handedTo }: AuditItem): string => (handedTo ? ` (to ${requesterText(handedTo)})` : "");

export const auditList = defineCommand({
  list: true,
  args: { ...FILTERS, ...PAGE_ARGS },
  data: "{items:[{seq, at, action, status, keyId, name, requestId, session, count, custody?, handedTo?, signed, linkHex}], next}; actions are the operation names",
  details:
    "Changes carry your signature; all other events are the server's testimony. A name means all that have it. Of a " +
    "code that you issue, it is said who got it, while the grant stands or the hand-out is listed.",
  examples: [
    ["keyhold audit list", "everything, oldest first"],
    ["keyhold audit list db/prod --action secret.get", "who read one secret"],
    ["keyhold audit list door-code", "of a key of which you hand out codes: who got one"],
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
        `${item.name ?? item.keyId ?? "-"}${item.custody ? ` (${item.custody})` : ""}${handedText(item)}`,
        item.signed ? "signed" : "server",
      ]);
      const heads = ["SEQ", "AT", "ACTION", "STATUS", "SECRET", "WORD OF"];
      return listing({ items, next }, { heads, cells: rows }, { requestId });
    }),
});

const WORD =
  "Changes are proven by your signature; time, action and status, and all other events, are the server's word.";

function proven(report: AuditFileReport): string {
  const { size, signed, testimony, log } = report;
  return [
    `the export is whole and unchanged: ${size} entries of ${report.account}, written ${report.exportedAt}`,
    `head      ${report.headHex}`,
    `server    ${report.pin}`,
    `identity  ${report.identityHex}`,
    `proven    ${signed.states} signed changes (${signed.byListedDevice} also by a device of now) behind ${signed.entries} entries`,
    log
      ? `          up to entry ${log.seq} in the server's log of ${log.size} leaves, root ${log.rootHex}`
      : "          nothing of it in the server's log yet",
    `testimony ${testimony} entries`,
    WORD,
  ].join("\n");
}

/** Every server's log of this account's keys, compared; exit 10 where not all could be asked. @throws Fault integrity when they do not agree, unavailable when none answers */
async function federationViews(ctx: Context, client: KeyholdClient): Promise<Result> {
  const joined = await client.federations();
  if (joined.length === 0) {
    throw new Fault("not_found", "this profile has joined no federation", { hint: "keyhold federation join URL#PIN" });
  }
  const comparing = Promise.all(
    joined.map(async ({ name }) => ({ name, ...(await client.auditFederation({ federation: name })) })),
  );
  const federations = await ctx.term.step("Asking every server", comparing);
  const lines = federations.flatMap(({ name, servers, findings, unasked }) => [
    `${plain(name)}: ${findings.length > 0 ? "the servers do not agree" : servers.length > 0 ? "the servers agree" : "no server answers"}`,
    ...servers.map(({ index, size, headHex }) => `  ${index}  ${size} entries  ${headHex}`),
    ...[...findings, ...unasked].map((finding) => `  ✘ ${plain(finding)}`),
  ]);
  if (federations.every(({ ok }) => ok)) return result({ ok: true, federations }, () => lines.join("\n"));
  if (federations.every(({ findings }) => findings.length === 0)) {
    const why = plain(federations.flatMap(({ unasked }) => unasked)[0] ?? "unknown");
    if (federations.every(({ servers }) => servers.length === 0)) {
      throw new Fault("unavailable", "no server of a federation can be asked", {
        why,
        hint: "keyhold federation check",
      });
    }
    return result({ ok: false, federations }, () => lines.join("\n"), { exit: 10 });
  }
  ctx.out.warn(lines.join("\n"));
  throw new Fault("integrity", "the servers of a federation do not agree on what happened", {
    why: plain(federations.flatMap(({ findings }) => findings)[0] ?? "unknown"),
    hint: "ask the operators of the servers that are named",
  });
}

export const auditVerify = defineCommand({
  args: {
    file: { type: "string", hint: "FILE", description: "verify an export instead, without server and password" },
    federation: { type: "boolean", description: "compare what the servers of your federations have logged instead" },
  },
  data: "{size, headHex, verifiedFrom, ok, log}; with --federation {ok, federations:[{name, ok, servers:[{index, size, headHex}], findings, unasked}]}, exit 10 where a server could not be asked; with --file what is proven: {…, account, identityHex, pin, exportedAt, signed, testimony, promises}",
  details:
    "Checks that no entry was cut, edited or reordered, that every change in it was signed by you, and that the server's log of all accounts holds it.",
  examples: [
    ["keyhold audit verify", "verify what is new since the last time"],
    ["keyhold audit verify --file audit.jsonl", "verify an export, offline"],
    ["keyhold audit verify --federation", "hold the servers of a federation against each other"],
  ],
  run: async (args, ctx) => {
    if (args.file !== null) {
      const report = verified(readInput(args.file));
      return result(report, () => proven(report));
    }
    return withClient(ctx, async (client) => {
      if (args.federation) return federationViews(ctx, client);
      const { requestId, ...data } = await ctx.term.step("Verifying the log", client.auditVerify());
      const place = data.log
        ? `\nserver's log  leaf ${data.log.index} of ${data.log.size}, root ${data.log.rootHex}`
        : "";
      return result(
        data,
        () =>
          `the log is whole: ${data.size} entries, verified from ${data.verifiedFrom}\nhead  ${data.headHex}${place}`,
        { requestId },
      );
    });
  },
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

/** One event as a row of a table. */
const tableRow = (item: AuditItem): readonly unknown[] => {
  const { handedTo } = item;
  const to = handedTo && (handedTo.kind === "device" ? `device ${handedTo.name}` : handedTo.name);
  return [...COLUMNS.map((name) => item[name]), to ?? null];
};

function csv(items: readonly AuditItem[]): string {
  const cell = (value: unknown) => {
    const text = value === null ? "" : String(value);
    // a cell that a spreadsheet would run is made text
    const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return [[...COLUMNS, "handedTo"].join(","), ...items.map((item) => tableRow(item).map(cell).join(","))].join("\r\n");
}

/** Verifies an export; what is wrong with it may be its way here, not a server. */
function verified(bytes: Uint8Array): ReturnType<typeof verifyAuditFile> {
  try {
    return verifyAuditFile(bytes);
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== "integrity") throw error;
    const hint = "get the file again from who exported it; do not rely on this one";
    throw new Fault("integrity", error.message, { hint, ...(error.why !== undefined && { why: error.why }) });
  }
}

/** The whole log as JSON Lines that `audit verify --file` verifies; each line was verified when it came in. */
async function jsonLines(
  client: KeyholdClient,
): Promise<{ bytes: Uint8Array; entries: number; requestId: string | null }> {
  const reader = createAuditReader();
  const pages: Uint8Array[] = [];
  // one text of a very long log would be longer than a text may be
  const add = (text: string) => pages.push(new TextEncoder().encode(text));
  let requestId: string | null = null;
  for (let cursor: string | null = null; ; ) {
    const page: AuditFilePage = await client.auditExport({ cursor });
    requestId ??= page.requestId;
    for (const line of page.text.split("\n").slice(0, -1)) reader.line(line);
    add(page.text);
    if (page.next === null) break;
    cursor = page.next;
  }
  const ending = reader.ending();
  reader.line(ending);
  add(`${ending}\n`);
  return { bytes: concat(...pages), entries: reader.end().size, requestId };
}

export const auditExport = defineCommand({
  args: {
    ...FILTERS,
    to: { type: "enum", options: ["jsonl", "csv"], description: "JSON Lines with all proofs (default) or CSV" },
    out: { type: "string", hint: "FILE", description: "new file (default: stdout)" },
  },
  data: "{count, out}; without --out the export itself goes to stdout",
  details:
    "JSON Lines hold the whole log with signatures and proofs, for `audit verify --file`. CSV is for reading and takes filters.",
  examples: [
    ["keyhold audit export --out audit.jsonl", "the whole log with its proofs"],
    ["keyhold audit export --to csv --action secret.get", "a table of who read what"],
  ],
  run: async (args, ctx) => {
    const asked = query(args, { limit: null, cursor: null, purpose: "export" });
    const filtered = [args.name, args.action, args.after, args.before, args.request].some((one) => one !== null);
    if (args.to !== "csv" && filtered) {
      throw new Fault("usage", "a part of the log cannot be proven: filters are for CSV", { hint: "add --to csv" });
    }
    return withClient(ctx, async (client) => {
      const table = async () => {
        const { items, requestId } = await client.auditList(asked);
        return { bytes: new TextEncoder().encode(`${csv(items)}\r\n`), entries: items.length, requestId };
      };
      const reading = args.to === "csv" ? table() : jsonLines(client);
      const { bytes, entries, requestId } = await ctx.term.step("Reading the log", reading);
      if (args.out === null || args.out === "-") {
        ctx.out.bytes(bytes);
        return;
      }
      writeNewFile(args.out, bytes);
      return result({ count: entries, out: args.out }, () => `exported ${entries} entries`, { requestId });
    });
  },
});

/** @throws Fault not_found, bad_input, storage */
function readInput(path: string): Uint8Array {
  try {
    if (!statSync(path).isFile()) throw new Fault("bad_input", `${JSON.stringify(path)} is not a file`);
    return readFileSync(path);
  } catch (error) {
    if (error instanceof Fault) throw error;
    const code = errnoOf(error);
    throw new Fault(code === "ENOENT" ? "not_found" : "storage", `cannot read ${JSON.stringify(path)}`, {
      why: code ?? "unknown",
      ...(code === "ENOENT" && { hint: "check the path" }),
    });
  }
}
