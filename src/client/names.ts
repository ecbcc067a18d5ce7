import { Fault } from "../errors.ts";
import { DEFAULTS } from "../protocol/defaults.ts";

const FORBIDDEN = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]/u;

/**
 * Checks and normalises a secret's name: a path of 1 to 512 bytes, NFC, no control characters, no empty part, no
 * `.` or `..` (docs/cli.md §3).
 *
 * @throws Fault bad_input
 */
export function secretName(given: string): string {
  const name = given.normalize("NFC");
  const why = nameFlaw(name);
  if (why !== null)
    throw new Fault("bad_input", "this is not a name for a secret", { why, hint: "use a path like db/prod" });
  return name;
}

function nameFlaw(name: string): string | null {
  const length = Buffer.byteLength(name);
  if (length < 1 || length > DEFAULTS.nameBytes) return `a name has 1 to ${DEFAULTS.nameBytes} bytes`;
  if (FORBIDDEN.test(name) || !name.isWellFormed()) return "it holds a control character";
  for (const part of name.split("/")) {
    if (part === "") return "it has an empty part";
    if (part === "." || part === "..") return `it has a part "${part}"`;
  }
  return null;
}

/** Checks and normalises tags; gives each once, sorted. @throws Fault bad_input */
export function secretTags(given: readonly string[]): readonly string[] {
  const tags = [...new Set(given.map((tag) => tag.normalize("NFC")))].sort();
  for (const tag of tags) {
    const length = Buffer.byteLength(tag);
    if (length < 1 || length > DEFAULTS.tagBytes || FORBIDDEN.test(tag) || !tag.isWellFormed()) {
      throw new Fault("bad_input", `a tag has 1 to ${DEFAULTS.tagBytes} bytes and no control characters`);
    }
  }
  if (tags.length > DEFAULTS.tags) throw new Fault("bad_input", `a secret has at most ${DEFAULTS.tags} tags`);
  return tags;
}

/** Checks and normalises an account name: 1 to 128 bytes, NFC, no control characters. @throws Fault bad_input */
export function accountNameOf(given: string): string {
  const name = given.normalize("NFC");
  const length = Buffer.byteLength(name);
  if (
    length < 1 ||
    length > DEFAULTS.accountNameBytes ||
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(name) ||
    !name.isWellFormed()
  ) {
    throw new Fault(
      "bad_input",
      `an account name has 1 to ${DEFAULTS.accountNameBytes} bytes and no control characters`,
    );
  }
  return name;
}
