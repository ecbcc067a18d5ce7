import type { KeyholdClient, Where, Written } from "../client/api.ts";
import { storeFileFrom } from "../client/files.ts";
import { concat, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { Field } from "../protocol/content.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import type { SecretType } from "../protocol/secrettype.ts";
import type { Values } from "../ui/args.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { EndedBySignal } from "../ui/endedbysignal.ts";
import { openFileSource } from "../ui/filesource.ts";
import { VALUE_ARGS } from "../ui/flags.ts";
import { readValue, stdinHasInput } from "../ui/password.ts";
import { expiryOf, isRecordType } from "../ui/recordfields.ts";
import { withClient } from "../ui/session.ts";
import { currentOf, EXPIRES_ARG, FIELD_ARGS, fieldsAfter, namesFields } from "./fieldargs.ts";
import { SECRET_ARG, TYPE_ARG, WRITE_ARGS, writtenResult } from "./secretargs.ts";

const ARGS = {
  ...SECRET_ARG,
  ...VALUE_ARGS,
  ...TYPE_ARG,
  ...FIELD_ARGS,
  ...EXPIRES_ARG,
  ...WRITE_ARGS,
} as const;
type StoreArgs = Values<typeof ARGS>;

export default defineCommand({
  args: ARGS,
  data: "{name, keyId, type, version, tags, where, publicKeyHex?, queued?}; never the value",
  details: `The value is kept byte for byte. A name that exists gets a new version, which keeps the fields that are not named.

A login, card or identity has fields beside its value (the password, the card's number): without any of them given they are asked for at the terminal. Hidden fields and one-time passwords never stand in the command line.

Values of more than 64 KiB, up to 16 MiB, are files: kept in parts, and never whole in memory. Of files above 1 MiB the vault keeps no copy unless --store both asks for it.`,
  examples: [
    ["keyhold store db/url --in-file url.txt", "the content of a file"],
    ['printf %s "$TOKEN" | keyhold store ci/token --type token --expires 90d', "from stdin, good for 90 days"],
    ["keyhold store web/shop --type login", "asks for user, password, address, one-time password and notes"],
    ["keyhold store web/shop --type login --user ada --url https://shop.example --in-file pw.txt", "without questions"],
    ["keyhold store papers/scan --in-file scan.pdf --type file", "a file of up to 16 MiB"],
  ],
  run: async (args, ctx) => {
    // before a password is read from there
    if (args.inFile === "-" || (args.inFile === null && stdinHasInput())) ctx.stdin.claim("the value");
    const where = (await ctx.settings()).get("store", args.store) as Where | null;
    try {
      return writtenResult(await withClient(ctx, (client) => storeOne(ctx, client, args, where)));
    } catch (error) {
      if (!(error instanceof EndedBySignal)) throw error;
      return ctx.out.fail(new Fault("interrupted", `ended by ${error.signal}`), error.exit);
    }
  },
});

async function storeOne(ctx: Context, client: KeyholdClient, args: StoreArgs, where: Where | null): Promise<Written> {
  const expires = args.expires === null ? {} : { expiresAt: expiryOf(args.expires, Date.now()) };
  const about = { name: args.name, tags: args.tag, where, ...expires };
  const given = args.inFile !== null || stdinHasInput();
  if (isRecordType(args.type) && !given) return storeRecord(ctx, client, args, args.type, about);
  const fields = await mergedFields(ctx, client, args);
  const large = given ? await largeSource(ctx, args) : null;
  if (large !== null && !("value" in large)) return storeLarge(ctx, client, large, { ...about, ...fields });
  const value = large?.value ?? (await readValue(ctx, args.inFile, { message: "Value" }));
  try {
    const storing = client.store({ ...about, ...fields, type: args.type, value });
    return await ctx.term.step("Storing", storing);
  } finally {
    wipe(value);
  }
}

/** The fields that the flags lead to, on top of what is there; left out where nothing is said of them. */
async function mergedFields(ctx: Context, client: KeyholdClient, args: StoreArgs) {
  if (!namesFields(args)) return {};
  const before = await currentOf(client, args.name);
  wipe(before?.value);
  const fields = await fieldsAfter(ctx, args, before?.fields ?? [], args.name);
  return { fields, ifVersion: before?.version ?? 0 };
}

type About = Pick<Parameters<KeyholdClient["store"]>[0], "name" | "tags" | "where" | "expiresAt">;

/** A login, card or identity without a value on stdin or in a file: by flags, else by questions. */
async function storeRecord(
  ctx: Context,
  client: KeyholdClient,
  args: StoreArgs,
  type: "login" | "card" | "identity",
  about: About,
): Promise<Written> {
  const before = await currentOf(client, args.name);
  const ifVersion = before?.version ?? 0;
  const there = before?.fields ?? [];
  wipe(before?.value);
  const byFlags = namesFields(args);
  if (!byFlags && !ctx.term.canPrompt) {
    throw new Fault("input_needed", "the value is needed", { hint: "--in-file FILE, stdin, or fields with --set" });
  }
  const { askRecord, askValue } = await import("./recordprompts.ts");
  const asksValue = ctx.term.canPrompt && before === null && type !== "identity";
  const { value, fields } = byFlags
    ? {
        fields: await fieldsAfter(ctx, args, there, args.name),
        value: asksValue ? await askValue(ctx, type) : null,
      }
    : await askRecord(ctx, type, there, { name: args.name, isNew: before === null });
  try {
    // somebody who was asked for the password and gave none wants one made
    if (type === "login" && value === null && asksValue) {
      const { name, tags, where, expiresAt = null } = about;
      const making = client.generate({ name, tags, where, expiresAt, type, length: null, fields, replace: false });
      return await ctx.term.step("Generating", making);
    }
    const kept = value ?? (before === null ? new Uint8Array(0) : null);
    return await ctx.term.step("Storing", client.store({ ...about, type, value: kept, fields, ifVersion }));
  } finally {
    wipe(value ?? undefined);
  }
}

interface Large {
  readonly size: number | null;
  /** What was read already to see that there is more. */
  readonly front: Uint8Array;
  readonly source: ReturnType<typeof openFileSource>;
}

/** A source of more than a secret holds, where it may be a file; null for what {@link readValue} reads. */
async function largeSource(
  ctx: Context,
  { inFile, type }: StoreArgs,
): Promise<Large | { readonly value: Uint8Array } | null> {
  const may: readonly (SecretType | null)[] = [null, "file"];
  if (!may.includes(type)) return null;
  const path = inFile === "-" ? null : inFile;
  const source = openFileSource(path);
  if (source.size !== null && source.size <= DEFAULTS.secretBytes) {
    source.close();
    return null;
  }
  if (source.size !== null) return { size: source.size, front: new Uint8Array(0), source };
  ctx.stdin.claim("the value");
  const front = await source.read(DEFAULTS.secretBytes + 1);
  if (front.length > DEFAULTS.secretBytes) return { size: null, front, source };
  if (front.length > 0) return { value: front };
  throw new Fault("bad_input", "the value is empty", { hint: "give it with --in-file FILE or on stdin" });
}

async function storeLarge(
  ctx: Context,
  client: KeyholdClient,
  { size, front, source }: Large,
  about: About & { readonly fields?: readonly Field[]; readonly ifVersion?: number },
): Promise<Written> {
  const counter = ctx.term.counter("Storing (KiB)", Math.ceil((size ?? DEFAULTS.fileBytes) / 1_024));
  let first: Uint8Array | null = front;
  const ended = Promise.withResolvers<never>();
  ended.promise.catch(() => undefined);
  // the first signal leaves time to take back what was sent; the second ends the process
  ctx.onTerminate((signal) => ended.reject(new EndedBySignal(signal)));
  try {
    return await storeFileFrom(
      client,
      { ...about, size },
      async (limit) => {
        const next = await Promise.race([ended.promise, source.read(limit - (first?.length ?? 0))]);
        if (first === null || first.length === 0) return next;
        const joined = concat(first, next);
        wipe(first, next);
        first = null;
        return joined;
      },
      (bytes) => counter.advance(Math.ceil(bytes / 1_024)),
    );
  } finally {
    ctx.onTerminate(null);
    wipe(front);
    counter.done();
    source.close();
  }
}
