import type { Got, KeyholdClient } from "../client/api.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { RequestId } from "../ids.ts";
import type { Values } from "../ui/args.ts";
import { givenPassword } from "../ui/password.ts";
import { profileOf, type SessionContext, withReader } from "../ui/session.ts";
import { decodeText } from "../ui/text.ts";
import { type ENCODING_ARG, isText, valueText } from "./secretargs.ts";

/** A `kh://` reference taken apart (docs/cli.md §3). */
export interface Reference {
  readonly name: string;
  readonly version: number | null;
  readonly profile: string | null;
  readonly field: string | null;
}

const SCHEME = "kh://";

/** True for text that claims to be a reference. */
export function isReference(text: string): boolean {
  return text.startsWith(SCHEME);
}

/** Reads `kh://NAME[?version=N&profile=P][#field]`. @throws Fault bad_input */
export function parseReference(text: string): Reference {
  const bad = (why: string) =>
    new Fault("bad_input", `${JSON.stringify(text)} is not a reference`, {
      why,
      hint: "write kh://NAME[?version=N&profile=P][#FIELD]",
    });
  if (!isReference(text)) throw bad("it does not start with kh://");
  const [, path = "", query = "", field = ""] = /^kh:\/\/([^?#]*)(?:\?([^#]*))?(?:#(.*))?$/s.exec(text) ?? [];
  let name: string;
  let version: number | null = null;
  let profile: string | null = null;
  try {
    name = decodeURIComponent(path);
    for (const part of query === "" ? [] : query.split("&")) {
      const [key = "", raw = ""] = part.split("=", 2);
      const value = decodeURIComponent(raw);
      if (key === "version" && /^[1-9]\d{0,9}$/.test(value)) version = Number(value);
      else if (key === "profile" && value !== "") profile = value;
      else throw bad(`"${key}" is not known or has no such value`);
    }
    if (name === "") throw bad("the name is missing");
    return { name, version, profile, field: field === "" ? null : decodeURIComponent(field) };
  } catch (error) {
    throw error instanceof Fault ? error : bad("its percent-encoding is damaged");
  }
}

/** A reference as text, for messages: without the profile and version. */
export function referenceText({ name, field }: Pick<Reference, "name" | "field">): string {
  const path = name.split("/").map(encodeURIComponent).join("/");
  return `${SCHEME}${path}${field === null ? "" : `#${encodeURIComponent(field)}`}`;
}

/** What a reference leads to. */
export interface Resolved {
  readonly reference: Reference;
  /** As stored; wiped by who resolved it. */
  readonly bytes: Uint8Array;
  /** True where the bytes are text for people. */
  readonly text: boolean;
  readonly name: string;
  readonly type: string;
  readonly version: number;
  readonly requestId: RequestId | null;
}

/** A resolved value as text: text as it is, bytes encoded. */
export function resolvedText(value: Resolved, encoding: Values<typeof ENCODING_ARG>["encoding"]): string {
  return value.text && encoding === null ? decodeText(value.bytes) : valueText("bytes", value.bytes, encoding);
}

/**
 * Resolves references and hands the values, in the order of the references, to `work`: each profile is opened once and
 * asked once. All or none; every value is wiped when `work` has ended.
 *
 * @throws Fault not_found and what opening and reading throw
 */
export async function withReferences<T>(
  ctx: SessionContext,
  references: readonly Reference[],
  options: {
    readonly fresh: boolean;
    /** Takes the place of asking for the values, where what is read may be longer than one: then there are none. */
    readonly instead?: (client: KeyholdClient) => Promise<void>;
  },
  work: (values: readonly Resolved[]) => Promise<T>,
): Promise<T> {
  const values: (Resolved | undefined)[] = references.map(() => undefined);
  const owned: Uint8Array[] = [];
  try {
    const profiles = references.length === 0 ? [] : [...(await byProfile(ctx, references))];
    owned.push(...profiles.flatMap(([, { password }]) => password ?? []));
    for (const [profile, { at: places, password }] of profiles) {
      const chosen = { ...ctx, flags: { ...ctx.flags, profile } };
      const read = async (client: KeyholdClient) => {
        if (options.instead) return options.instead(client);
        const got = await getOnce(
          ctx,
          client,
          places.map((at) => certain(references[at])),
          options.fresh,
          owned,
        );
        for (const at of places) {
          const reference = certain(references[at]);
          const one = got(reference);
          const found = await fieldOf(reference, one);
          owned.push(found.bytes);
          const { info, version, requestId } = one;
          values[at] = { reference, ...found, name: info.name, type: info.type, version, requestId };
        }
      };
      await withReader(chosen, read, password);
    }
    return await work(options.instead ? [] : values.map(certain));
  } finally {
    wipe(...owned);
  }
}

function certain<T>(value: T | undefined): T {
  if (value === undefined) throw new Fault("internal", "a value is missing");
  return value;
}

interface Places {
  /** Indexes of the references. */
  readonly at: number[];
  /** The given password, to be wiped by who opens the profile. */
  readonly password?: Uint8Array;
}

/** Indexes of references by the profile that they lie in; a password that was given counts for each of them. */
async function byProfile(ctx: SessionContext, references: readonly Reference[]): Promise<ReadonlyMap<string, Places>> {
  const unnamed = references.some(({ profile }) => profile === null) ? (await profileOf(ctx)).name : "";
  const places = new Map<string, number[]>();
  for (const [at, { profile }] of references.entries()) {
    const name = profile ?? unnamed;
    places.set(name, [...(places.get(name) ?? []), at]);
  }
  // a descriptor gives its password once
  const given = await givenPassword(ctx);
  try {
    return new Map([...places].map(([name, at]) => [name, given === null ? { at } : { at, password: given.slice() }]));
  } finally {
    wipe(given ?? undefined);
  }
}

/** One request for all that lies in one profile; a secret that several references name is asked for once. */
async function getOnce(
  { term }: SessionContext,
  client: KeyholdClient,
  references: readonly Reference[],
  fresh: boolean,
  owned: Uint8Array[],
): Promise<(reference: Reference) => Got> {
  const keyOf = ({ name, version }: Reference) => `${version ?? ""} ${name}`;
  const wanted = new Map(references.map((one) => [keyOf(one), { name: one.name, version: one.version }]));
  const asking = client.getMany({ refs: [...wanted.values()], fresh, purpose: "get" });
  const got = await term.step("Retrieving", asking);
  owned.push(...got.flatMap(({ value }) => value ?? []));
  const keys = [...wanted.keys()];
  return (reference) => {
    const found = got[keys.indexOf(keyOf(reference))];
    if (found === undefined) throw new Fault("internal", "a value is missing");
    return found;
  };
}

/**
 * The part of a secret that a reference's `#field` names; of fields that repeat, the first. A field of one-time
 * passwords gives the code of now: its key is worth more than a code, and is no answer to somebody who wants one.
 *
 * @returns Bytes of their own, or the value's.
 * @throws Fault not_found, bad_input, unsupported for codes that are counted
 */
async function fieldOf({ name, field }: Reference, got: Got): Promise<{ bytes: Uint8Array; text: boolean }> {
  const { info, value, fields } = got;
  const named = fields?.find((one) => one.name === field);
  const asText = (text: string) => ({ bytes: new TextEncoder().encode(text), text: true });
  if (field === null || field === "value") {
    if (value === null) throw new Fault("internal", "a value is missing");
    if (value.length === 0 && field === null && fields !== null && fields.length > 0) {
      throw new Fault("bad_input", `${JSON.stringify(name)} has fields and no value`, { hint: fieldHint(got) });
    }
    return { bytes: value, text: isText(info.type) };
  }
  if (field === "public-key" && info.publicKey) return asText(info.publicKey.toHex());
  const isOtp = info.type === "totp" || info.type === "hotp";
  const otp = field === "otp" && named === undefined ? fields?.find(({ kind }) => kind === "otp") : named;
  if (otp?.kind === "otp") return asText(await codeOf(name, otp.value));
  if (isOtp && field === "otp" && value !== null) return asText(await codeOf(name, decodeText(value)));
  if (named !== undefined) return asText(named.value);
  throw new Fault("not_found", `${JSON.stringify(name)} has no field ${JSON.stringify(field)}`, {
    hint: fieldHint(got),
  });
}

async function codeOf(name: string, uri: string): Promise<string> {
  const { otpCode, parseOtpUri } = await import("../protocol/otp.ts");
  const key = parseOtpUri(uri);
  try {
    if (key.kind === "totp") return otpCode(key, Date.now()).code;
    throw new Fault(
      "unsupported",
      `the codes of ${JSON.stringify(name)} are counted: a reference does not use one up`,
      {
        hint: "keyhold otp code NAME",
      },
    );
  } finally {
    wipe(key.secret);
  }
}

/** The fields that a secret has, as a reference names them. */
export function fieldHint({ info, fields }: Pick<Got, "info" | "fields">): string {
  const otp = info.type === "totp" ? ["otp"] : [];
  const own = (fields ?? []).map((one) => one.name);
  const names = new Set(["value", ...(info.publicKey ? ["public-key"] : []), ...otp, ...own]);
  return `it has ${[...names].map((one) => `#${encodeURIComponent(one)}`).join(", ")}`;
}
