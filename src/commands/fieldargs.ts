import type { KeyholdClient } from "../client/api.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { Field } from "../protocol/content.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import type { Values } from "../ui/args.ts";
import type { Context } from "../ui/command.ts";
import { readGivenFd, readSecretFile } from "../ui/password.ts";
import { changedFields, type FieldChange, kindOfName } from "../ui/recordfields.ts";

/** Flags of commands that write fields. */
export const FIELD_ARGS = {
  user: { type: "string", hint: "NAME", description: "the field user: short for --set user=NAME" },
  url: { type: "list", hint: "URL", description: "a field url (repeatable)" },
  set: { type: "list", hint: "FIELD=VALUE", description: "set a field that is no secret (repeatable)" },
  setFile: { type: "list", hint: "FIELD=FILE", description: "set a field to the content of FILE (repeatable)" },
  setFd: { type: "list", hint: "FIELD=N", description: "set a field to what descriptor N gives (repeatable)" },
  ask: { type: "list", hint: "FIELD", description: "ask for a hidden field at the terminal (repeatable)" },
  unset: { type: "list", hint: "FIELD", description: "take a field away (repeatable)" },
} as const;

/** When it ends to be good. */
export const EXPIRES_ARG = {
  expires: { type: "string", hint: "WHEN", description: "day such as 2027-01-31, time from now such as 90d, or never" },
} as const;

type FieldValues = Values<typeof FIELD_ARGS>;

/** True where a command line says anything of fields. */
export function namesFields(args: FieldValues): boolean {
  const { user, url, set, setFile, setFd, ask, unset } = args;
  return user !== null || [url, set, setFile, setFd, ask, unset].some((list) => list.length > 0);
}

function split(flag: string, text: string): [name: string, value: string] {
  const at = text.indexOf("=");
  if (at < 1)
    throw new Fault("usage", `--${flag} takes FIELD=${flag === "set" ? "VALUE" : flag === "set-fd" ? "N" : "FILE"}`);
  return [text.slice(0, at), text.slice(at + 1)];
}

/**
 * What the flags of a command change. A secret never comes from the command line, which other users can read.
 *
 * @param before The fields that are there: what they hold decides too.
 * @throws Fault usage, input_needed, not_found
 */
export async function fieldChanges(
  ctx: Pick<Context, "term" | "stdin">,
  args: FieldValues,
  before: readonly Field[],
  name: string,
): Promise<readonly FieldChange[]> {
  const isSecret = (field: string): boolean => {
    const kind = before.find((one) => one.name === field)?.kind ?? kindOfName(field);
    return kind === "hidden" || kind === "otp";
  };
  const changes: FieldChange[] = args.unset.map((field) => ({ name: field, value: null, otherwise: "text" }));
  for (const text of args.set) {
    const [field, value] = split("set", text);
    if (isSecret(field)) {
      throw new Fault("usage", `--set does not take the field ${JSON.stringify(field)}: it holds a secret`, {
        why: "other programs can read the words of a command line",
        hint: `--ask ${field}, --set-file ${field}=FILE or --set-fd ${field}=N`,
      });
    }
    changes.push({ name: field, value, otherwise: "text" });
  }
  if (args.user !== null) changes.push({ name: "user", value: args.user, otherwise: "text" });
  for (const value of args.url) changes.push({ name: "url", value, otherwise: "text" });
  for (const text of args.setFile) {
    const [field, path] = split("set-file", text);
    const bytes = readSecretFile(path, DEFAULTS.secretBytes + 1, "accept");
    changes.push({ name: field, value: await fieldText(field, bytes, name), otherwise: "hidden" });
  }
  for (const text of args.setFd) {
    const [field, number] = split("set-fd", text);
    if (!/^\d{1,5}$/.test(number)) throw new Fault("usage", "--set-fd takes FIELD=N, N the number of a descriptor");
    if (number === "0") ctx.stdin.claim(`the field ${field}`);
    const bytes = readGivenFd(Number(number), "--set-fd", DEFAULTS.secretBytes + 1);
    changes.push({ name: field, value: await fieldText(field, bytes, name), otherwise: "hidden" });
  }
  for (const field of args.ask) {
    const text = await ctx.term.password(field, {
      code: "input_needed",
      needed: `the field ${JSON.stringify(field)}`,
      fix: `--set-file ${field}=FILE or --set-fd ${field}=N`,
    });
    changes.push({ name: field, value: await normalField(field, text, name), otherwise: "hidden" });
  }
  return changes;
}

/** Bytes as a field's text, without the newline at their end; wiped here. */
async function fieldText(field: string, bytes: Uint8Array, name: string): Promise<string> {
  try {
    if (bytes.length > DEFAULTS.secretBytes)
      throw new Fault("too_large", `the field ${JSON.stringify(field)} is too long`);
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes).replace(/\r?\n$/, "");
    return await normalField(field, text, name);
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw new Fault("bad_input", `the field ${JSON.stringify(field)} is not UTF-8 text`);
  } finally {
    wipe(bytes);
  }
}

/** A one-time password's key as the URI that it is kept as: many sites show the bare key in base32. */
export async function normalField(field: string, text: string, name: string): Promise<string> {
  if (kindOfName(field) !== "otp" || /^otpauth:/i.test(text) || text === "") return text;
  const { base32Key, checkOtpKey, otpUri } = await import("../protocol/otp.ts");
  const base = { issuer: "", label: name, algorithm: "SHA1", digits: 6, period: 30, counter: 0 } as const;
  return otpUri(checkOtpKey({ kind: "totp", ...base, secret: base32Key(text) }));
}

/** What of a secret a change begins with. */
export interface Current {
  readonly name: string;
  readonly type: string;
  readonly version: number;
  readonly fields: readonly Field[];
  /** Empty for a large file. */
  readonly value: Uint8Array;
  readonly expiresAt: string | null;
  readonly origin: string;
}

/** The secret of that name with its fields, or null. The caller wipes the value. */
export async function currentOf(client: KeyholdClient, name: string): Promise<Current | null> {
  try {
    const got = await client.get({ name, version: null, reveal: true, fresh: false, save: false });
    const { info } = got;
    return {
      name: info.name,
      type: info.type,
      version: info.version,
      fields: got.fields ?? [],
      value: got.value ?? new Uint8Array(0),
      expiresAt: info.expiresAt,
      origin: info.origin,
    };
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    if (error.code === "not_found") return null;
    if (error.code !== "too_large") throw error;
    const { handle, info, fields } = await client.fileOpen({ name, version: null, fresh: false, purpose: "get" });
    await client.fileAbort({ handle });
    const { type, version, expiresAt, origin } = info;
    return { name: info.name, type, version, fields, value: new Uint8Array(0), expiresAt, origin };
  }
}

/** Fields after what the flags say. @throws As {@link fieldChanges} */
export async function fieldsAfter(
  ctx: Pick<Context, "term" | "stdin">,
  args: FieldValues,
  before: readonly Field[],
  name: string,
): Promise<readonly Field[]> {
  return changedFields(before, await fieldChanges(ctx, args, before, name));
}
