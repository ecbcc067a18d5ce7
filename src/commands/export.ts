import { existsSync } from "node:fs";
import { wipe } from "../crypto/bytes.ts";
import { sha256 } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import { defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { readSecretFile } from "../ui/password.ts";
import { withClient } from "../ui/session.ts";
import { writeNewFile } from "./read.ts";

export default defineCommand({
  args: {
    all: { type: "boolean", description: "every secret" },
    to: { type: "string", hint: "FORMAT", required: true, description: "format to write", ask: "Format" },
    out: {
      type: "string",
      hint: "FILE",
      required: true,
      description: "new file, 0600 (- is stdout)",
      ask: "File to write",
    },
    fresh: { type: "boolean", description: "insist on the server's answer" },
    names: { type: "positionals", required: false, hint: "NAME", description: "names of the secrets" },
  },
  details: "The file holds the values in clear. It is opened again and compared after writing.",
  examples: [
    ["keyhold export --all --to json --out backup.json", "everything, in the native format"],
    ["keyhold export tls/key --to pem --out key.pem", "one private key"],
  ],
  run: async (args, ctx) => {
    const { formatNamed, verifyWritten } = await import("../formats/index.ts");
    const format = formatNamed(args.to);
    if (args.all === args.names.length > 0) throw new Fault("usage", "name the secrets to export, or --all of them");
    if (format.kind === "single" && args.names.length !== 1)
      throw new Fault("bad_input", `${format.name} holds one secret`, { hint: "export one name, or --to json" });
    if (args.out !== "-" && existsSync(args.out))
      throw new Fault("exists", `${JSON.stringify(args.out)} exists`, { hint: "choose another file" });
    return withClient(ctx, async (client) => {
      const names = args.all
        ? (await client.list({ prefix: null, search: null, tag: null, fresh: args.fresh })).items.map(
            (info) => info.keyId,
          )
        : args.names;
      const refs = names.map((name) => ({ name, version: null }));
      const asking =
        refs.length === 0 ? Promise.resolve([]) : client.getMany({ refs, fresh: args.fresh, purpose: "export" });
      const got = await ctx.term.step("Retrieving", asking);
      const items = got.map(({ info, value }) => ({
        name: info.name,
        type: info.type,
        value: value ?? new Uint8Array(0),
        tags: info.tags,
        createdAt: info.createdAt,
      }));
      let file: Uint8Array | undefined;
      try {
        file = format.write(items);
        if (args.out === "-") {
          verifyWritten(format, items, file);
          ctx.out.bytes(file);
          return;
        }
        writeNewFile(args.out, file);
        const again = readSecretFile(args.out, file.length + 1, "accept");
        verifyWritten(format, items, again);
        wipe(again);
        const data = {
          count: items.length,
          digest: `sha256:${sha256(file).toHex()}`,
          out: args.out,
          format: format.name,
        };
        return result(data, () => `exported ${items.length} to ${args.out} (${format.name}), read back and compared`, {
          requestId: got[0]?.requestId ?? null,
        });
      } finally {
        wipe(file);
        for (const item of items) wipe(item.value);
      }
    });
  },
});
