import type { Got } from "../client/api.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { copyToClipboard } from "../ui/clipboard.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { ENCODING_ARG, infoData, isText, valueText } from "./secretargs.ts";

function describe({ info, version }: Got): string {
  return [
    `name        ${plain(info.name)}`,
    `type        ${info.type}`,
    `version     ${version}${version === info.version ? "" : ` (newest: ${info.version})`}`,
    `key id      ${info.keyId}`,
    `tags        ${info.tags.map(plain).join(", ") || "-"}`,
    `created     ${info.createdAt}`,
    `updated     ${info.updatedAt}`,
    `where       ${info.where}`,
    `origin      ${plain(info.origin)}`,
    ...(info.publicKey === null ? [] : [`public key  ${info.publicKey.toHex()}`]),
  ].join("\n");
}

async function copied(ctx: Context, value: Uint8Array, clearAfterMs: number): Promise<string> {
  const done = await copyToClipboard({ value, clearAfterMs, env: ctx.env });
  return done.message;
}

export default defineCommand({
  args: {
    name: { type: "positional", description: "name, or a unique prefix of the key id", ask: "Name of the secret" },
    reveal: { type: "boolean", description: "print the value" },
    copy: { type: "boolean", description: "put the value on the clipboard" },
    save: { type: "boolean", description: "keep a copy in the local vault" },
    field: { type: "enum", options: ["value", "public-key"], description: "print one field alone" },
    version: { type: "integer", min: 1, max: 4_294_967_295, description: "an older version" },
    clearAfter: { type: "duration", description: "when the clipboard is cleared (default 30s; 0 never)" },
    fresh: { type: "boolean", description: "insist on the server's answer" },
    ...ENCODING_ARG,
  },
  examples: [
    ["keyhold get db/prod", "what is known of it, without the value"],
    ["keyhold get db/prod --copy", "to the clipboard, cleared after 30 s"],
    ["keyhold get db/prod --reveal --json", "the value as JSON"],
  ],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const reveal = args.reveal || args.copy || args.field === "value";
      const asking = client.get({ name: args.name, version: args.version, reveal, fresh: args.fresh, save: args.save });
      const got = await ctx.term.step("Retrieving", asking);
      const { info, value, requestId } = got;
      try {
        const notice =
          args.copy && value
            ? await copied(
                ctx,
                clipboardBytes(got, args.encoding),
                (await ctx.settings()).get("clearAfter", args.clearAfter),
              )
            : null;
        if (notice !== null) ctx.out.notice(notice);
        if (args.field === "public-key" && info.publicKey === null) {
          throw new Fault("not_found", "this secret has no public key");
        }
        const shown = value !== null && (args.reveal || args.field === "value");
        const text = shown ? valueText(info.type, value, args.encoding) : null;
        const base = { ...infoData(info), version: got.version, from: got.from, syncedAt: got.syncedAt };
        const data = text === null ? base : isText(info.type) ? { ...base, value: text } : { ...base, valueB64: value };
        const human = () =>
          args.field === "public-key"
            ? (info.publicKey?.toHex() ?? "")
            : args.field === "value"
              ? (text ?? "")
              : text === null
                ? describe(got)
                : text;
        return result(
          typeof value === "object" && "valueB64" in data ? { ...data, valueB64: value?.slice() } : data,
          human,
          { requestId, bare: shown },
        );
      } finally {
        if (!args.reveal) wipe(value ?? undefined);
      }
    }),
});

function clipboardBytes({ info, value }: Got, encoding: "base64url" | "base64" | "hex" | null): Uint8Array {
  return new TextEncoder().encode(valueText(info.type, value ?? new Uint8Array(0), encoding));
}
