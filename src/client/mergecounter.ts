import { equalBytes, wipe } from "../crypto/bytes.ts";
import { decodeRecord, encodeRecord } from "../wire/content.ts";
import { openChecked } from "./changes.ts";
import { fetchSealed } from "./fetching.ts";
import type { Meta } from "./meta.ts";
import type { Model, ServerSecret } from "./model.ts";
import type { Session } from "./session.ts";

const HOTP = "otpauth://hotp/";

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** The URI of a counter in what is sealed in place of a value, and how to put another in its place. */
function counterIn(meta: Meta, plain: Uint8Array): { uri: string; put: (uri: string) => Uint8Array } | null {
  if (meta.form === "raw") {
    const uri = meta.type === "hotp" ? text(plain) : "";
    return uri.startsWith(HOTP) ? { uri, put: (next) => new TextEncoder().encode(next) } : null;
  }
  if (meta.form !== "record") return null;
  const { value, fields } = decodeRecord(plain);
  if (meta.type === "hotp" && text(value).startsWith(HOTP)) {
    const put = (next: string) => encodeRecord({ value: new TextEncoder().encode(next), fields });
    return { uri: text(value), put };
  }
  const field = fields.find((one) => one.kind === "otp" && one.value.startsWith(HOTP));
  if (!field) return null;
  const put = (next: string) =>
    encodeRecord({ value, fields: fields.map((one) => (one === field ? { ...one, value: next } : one)) });
  return { uri: field.value, put };
}

/**
 * What is to be stored of a queued value on top of one that another device changed meanwhile: of a one-time password
 * with a counter, the higher counter of both, so that no code is shown a second time (RFC 4226 §7.2).
 *
 * @param plain What is sealed in place of the queued value; stays the caller's.
 * @returns `plain`, or something else for the caller to wipe.
 * @throws Fault integrity
 */
export async function withHigherCounter(
  model: Model,
  target: ServerSecret,
  meta: Meta,
  plain: Uint8Array,
  session: Session,
): Promise<Uint8Array> {
  const mine = counterIn(meta, plain);
  if (mine === null || target.meta === null) return plain;
  const { keyId, version } = target.leaf;
  const { sealed } = await fetchSealed(session, "secret.get", [{ keyId, version }]);
  const theirs = openChecked(model, target.leaf, target.meta, sealed[0] ?? new Uint8Array(0));
  const there = theirs.fields.find(({ kind, value }) => kind === "otp" && value.startsWith(HOTP))?.value;
  const uri = target.meta.type === "hotp" ? text(theirs.value) : there;
  wipe(theirs.value);
  if (!uri?.startsWith(HOTP)) return plain;
  const { otpUri, parseOtpUri } = await import("../protocol/otp.ts");
  const [ours, other] = [parseOtpUri(mine.uri), parseOtpUri(uri)];
  try {
    if (!equalBytes(ours.secret, other.secret) || other.counter <= ours.counter) return plain;
    return mine.put(otpUri({ ...ours, counter: other.counter }));
  } finally {
    wipe(ours.secret, other.secret);
  }
}
