import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { boundedItem, checkName, FILE_BYTES, type Format, type PlainItem, unreadable, utf8Bytes } from "./item.ts";
import { parseObject } from "./jsontext.ts";
import { JWK_TYPES, readJwk, refuseEncrypted, writeJwk } from "./jwk.ts";
import { sniffJwks } from "./sniff.ts";

const MAX_KEYS = 10_000;

/**
 * A set of private and symmetric JSON Web Keys (RFC 7517 §5). A key is named by its `kid`, else by its thumbprint
 * (RFC 7638), which is the `kid` that is written; public keys are named among what is lost.
 */
export const jwks: Format = {
  name: "jwks",
  kind: "many",
  binary: false,
  types: JWK_TYPES,
  keeps: ["type"],
  sniff: sniffJwks,
  read: (file) => {
    const set = parseObject(file, FILE_BYTES.many);
    refuseEncrypted("jwks", set, file);
    const keys = set?.["keys"];
    if (set === null || !Array.isArray(keys)) throw unreadable("jwks", "it is not one JSON object with `keys`");
    if (keys.length > MAX_KEYS) throw unreadable("jwks", `it holds more than ${MAX_KEYS} keys`, "split the set");
    const items: PlainItem[] = [];
    const lost = Object.keys(set)
      .filter((member) => member !== "keys")
      .map((member) => ({ what: `member ${JSON.stringify(member.slice(0, 64))}` }));
    try {
      for (const [i, entry] of keys.entries()) readEntry(entry, `keys[${i}]`, items, lost);
      if (items.length === 0 && keys.length > 0) throw unreadable("jwks", "it holds public keys alone");
      if (new Set(items.map(({ name }) => name)).size !== items.length) {
        throw unreadable("jwks", "two of its keys are the same, or have the same kid");
      }
      return { items, lost };
    } catch (error) {
      wipe(...items.map(({ value }) => value));
      throw error;
    }
  },
  write: (items) => {
    for (const item of items) boundedItem("jwks", item);
    const keys = items.map(({ type, value }) => writeJwk(type, value));
    if (new Set(keys.map((key) => key["kid"])).size !== keys.length) {
      throw new Fault("bad_input", "cannot write as jwks: two of the secrets are the same key", {
        hint: "name one of the two alone",
      });
    }
    const file = utf8Bytes(`${JSON.stringify({ keys })}\n`);
    if (keys.length > MAX_KEYS || file.length > FILE_BYTES.many) {
      throw new Fault("too_large", `cannot write as jwks: a set has at most ${MAX_KEYS} keys and 8 MiB`);
    }
    return file;
  },
};

function readEntry(entry: unknown, path: string, items: PlainItem[], lost: { what: string }[]): void {
  if (typeof entry !== "object" || entry === null || Array.isArray(entry)) {
    throw unreadable("jwks", `${path} is no JSON object`);
  }
  const key: Record<string, unknown> = { ...entry };
  if (isPublic(key)) {
    lost.push({ what: `${path}: a public key` });
    return;
  }
  try {
    const { type, value, kid, thumbprint, lost: members } = readJwk(key);
    const name = kid !== null && isName(kid) ? kid.normalize("NFC") : thumbprint;
    if (kid !== null && name === thumbprint) members.push("kid");
    items.push({ name, type, value, tags: [], createdAt: null });
    lost.push(...members.map((member) => ({ what: `${path}: member ${JSON.stringify(member.slice(0, 64))}` })));
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw unreadable("jwks", `${path}: ${error.why ?? error.message}`);
  }
}

const isPublic = (key: Record<string, unknown>): boolean =>
  ["EC", "OKP", "RSA"].some((kty) => kty === key["kty"]) && !Object.hasOwn(key, "d");

function isName(kid: string): boolean {
  try {
    checkName(kid.normalize("NFC"));
    return true;
  } catch {
    return false;
  }
}
