import type { KeyholdClient, SecretInfo } from "../client/api.ts";
import { readWholeFile } from "../client/files.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { ForeignFormat, PlainItem } from "../formats/index.ts";
import type { RequestId } from "../ids.ts";
import { isCustodial } from "../protocol/provenance.ts";
import type { Terminal } from "../ui/terminal.ts";

/** Which secrets. */
export interface Selection {
  readonly names: readonly string[];
  readonly all: boolean;
  readonly prefix: string | null;
  readonly tag: string | null;
  readonly fresh: boolean;
}

/** Secrets that are fetched between two steps of the progress. */
const STEP = 200;

/** What is known of the secrets to export. @throws Fault usage, not_found */
export async function selected(client: KeyholdClient, selection: Selection): Promise<readonly SecretInfo[]> {
  const { names, all, prefix, tag, fresh } = selection;
  const filtered = prefix !== null || tag !== null;
  if (names.length > 0 === (all || filtered)) {
    throw new Fault("usage", "name the secrets to export, or --all of them", {
      hint: "--all, or --prefix and --tag, or names",
    });
  }
  if (names.length === 0) return (await client.list({ prefix, search: null, tag, fresh })).items;
  const found: SecretInfo[] = [];
  for (const name of new Set(names)) {
    const { info } = await client.get({ name, version: null, reveal: false, fresh, save: false });
    if (!found.some(({ keyId }) => keyId === info.keyId)) found.push(info);
  }
  return found;
}

/** Splits off what the format cannot hold. */
export function holdable(
  format: ForeignFormat,
  infos: readonly SecretInfo[],
): { readonly held: readonly SecretInfo[]; readonly left: readonly string[] } {
  const held = infos.filter(({ type }) => format.types.includes(type));
  const others = infos.filter(({ type }) => !format.types.includes(type));
  return { held, left: others.map(({ name, type }) => `${name}: type "${type}"`) };
}

/**
 * Splits off items that cannot be written though their type can: a login without a one-time password for `otpauth`, a
 * value that no quotation holds for `dotenv`.
 *
 * @param format Of a form that needs no password.
 */
export async function writable(
  format: ForeignFormat,
  items: readonly PlainItem[],
): Promise<{ readonly items: readonly PlainItem[]; readonly left: readonly string[] }> {
  const kept: PlainItem[] = [];
  const left: string[] = [];
  const none = async () => {
    throw new Fault("internal", "this form is written without a key");
  };
  const options = { recipients: [], asks: { password: none, identities: none, progress: () => undefined } };
  for (const item of items) {
    try {
      wipe((await format.write?.([item], options))?.file);
      kept.push(item);
    } catch (error) {
      if (!(error instanceof Fault) || (error.code !== "bad_input" && error.code !== "too_large")) throw error;
      const why = error.why === undefined ? "" : `: ${error.why}`;
      left.push(`${item.name}: ${error.message}${why}`);
    }
  }
  return { items: kept, left };
}

/** The secrets with their values, which the caller wipes. */
export async function fetchItems(
  client: KeyholdClient,
  infos: readonly SecretInfo[],
  fresh: boolean,
  term: Terminal,
): Promise<{ items: PlainItem[]; requestId: RequestId | null }> {
  const items: PlainItem[] = [];
  const counter = term.counter("Retrieving", infos.length);
  let requestId: RequestId | null = null;
  try {
    for (let at = 0; at < infos.length; at += STEP) {
      const step = infos.slice(at, at + STEP);
      const refs = step.filter(({ type }) => type !== "file").map(({ keyId }) => ({ name: keyId, version: null }));
      const got = refs.length === 0 ? [] : await client.getMany({ refs, fresh, purpose: "export" });
      requestId = got[0]?.requestId ?? requestId;
      const byId = new Map(got.map((one) => [one.info.keyId, one]));
      for (const { type, keyId } of step) {
        const open = { name: keyId, version: null, fresh, purpose: "export" } as const;
        const one = type === "file" ? await readWholeFile(client, open) : byId.get(keyId);
        if (!one) throw new Fault("internal", "a secret came without its value");
        requestId = one.requestId ?? requestId;
        const { info, value, fields } = one;
        const { name, tags, createdAt, expiresAt } = info;
        const content = { value: value ?? new Uint8Array(0), fields: fields ?? [] };
        const seen = isCustodial(info.origin) ? { origin: info.origin } : {};
        items.push({ name, type: info.type, tags, createdAt, expiresAt, ...seen, ...content });
      }
      counter.advance(step.length);
    }
    return { items, requestId };
  } catch (error) {
    for (const { value } of items) wipe(value);
    throw error;
  } finally {
    counter.done();
  }
}
