import { basename } from "node:path";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { readSecretFile } from "../ui/password.ts";
import { withClient } from "../ui/session.ts";
import { table } from "../ui/table.ts";
import { WRITE_ARGS } from "./secretargs.ts";

const LIMIT = 8 * 1_024 * 1_024 + 1;

export default defineCommand({
  args: {
    file: { type: "positional", description: "file to import", ask: "File to import" },
    from: { type: "string", hint: "FORMAT", description: "format of the file (default: what the file says itself)" },
    name: {
      type: "string",
      hint: "NAME",
      description: "name of the one secret in a raw, hex, base64, len8, jwk or pem file",
    },
    prefix: { type: "string", hint: "PREFIX", description: "put this before every name" },
    dryRun: { type: "boolean", description: "show what would happen and change nothing" },
    store: WRITE_ARGS.store,
  },
  examples: [
    ["keyhold import backup.json --dry-run", "what would be imported"],
    ["keyhold import key.pem --name tls/key", "one private key"],
    ["keyhold import secret.bin --from raw --name db/raw", "bytes as they are"],
  ],
  run: async (args, ctx) => {
    const { formatNamed, sniffFormat } = await import("../formats/index.ts");
    const wanted = args.from === null ? null : formatNamed(args.from);
    const bytes = readSecretFile(args.file, LIMIT, "accept");
    if (bytes.length >= LIMIT) throw new Fault("too_large", "a file to import has at most 8 MiB");
    const format = wanted ?? sniffFormat(bytes);
    if (!format) {
      throw new Fault("bad_input", "cannot tell the file's format", {
        why: "nothing in it names one",
        hint: "--from raw, hex, base64 or len8",
      });
    }
    const single = format.kind === "single";
    const name = single ? (args.name ?? basename(args.file).replace(/\.[A-Za-z0-9]{1,8}$/, "")) : null;
    const read = format.read(bytes, { name });
    wipe(bytes);
    try {
      return await withClient(ctx, async (client) => {
        const where = (await ctx.settings()).get("store", args.store) as "server" | "local" | "both" | null;
        const importing = client.importItems({
          items: read.items,
          prefix: args.prefix ?? "",
          dryRun: args.dryRun,
          origin: format.name,
          where,
        });
        const done = await ctx.term.step("Importing", importing);
        const lost = read.lost.map(({ what }) => what);
        const data = { imported: done.imported, skipped: done.skipped, lost, dryRun: args.dryRun, items: done.items };
        const rows = done.items.map((item) => [item.name, item.outcome]);
        const summary = `${args.dryRun ? "would import" : "imported"} ${done.imported}, skipped ${done.skipped}`;
        const losses = lost.map((what) => `lost: ${what}`);
        const human = () =>
          [...(args.dryRun ? [table(["NAME", "OUTCOME"], rows, ctx.out.width)] : []), summary, ...losses].join("\n");
        return result(data, human, { requestId: done.requestId, exit: lost.length > 0 ? 10 : 0 });
      });
    } finally {
      for (const item of read.items) wipe(item.value);
    }
  },
});
