import { equalBytes, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { SecretType } from "../protocol/secrettype.ts";
import type { Asks, ForeignFormat } from "./foreign.ts";
import type { Format, PlainItem } from "./item.ts";
import { FORMAT_NAMES, type FormatName, factsOf, WRITE_FORMATS } from "./names.ts";
import { sniffAge, sniffJson, sniffJwk, sniffJwks, sniffOpenssh, sniffPem } from "./sniff.ts";

export type { ForeignFormat } from "./foreign.ts";
export type { PlainItem } from "./item.ts";
export { checkName } from "./item.ts";
export { FORMAT_NAMES, type FormatName, factsOf, READ_FORMATS, WRITE_FORMATS } from "./names.ts";

/** Loads a format, as it is written without `--protect`. */
const LOADERS: { readonly [N in FormatName]: () => Promise<ForeignFormat> } = {
  raw: async () => plain((await import("./raw.ts")).raw),
  hex: async () => plain((await import("./hex.ts")).hex),
  base64: async () => plain((await import("./base64.ts")).base64),
  len8: async () => plain((await import("./len8.ts")).len8),
  json: async () => plain((await import("./json.ts")).json),
  jwk: async () => plain((await import("./jwk.ts")).jwk),
  jwks: async () => plain((await import("./jwks.ts")).jwks),
  pem: async () => (await import("./pem.ts")).pem,
  openssh: async () => plain((await import("./opensshfile.ts")).openssh),
  age: async () => (await import("./agearchive.ts")).age,
  bitwarden: async () => (await import("./bitwarden.ts")).bitwarden,
  "1pux": async () => (await import("./onepux.ts")).onePux,
  kdbx: async () => (await import("./kdbx.ts")).kdbx,
  pass: async () => (await import("./passtree.ts")).passTree,
  otpauth: async () => (await import("./otpauth.ts")).otpauth,
  "otpauth-migration": async () => (await import("./otpmigration.ts")).otpauthMigration,
  bip39: async () => plain((await import("./bip39.ts")).bip39),
  csv: async () => (await import("./csv.ts")).csv,
  dotenv: async () => (await import("./dotenv.ts")).dotenv,
};

/** The same, encrypted by a password when it is written. */
const PROTECTED: { readonly [N in FormatName]?: () => Promise<ForeignFormat> } = {
  pem: async () => (await import("./pem.ts")).pemProtected,
  bitwarden: async () => (await import("./bitwarden.ts")).bitwardenProtected,
};

type Sniff = (start: Uint8Array, path: string) => boolean;

/** Marks that show without loading their format; the others' own formats tell. */
const MARKS: { readonly [N in FormatName]?: Sniff | null } = {
  raw: null,
  hex: null,
  base64: null,
  len8: null,
  json: sniffJson,
  jwk: sniffJwk,
  jwks: sniffJwks,
  pem: sniffPem,
  openssh: sniffOpenssh,
  age: sniffAge,
};

/** A format without questions as one that may ask. */
function plain(format: Format): ForeignFormat {
  const { name, kind, binary, types, keeps, same } = format;
  return {
    name,
    kind,
    binary,
    types,
    keeps,
    encrypted: false,
    sniff: (start) => format.sniff(start),
    read: async (source, options) => {
      if (typeof source === "string") throw new Fault("bad_input", `cannot read a directory as ${name}`);
      return format.read(source, { name: options.name });
    },
    write: async (items) => ({ file: format.write(items), lost: leftOut(format, items) }),
    ...(same === undefined ? {} : { same }),
  };
}

/** Content beside the value for which a format has no place. */
function leftOut({ keeps, name }: Format, items: readonly PlainItem[]): { what: string }[] {
  const kept = (item: PlainItem, field: string) => name === "openssh" && item.type === "ssh" && field === "comment";
  return items.flatMap((item) => {
    const fields = keeps.includes("fields") ? [] : (item.fields ?? []).filter((field) => !kept(item, field.name));
    const what = fields.map((field) => ({ what: `${item.name}: field ${JSON.stringify(field.name)}` }));
    const dated = !keeps.includes("expiresAt") && (item.expiresAt ?? null) !== null;
    return dated ? [...what, { what: `${item.name}: its date of expiry` }] : what;
  });
}

/**
 * The format of that name.
 *
 * @param options `protect`: as it is written under a password.
 * @throws Fault bad_input for an unknown name, and where `protect` does not apply.
 */
export async function formatNamed(name: string, options: { readonly protect?: boolean } = {}): Promise<ForeignFormat> {
  const known = FORMAT_NAMES.find((candidate) => candidate === name);
  if (known === undefined) {
    throw new Fault("bad_input", "cannot use this format: its name is unknown", {
      hint: `choose one of ${FORMAT_NAMES.join(", ")}`,
    });
  }
  if (options.protect !== true) return LOADERS[known]();
  const load = PROTECTED[known] ?? (factsOf(known).encrypted === "always" ? LOADERS[known] : undefined);
  if (load !== undefined) return load();
  throw new Fault("bad_input", `${known} has no form that is protected by a password`, {
    hint: `formats that have: ${WRITE_FORMATS.filter((one) => factsOf(one).encrypted !== "never").join(", ")}`,
  });
}

/**
 * The name of the format that a file or directory shows itself; null where only the user can know (`raw`, `hex`,
 * `base64`, `len8`).
 *
 * @param start The first 64 KiB of a file, or all of it; empty for a directory.
 */
export async function sniffFormat(start: Uint8Array, path = ""): Promise<FormatName | null> {
  for (const name of FORMAT_NAMES) {
    const mark = MARKS[name];
    const sniff = mark === undefined ? (await LOADERS[name]()).sniff : mark;
    if (sniff?.(start, path)) return name;
  }
  return null;
}

/** Names of the formats that can write a type. */
export async function formatsFor(type: SecretType): Promise<readonly FormatName[]> {
  const able: FormatName[] = [];
  for (const name of WRITE_FORMATS) if ((await LOADERS[name]()).types.includes(type)) able.push(name);
  return able;
}

/** Refuses items of a type that the format cannot hold, and names the formats that can. @throws Fault bad_input */
export async function refuseTypes(format: ForeignFormat, items: readonly PlainItem[]): Promise<void> {
  const other = items.find((item) => !format.types.includes(item.type));
  if (other === undefined) return;
  throw new Fault("bad_input", `cannot write type "${other.type}" as ${format.name}`, {
    why: `${format.name} holds ${format.types.join(", ")}`,
    hint: `use --to ${(await formatsFor(other.type)).join(", ")}`,
  });
}

/**
 * Reads back a file that was just written and compares all that the format keeps.
 *
 * @param lossy True where something was left out: then values and their number are compared, not what stands beside.
 * @throws Fault corrupt when it does not give the same items again.
 */
export async function verifyWritten(
  format: ForeignFormat,
  items: readonly PlainItem[],
  file: Uint8Array,
  asks: Asks,
  lossy = false,
): Promise<void> {
  let again: readonly PlainItem[] = [];
  try {
    const name = format.kind === "single" ? (items[0]?.name ?? null) : null;
    again = (await format.read?.(file, { name, map: new Map(), asks }))?.items ?? [];
    if (again.length === items.length && items.every((item, i) => same(format, item, again[i], lossy))) return;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
  } finally {
    wipe(...again.map((item) => item.value));
  }
  throw new Fault("corrupt", `cannot read back what was written as ${format.name}`, { hint: "export again" });
}

function same(format: ForeignFormat, written: PlainItem, read: PlainItem | undefined, lossy: boolean): boolean {
  if (read === undefined) return false;
  if (format.same !== undefined) return format.same(written, read);
  if (!equalBytes(written.value, read.value)) return false;
  if (lossy) return true;
  const absent = { fields: [], expiresAt: null };
  return format.keeps.every(
    (field) =>
      JSON.stringify({ ...absent, ...written }[field] ?? null) ===
      JSON.stringify({ ...absent, ...read }[field] ?? null),
  );
}
