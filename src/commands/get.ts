import type { Got, KeyholdClient } from "../client/api.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { Field } from "../protocol/content.ts";
import type { Values } from "../ui/args.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { type Result, result } from "../ui/output.ts";
import { withReader } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { CUSTODIAL, ENCODING_ARG, infoData, isText, valueText } from "./secretargs.ts";

const ARGS = {
  name: {
    type: "positional",
    complete: "secret",
    description: "name, or a unique prefix of the key id",
    ask: "Name of the secret",
  },
  reveal: { type: "boolean", description: "print the value; hidden fields too with --json or --field" },
  copy: { type: "boolean", description: "put the value, or the field, on the clipboard" },
  save: { type: "boolean", description: "keep a copy in the local vault" },
  field: { type: "string", hint: "FIELD", description: "one field alone: value, public-key, user, url, notes, …" },
  version: { type: "integer", min: 1, max: 4_294_967_295, description: "an older version" },
  clearAfter: { type: "duration", description: "when the clipboard is cleared (default 30s; 0 never)" },
  fresh: { type: "boolean", description: "insist on the server's answer" },
  ...ENCODING_ARG,
} as const;
type GetArgs = Values<typeof ARGS>;

export default defineCommand({
  args: ARGS,
  data: "{name, keyId, type, version, tags, createdAt, updatedAt, expiresAt, where, origin, custody?, user, urls, publicKeyHex?, size?, fields:[{name, kind, value}], from, syncedAt}, hidden fields with value null; with --reveal all of them, and value or valueB64; with --field {…, field:{name, kind, value}}",
  details: `Without --reveal hidden fields and one-time passwords are named and not shown. --field shows the one that it names; the field otp, which makes all codes, only together with --reveal: for a code there is keyhold otp code NAME.

The value of a file in several parts is read with keyhold read NAME --out FILE.`,
  examples: [
    ["keyhold get db/prod", "what is known of it, without the value"],
    ["keyhold get db/prod --copy", "to the clipboard, cleared after 30 s"],
    ["keyhold get web/shop --copy --field user", "a field to the clipboard"],
    ["keyhold get db/prod --reveal --json", "the value as JSON"],
  ],
  run: async (args, ctx) => withReader(ctx, (client) => show(ctx, client, args)),
});

async function show(ctx: Context, client: KeyholdClient, args: GetArgs): Promise<Result> {
  const ofMeta = args.field === "public-key";
  const reveal = args.reveal || ((args.copy || args.field !== null) && !ofMeta);
  const got = await ctx.term.step("Retrieving", retrieve(client, args, reveal));
  const { info, value, requestId } = got;
  try {
    const one = args.field === null ? null : fieldOf(got, args.field, args);
    if (args.copy) {
      const bytes = new TextEncoder().encode(
        one?.value ?? valueText(info.type, value ?? new Uint8Array(0), args.encoding),
      );
      const clearAfterMs = (await ctx.settings()).get("clearAfter", args.clearAfter);
      const { copyToClipboard } = await import("../ui/clipboard.ts");
      try {
        ctx.out.notice((await copyToClipboard({ value: bytes, clearAfterMs, env: ctx.env })).message);
      } finally {
        wipe(bytes);
      }
    }
    const base = { ...infoData(info), version: got.version, from: got.from, syncedAt: got.syncedAt };
    const size = got.size === undefined ? {} : { size: got.size };
    const fields = (args.reveal ? got.fields : got.shown) ?? [];
    if (one !== null && (args.reveal || !args.copy)) {
      const asJson = args.field === "value" ? valueData(got, args.encoding) : { field: one };
      return result({ ...base, ...size, ...asJson }, () => one.value, { requestId, bare: !ofMeta });
    }
    if (!args.reveal || value === null) {
      return result({ ...base, ...size, fields }, () => describe(got), { requestId });
    }
    if (value.length === 0 && fields.length > 0) {
      return result({ ...base, ...valueData(got, args.encoding), fields }, () => revealed(got), { requestId });
    }
    const text = valueText(info.type, value, args.encoding);
    return result({ ...base, ...valueData(got, args.encoding), fields }, () => text, { requestId, bare: true });
  } finally {
    wipe(value ?? undefined);
  }
}

/** A file in several parts has no value to be handed over here, but fields like any other secret. */
async function retrieve(client: KeyholdClient, args: GetArgs, reveal: boolean): Promise<Got> {
  const { name, version, fresh, save } = args;
  try {
    return await client.get({ name, version, reveal, fresh, save });
  } catch (error) {
    const ofField = args.field !== null && args.field !== "value";
    if (!(error instanceof Fault) || error.code !== "too_large" || !ofField) throw error;
    const { handle, fields } = await client.fileOpen({ name, version, fresh, purpose: "get" });
    await client.fileAbort({ handle });
    return { ...(await client.get({ name, version, reveal: false, fresh, save })), fields };
  }
}

/** The value under the name that its type has in JSON. The caller's bytes are wiped before the JSON is made. */
function valueData({ info, value }: Got, encoding: GetArgs["encoding"]): { value: string } | { valueB64: Uint8Array } {
  const bytes = value ?? new Uint8Array(0);
  return isText(info.type) ? { value: valueText(info.type, bytes, encoding) } : { valueB64: bytes.slice() };
}

type Shown = Omit<Field, "kind"> & { readonly kind: Field["kind"] | "value" };

/** One field by its name. @throws Fault not_found, denied for the key of one-time passwords */
function fieldOf({ info, value, fields }: Got, name: string, args: GetArgs): Shown {
  if (name === "value") {
    return { name, kind: "value", value: valueText(info.type, value ?? new Uint8Array(0), args.encoding) };
  }
  if (name === "public-key") {
    if (info.publicKey === null) throw new Fault("not_found", "this secret has no public key");
    return { name, kind: "text", value: info.publicKey.toHex() };
  }
  const found = fields?.find((field) => field.name === name.normalize("NFC"));
  if (!found) {
    const names = [...new Set(["value", ...(fields ?? []).map((field) => field.name)])];
    throw new Fault("not_found", `this secret has no field ${JSON.stringify(name)}`, {
      hint: `it has ${names.map(plain).join(", ")}`,
    });
  }
  if (found.kind === "otp" && !args.reveal) {
    throw new Fault("denied", "this field makes every code", {
      hint: "keyhold otp code NAME   (the key itself: --reveal --field otp)",
    });
  }
  return found;
}

function describe(got: Got): string {
  const { info, version } = got;
  const head: (readonly [string, string])[] = [
    ["name", info.name],
    ["type", info.type],
    ["version", `${version}${version === info.version ? "" : ` (newest: ${info.version})`}`],
    ["key id", info.keyId],
    ["tags", info.tags.join(", ") || "-"],
    ["created", info.createdAt],
    ["updated", info.updatedAt],
    ...(info.expiresAt === null ? [] : [["expires", info.expiresAt] as const]),
    ["where", info.where],
    ["origin", info.origin],
    ...(info.custody === undefined ? [] : [["custody", CUSTODIAL] as const]),
    ...(got.size === undefined ? [] : [["size", `${got.size} bytes`] as const]),
    ...(info.publicKey === null ? [] : [["public key", info.publicKey.toHex()] as const]),
  ];
  const fields = (got.shown ?? []).map(({ name, value }) => [name, value ?? "(hidden)"] as const);
  return lines(head, fields);
}

function revealed({ fields }: Got): string {
  return lines(
    [],
    (fields ?? []).map(({ name, value }) => [name, value]),
  );
}

/** Names in one column, values in the other; further lines of a value stand below its first. */
function lines(head: readonly (readonly [string, string])[], fields: readonly (readonly [string, string])[]): string {
  const width = Math.max(10, ...fields.map(([name]) => plain(name).length));
  const row = ([name, value]: readonly [string, string]) =>
    `${plain(name).padEnd(width)}  ${value
      .split("\n")
      .map(plain)
      .join(`\n${" ".repeat(width)}  `)}`;
  return [...head.map(row), ...(head.length > 0 && fields.length > 0 ? [""] : []), ...fields.map(row)].join("\n");
}
