import type { Fault } from "../../src/errors.ts";
import type { EntryBody, SignedEntry, Transcript } from "../../src/protocol/ceremony/model.ts";

/** Code of the Fault that a work ends with; `ok` where it does not. Other errors stay errors. */
export async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return "ok";
  } catch (error) {
    const { code } = error as Fault;
    if (code === undefined) throw error;
    return code;
  }
}

/** The transcript with other entries. */
export const withEntries = ({ manifest }: Transcript, entries: readonly SignedEntry[]): Transcript => ({
  manifest,
  entries,
});

/** Body of an entry of a kind. @throws Error for another kind */
export function bodyOf<K extends EntryBody["kind"]>(
  { entry: { body } }: SignedEntry,
  kind: K,
): Extract<EntryBody, { kind: K }> {
  if (body.kind !== kind) throw new Error(`a ${body.kind} instead of a ${kind}`);
  return body as Extract<EntryBody, { kind: K }>;
}

/** True where `needle` occurs in `hay` as bytes, base64, base64url or hexadecimal. */
export function holds(hay: Uint8Array | string, needle: Uint8Array): boolean {
  const text = typeof hay === "string" ? hay : Buffer.from(hay).toString("latin1");
  const bytes = Buffer.from(needle);
  const forms = [bytes.toString("latin1"), bytes.toString("hex"), bytes.toString("base64").replace(/=+$/, "")];
  return [...forms, bytes.toString("base64url")].some((form) => text.includes(form));
}
