import { wipe } from "../crypto/bytes.ts";
import { READ_FORMATS } from "../formats/names.ts";
import { defineCommand } from "../ui/command.ts";
import { ARCHIVE_PASSWORD_ARGS } from "../ui/flags.ts";
import { result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { table } from "../ui/table.ts";
import { plain } from "../ui/text.ts";
import { WRITE_ARGS } from "./secretargs.ts";

/** Lines about what is lost that people see; `--json` has all. */
const SHOWN = 50;

export default defineCommand({
  args: {
    file: { type: "positional", description: "file or directory to import (- is stdin)", ask: "File to import" },
    from: { type: "enum", options: READ_FORMATS, description: "format (default: what the file says itself)" },
    name: { type: "string", hint: "NAME", description: "name of the one secret in a file that holds one" },
    prefix: { type: "string", hint: "PREFIX", description: "put this before every name" },
    map: {
      type: "string",
      hint: "PAIRS",
      description: "columns of a csv table: name=COLUMN,value=COLUMN,user=COLUMN,…",
    },
    identity: {
      type: "list",
      hint: "FILE",
      description: "private key that opens an age archive: of age or of ssh (repeatable)",
    },
    ...ARCHIVE_PASSWORD_ARGS,
    dryRun: { type: "boolean", description: "show what would happen and change nothing" },
    store: WRITE_ARGS.store,
  },
  data: "{imported, skipped, lost:[…], dryRun, queued, items:[{name, type, fields, outcome}]}, the first two counts",
  details:
    "The file is read as a whole or not at all. A secret that is there with the same content is skipped, with another " +
    "one it becomes a new version, so that the same import twice changes nothing. What stands in the file and has no " +
    "place in a secret is listed as lost, and the exit code is 10. `keyhold help formats` lists the formats.",
  examples: [
    ["keyhold import bitwarden.json --dry-run", "what would be imported, and what would be lost"],
    ["keyhold import ~/.password-store --prefix old/", "a tree of pass or gopass"],
    ["keyhold import backup.age --identity key.txt", "an archive that is sealed to a key"],
    ["keyhold import key.pem --name tls/key", "one private key"],
    ["keyhold import secret.bin --from raw --name db/raw", "bytes as they are"],
  ],
  run: async (args, ctx) => {
    const { archiveKeys } = await import("./archivekeys.ts");
    const { mapOf, readSource } = await import("./importsource.ts");
    const keys = archiveKeys(ctx, args, "known", args.identity);
    const source = { path: args.file, from: args.from, name: args.name, map: mapOf(args.map) };
    const reading = readSource(ctx, source, keys);
    const read = await reading.finally(keys.end);
    try {
      return await withClient(ctx, async (client) => {
        const { factsOf } = await import("../formats/index.ts");
        const { storeItems } = await import("./importitems.ts");
        const { caution } = factsOf(read.format.name as (typeof READ_FORMATS)[number]);
        if (caution !== undefined) ctx.out.notice(`${read.format.name}: ${caution}`);
        const where = (await ctx.settings()).get("store", args.store) as "server" | "local" | "both" | null;
        const { dryRun } = args;
        const what = { items: read.items, prefix: args.prefix ?? "", dryRun, origin: read.format.name, where };
        const done = await storeItems(client, what, ctx.term);
        const lost = read.lost.map(({ what }) => what);
        const { imported, skipped, queued, items } = done;
        const data = { imported, skipped, lost, dryRun, queued, format: read.format.name, items };
        const rows = items.map((item) => [item.name, item.type, item.fields.join(", "), item.outcome]);
        const counts = `${imported}, skipped ${skipped} that ${skipped === 1 ? "is" : "are"} there already`;
        const summary = `${dryRun ? "would import" : "imported"} ${counts} (${read.format.name})`;
        const waits = queued ? ["kept for the server, which is away: keyhold sync"] : [];
        const losses = lost.slice(0, SHOWN).map((text) => `lost: ${plain(text)}`);
        const more = lost.length > SHOWN ? [`lost: ${lost.length - SHOWN} more (--json lists all)`] : [];
        const human = (width: number | null) =>
          [
            ...(dryRun && rows.length > 0 ? [table(["NAME", "TYPE", "FIELDS", "OUTCOME"], rows, width)] : []),
            ...[summary, ...waits, ...losses, ...more],
          ].join("\n");
        return result(data, human, { requestId: done.requestId, exit: lost.length > 0 || queued ? 10 : 0 });
      });
    } finally {
      for (const item of read.items) wipe(item.value);
    }
  },
});
